"""A core header that somebody else's loader wrote: the row of the text may end in a last page, and no further;
low memory that is read elsewhere is a backup, whoever's purgatory it is."""

from __future__ import annotations

import pytest

from tests.crash.hosts import example
from tightrope.check.told.core_header import HeaderRow
from tightrope.check.told.dump import _of_text
from tightrope.memory import Extent, Phys
from tightrope.model import Backup, Host, Paging
from tightrope.plan.crash import core_header
from tightrope.plan.taken import core_rows

PAGE, LARGE = 4096, 2 << 20


def row(old: Host, *, more: int = 0, start: int = 0, shift: int = 0) -> HeaderRow:
    text = Extent.sized(old.text.phys, old.text.size)
    return HeaderRow(
        type=1, flags=7, offset=Extent(text.start + start, text.end + more),
        virt=old.text.virt + start + shift, phys=text.start + start,
        memory_size=text.size + more - start, alignment=0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "its"),
    [
        ({}, True),
        ({"more": PAGE}, True),
        ({"more": LARGE - PAGE}, True),
        ({"more": LARGE}, False),
        ({"more": -PAGE}, False),
        ({"start": PAGE, "more": PAGE}, False),
        ({"shift": PAGE, "more": PAGE}, False),
    ],
)
def test_the_row_of_the_text_ends_with_it_or_in_the_page_behind(
    change: dict[str, int], its: bool
) -> None:
    old = example(Paging.X86_64)
    text = Extent.sized(old.text.phys, old.text.size)
    assert _of_text(row(old, **change), text, old) is its


def test_a_row_that_is_read_elsewhere_is_told_of_any_header() -> None:
    old = example(Paging.X86_64)
    assert old.crash_region is not None
    backup = Backup(source=Extent(0, 0x9F000), copy=Phys(old.crash_region.start))
    rows = list(core_rows(core_header(old, [backup])))
    away = [(each["paddr"], each["offset"]) for each in rows if each["paddr"] != each["offset"]]
    assert (0, old.crash_region.start) in away


@pytest.mark.parametrize("cut", [0, 3, 63, 64, 100])
def test_what_is_no_core_has_no_rows(cut: int) -> None:
    whole = core_header(example(Paging.X86_64))
    assert len(list(core_rows(whole[:cut]))) == 0
    assert list(core_rows(b"MZ" + whole)) == []
