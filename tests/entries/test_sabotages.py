"""What can be broken at one entry only: found by its own rule at its own step, or refused."""

from __future__ import annotations

import pytest

from tests.entries.runs import walk
from tests.makers.hosts import mode_host
from tests.modes.runs import walk as walk_linux
from tightrope.errors import BadInput
from tightrope.model import Outcome, Paging, Protocol, Verdict
from tightrope.sabotage import ENTRY_SABOTAGES, SABOTAGES, XEN_SABOTAGES

OF_AN_ENTRY = list(ENTRY_SABOTAGES.values())
CAN = [(paging, each.name) for each in OF_AN_ENTRY for paging in each.modes]


def broken(paging: Paging, name: str, protocol: Protocol) -> Verdict:
    if protocol in (Protocol.LINUX_32, Protocol.LINUX_64):
        return walk_linux(mode_host(paging), protocol=protocol, sabotage=name)
    return walk(protocol, paging, sabotage=name)


def test_there_are_some() -> None:
    assert set(ENTRY_SABOTAGES) >= {"paging-left-on", "wrong-magic", "no-memory-map"}
    assert all(each.entry for each in OF_AN_ENTRY)
    assert not any(each.entry for each in (*SABOTAGES.values(), *XEN_SABOTAGES.values()))


@pytest.mark.parametrize(("paging", "name"), CAN)
def test_it_is_found_by_its_rule_at_its_step(paging: Paging, name: str) -> None:
    each = ENTRY_SABOTAGES[name]
    assert each.entry is not None
    got = broken(paging, name, each.entry)
    assert got.outcome is Outcome.FALLS
    assert (got.findings[0].rule, got.findings[0].step) == (each.rule, each.step)


@pytest.mark.parametrize("name", [each.name for each in OF_AN_ENTRY])
def test_another_entry_is_not_broken_and_the_reason_is_said(name: str) -> None:
    with pytest.raises(
        BadInput, match=r"only a Multiboot|no Multiboot info|does not leave long mode"
    ):
        broken(Paging.X86_64, name, Protocol.LINUX_64)


def test_paging_is_off_already_after_a_walk_in_32_bits() -> None:
    with pytest.raises(BadInput, match="does not exist with pae paging, only with x86_64, la57"):
        broken(Paging.PAE, "paging-left-on", Protocol.LINUX_32)


def test_paging_left_on_shows_in_all_three_registers() -> None:
    got = broken(Paging.X86_64, "paging-left-on", Protocol.LINUX_32)
    assert "CR0 is PE MP ET NE PG; CR4 is PAE; EFER is" in got.findings[0].message
