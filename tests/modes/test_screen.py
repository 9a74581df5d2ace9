"""The screen of a rehearsal in each mode: names and widths of the CPU that it shows, and where V is."""

from __future__ import annotations

import re

import pytest

from tests.makers.hosts import Home, mode_host
from tests.makers.screens import screen as shown
from tests.modes.runs import LEGACY, walk
from tightrope.model import Paging, Protocol
from tightrope.views.rehearsal import VIEW as REHEARSAL

OLD_NAMES = ["eax", "ebx", "ecx", "edx", "esi", "edi", "ebp", "esp"]


def screen(paging: Paging, *, home: Home = Home.TEXT, protocol: Protocol | None = None) -> str:
    return shown(REHEARSAL, walk(mode_host(paging, home=home), protocol=protocol))


@pytest.mark.parametrize("paging", list(Paging))
def test_a_32_bit_entry_is_shown_with_the_registers_of_32_bits(paging: Paging) -> None:
    text = screen(paging, protocol=Protocol.LINUX_32)
    shown = re.findall(r"\b(e[a-ds][xip]) (0x[0-9a-f]+)\b", text)
    assert [name for name, _ in shown] == OLD_NAMES
    assert {len(value) for _, value in shown} == {10}
    assert not re.search(r"\b(?:r[abcd]x|rs[ip]|r\d+) +0x", text)


@pytest.mark.parametrize("paging", sorted(set(Paging) - set(LEGACY)))
def test_a_64_bit_entry_is_shown_with_the_registers_of_64_bits(paging: Paging) -> None:
    text = screen(paging)
    shown = re.findall(r"\b(r(?:[a-ds][xip]|\d+)) +(0x[0-9a-f]+)\b", text)
    assert len(shown) == 16
    assert {len(value) for _, value in shown} == {18}
    assert " eax " not in text


@pytest.mark.parametrize(
    ("home", "where"),
    [
        (Home.TEXT, "in the old kernel's text"),
        (Home.DIRECT_MAP, "in the direct map"),
        (Home.FIXMAP, "in a mapping of its own"),
    ],
)
@pytest.mark.parametrize("paging", list(Paging))
def test_where_v_is_is_said(paging: Paging, home: Home, where: str) -> None:
    [line] = [each for each in screen(paging, home=home).splitlines() if each.startswith("  V ")]
    assert where in line


@pytest.mark.parametrize("paging", list(Paging))
def test_step_5_is_called_what_it_is(paging: Paging) -> None:
    [line] = [each for each in screen(paging).splitlines() if each.startswith("5 ")]
    assert line.startswith("5 turn paging off" if paging in LEGACY else "5 load page_table_b")
