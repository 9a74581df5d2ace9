"""The designs side by side: history comes out, and no other failure than history's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.makers.bzimage import bzimage
from tests.makers.designs import DAMM_V4, DESIGNS, IN_PLACE, ONE_TABLE, TWO_TABLES
from tests.makers.screens import screen
from tightrope import host, image
from tightrope.cli import main
from tightrope.deeds.compare import _copied, compare
from tightrope.deeds.rehearse import rehearse
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Host, Named, Outcome, Paging
from tightrope.model.comparison import Row
from tightrope.model.sheet import Table
from tightrope.plan import Request
from tightrope.views import comparison as report

KERNEL = replace(image.read(bzimage(init_size=0x20000), "made"), payload=None)
"""Nothing to unpack, so that nobody asks how small a crash region may be."""
GIB = 1 << 30


def old_kernel(paging: Paging, page_offset: int | None = None, free: Extent | None = None) -> Host:
    """An example host; with `free` nothing below 4 GiB can be given away but that."""
    old = host.read(host.example(paging, page_offset), paging.value)
    if free is None:
        return old
    top = max(extent.end for extent in old.memory.ram if extent.start < 4 * GIB)
    taken = (Extent(0x10_0000, free.start), Extent(free.end, top))
    busy = tuple(Named(extent=each, what="in use") for each in taken)
    return replace(old, busy=(*old.busy, *busy))


def rows(old: Host) -> dict[str, Row]:
    return {row.design: row for row in compare(KERNEL, old, Request())}


@pytest.mark.parametrize("paging", [Paging.X86_64, Paging.LA57])
def test_where_v_is_negative_every_design_holds_that_leaves_the_current_pgd_alone(
    paging: Paging,
) -> None:
    found = rows(old_kernel(paging))
    assert {name for name, row in found.items() if row.outcome is not Outcome.HOLDS} == {IN_PLACE}
    assert all(row.reached for row in found.values())


def test_damm_v4_falls_where_v_and_p_share_a_pae_gigabyte_and_two_tables_holds() -> None:
    # 1G/3G: V = 0x41401000; the control page can only lie in the same GiB.
    old = old_kernel(Paging.PAE, 0x4000_0000, Extent(0x4800_0000, 0x6000_0000))
    found = rows(old)
    assert found[TWO_TABLES].outcome is Outcome.HOLDS
    assert found[DAMM_V4].outcome is Outcome.FALLS
    assert found[DAMM_V4].detail == "table-a-maps-v, step 2"
    assert found[DAMM_V4].old_bytes_changed == 0


def test_damm_v4_falls_on_i386_within_the_same_4_mib_only() -> None:
    virt = 0x4140_1000
    near = Extent(virt & -(4 << 20), (virt & -(4 << 20)) + (4 << 20))
    old = old_kernel(Paging.I386, 0x4000_0000, near)
    assert rows(old)[DAMM_V4].detail == "table-a-maps-v, step 2"
    assert rows(old)[TWO_TABLES].outcome is Outcome.HOLDS
    elsewhere = old_kernel(Paging.I386, 0x4000_0000, Extent(0x4800_0000, 0x6000_0000))
    assert rows(elsewhere)[DAMM_V4].outcome is Outcome.HOLDS


def test_one_table_cannot_exist_where_v_is_an_identity_address() -> None:
    virt = 0x4140_1000
    near = Extent(virt & -(4 << 20), (virt & -(4 << 20)) + (4 << 20))
    old = old_kernel(Paging.PAE, 0x4000_0000, near)
    # The copy needs so many of the free pages that the page at V is one of them.
    big = image.read(bzimage(init_size=0x30_0000), "big")
    found = {row.design: row for row in compare(big, old, Request())}
    assert found[ONE_TABLE].outcome is None
    assert "one table cannot lead V = 0x41401000" in found[ONE_TABLE].detail
    assert found[TWO_TABLES].outcome is Outcome.HOLDS


def test_one_table_is_loaded_as_both_and_has_fewer_pages() -> None:
    found = rows(old_kernel(Paging.X86_64))
    assert 0 < found[ONE_TABLE].table_pages < found[TWO_TABLES].table_pages
    assert found[TWO_TABLES].flushes == 4
    assert found[TWO_TABLES].pages_copied == found[ONE_TABLE].pages_copied > 0


def test_copies_are_counted_by_what_was_copied_and_not_by_what_the_list_asks_for() -> None:
    done = rehearse(KERNEL, old_kernel(Paging.X86_64), Request(initrd=bytes(9000)))
    run = done.run
    assert _copied(done) == (len(run.copies), 1.0)
    # Linux since 2.6.34 swaps: source to a spare page, destination to source, spare page to destination.
    spare = done.handover.intent.control_page + PAGE_SIZE
    three = np.repeat(run.copies, 3, axis=0)
    three[0::3, 1], three[1::3, 1], three[2::3, 2] = spare, three[1::3, 2], spare
    assert _copied(replace(done, run=replace(run, copies=three))) == (len(run.copies), 3.0)
    assert _copied(replace(done, run=replace(run, copies=run.copies[:0]))) == (0, None)


def test_the_command_prints_a_row_for_each_design(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(bzimage())
    assert main(["compare", str(kernel)]) == 0
    table = capsys.readouterr().out.split("\n\n")[1].splitlines()
    rows = [line.split()[0] for line in table if " entered " in line]
    assert rows == list(DESIGNS)
    assert main(["compare", "--json", str(kernel)]) == 0
    assert [row["design"] for row in json.loads(capsys.readouterr().out)["rows"]] == list(DESIGNS)


def test_a_design_that_cannot_be_has_its_reason_below_the_table() -> None:
    old = old_kernel(Paging.PAE, 0x4000_0000, Extent(0x4800_0000, 0x6000_0000))
    done = compare(KERNEL, old, Request())
    assert {row.reached for row in done} == {True, False}
    never = replace(done[0], design="never", outcome=None, detail="no room")
    text = screen(report.VIEW, (*done, never))
    holding = sum(row.outcome is Outcome.HOLDS for row in done)
    bad = ", ".join([each.design for each in done if each.outcome is not Outcome.HOLDS] + ["never"])
    head = f"{holding} of {len(done) + 1} designs hold; not {bad}"
    assert text.startswith(f"{head}\n")
    below = text.split("\n\n")[1].splitlines()
    assert "damm-v4 falls: table-a-maps-v, step 2" in below
    assert below[-1] == "never cannot exist: no room"
    assert "never           cannot exist" in below


def test_a_page_of_designs_has_once_what_each_of_them_was_asked() -> None:
    found = tuple(rows(old_kernel(Paging.I386)).values())
    last = report.sheet(found).sections[-1]
    (table,) = last.blocks
    assert last.folded
    assert isinstance(table, Table)
    names = [name for name, *_ in table.rows]
    assert len(names) == len(set(names))
    assert {name for row in found for name in (each.rule for each in row.asked)} == set(names)
    cannot = tuple(replace(row, outcome=None, asked=()) for row in found)
    assert [each.folded for each in report.sheet(cannot).sections] == [False]
