"""The matrix: every mode, split and kind, one cell each, and what a cell that does not hold looks like."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.makers.bzimage import bzimage
from tests.makers.screens import screen
from tests.stand_ins.played import Fake
from tightrope import image, shipped
from tightrope.check import RULES
from tightrope.cli import main
from tightrope.deeds.defaults import CRASH_REGION
from tightrope.deeds.matrix import hosts, matrix
from tightrope.errors import MissingPart
from tightrope.machine.kvm import Kvm
from tightrope.memory import PAGE_SIZE, covered
from tightrope.model import Handover, Image, Outcome, Paging, Run, XenCrash
from tightrope.model.matrix import Cell
from tightrope.model.sheet import Table
from tightrope.views import matrix as report

MODES = 6 + 6 + 1 + 1
"""Splits of i386 and PAE, and the two 64-bit modes."""
THROUGH_XEN = 3 * (1 + 1 + 4)
"""Three kinds: v1 with i386 and PAE, and all four ways with x86_64."""
NEVER = 3 * (3 + 3 + 4)
"""v2 or a 64-bit dom0 on a 32-bit Xen, and any Xen with 5 levels."""
ALL = 2 * MODES + THROUGH_XEN


def kernel(init_size: int = 0x20_0000) -> Image:
    return image.read(bzimage(init_size=init_size), "made")


@pytest.fixture(scope="module")
def cells() -> tuple[Cell, ...]:
    return matrix([image.read(shipped.read(), "shipped")])


def test_every_mode_split_and_kind_has_a_cell_and_all_hold(cells: tuple[Cell, ...]) -> None:
    bare = [cell for cell in cells if cell.xen is None]
    assert len(bare) == MODES * 2
    assert {cell.paging for cell in cells} == set(Paging)
    assert {(c.paging, c.page_offset, c.crash) for c in bare} == {
        (paging, split, crash) for paging, split, _ in hosts() for crash in (False, True)
    }
    assert [cell for cell in bare if cell.outcome is not Outcome.HOLDS] == []


def test_every_way_through_xen_has_a_cell_that_holds_or_says_why_it_never_existed(
    cells: tuple[Cell, ...],
) -> None:
    through = [cell for cell in cells if cell.xen is not None]
    assert len(through) == 4 * 4 * 3
    held = {(c.paging, c.xen, c.crashed) for c in through if c.outcome is Outcome.HOLDS}
    kinds: list[XenCrash | None] = [None, *XenCrash]
    assert held == {
        (paging, way, kind)
        for kind in kinds
        for paging, way in (
            (Paging.I386, "v1, 32-bit dom0"),
            (Paging.PAE, "v1, 32-bit dom0"),
            (Paging.X86_64, "v1, 32-bit dom0"),
            (Paging.X86_64, "v1, 64-bit dom0"),
            (Paging.X86_64, "v2, 64-bit dom0"),
            (Paging.X86_64, "v2, 32-bit dom0"),
        )
    }
    rest = [cell for cell in through if cell.outcome is not Outcome.HOLDS]
    assert len(rest) == NEVER
    assert {cell.outcome for cell in rest} == {None}
    assert all("never" in cell.detail for cell in rest)
    assert {cell.detail for cell in through if cell.xen == "v2, 32-bit dom0"} >= {"linux32"}


def test_the_crash_region_is_free_ram_of_every_host_and_unaligned() -> None:
    assert CRASH_REGION.start % (2 << 20) == PAGE_SIZE
    for _paging, _split, host in hosts():
        assert covered(CRASH_REGION, host.memory.ram)
        assert not any(CRASH_REGION.overlaps(each.extent) for each in host.busy)


def test_a_kernel_that_fits_nowhere_has_cells_that_do_not_exist() -> None:
    big = kernel(init_size=0xD000_0000)
    got = matrix([big], on=[Fake()])
    assert {cell.outcome for cell in got} == {None}
    text = screen(report.VIEW, got)
    assert "- (1)" in text
    assert "(1) needs 0xd0000000 bytes of RAM in one piece" in text
    assert text.endswith(f"{ALL + NEVER} do not exist")


def test_a_fallen_cell_names_its_rule(cells: tuple[Cell, ...]) -> None:
    class Blind(Fake):
        def run(self, handover: Handover) -> Run:
            run = super().run(handover)
            return replace(run, registers=replace(run.registers, rflags=0x202))

    got = matrix([kernel()], on=[Blind()])
    done = [cell for cell in got if cell.outcome is not None]
    assert {cell.outcome for cell in done} == {Outcome.FALLS}
    assert {cell.detail for cell in done} == {"entry-flags, step 6"}
    assert f"0 of {ALL} cells hold" in screen(report.VIEW, got)
    text = screen(report.VIEW, cells)
    assert f"{ALL} of {ALL} cells hold" in text
    assert "pae        0x02000000 (4G/4G)  kdump  holds" in text


def test_the_page_has_what_each_cell_that_exists_was_asked(cells: tuple[Cell, ...]) -> None:
    [section] = [each for each in report.VIEW.sheet(cells).sections if each.folded]
    [table] = section.blocks
    assert isinstance(table, Table)
    assert {name for name, *_ in table.rows} == {each.id for each in RULES}
    assert {row[-1] for row in table.rows} == {f"{ALL} of {ALL}"}


def test_the_command_prints_the_table_and_its_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    small.write_bytes(bzimage())
    assert main(["matrix", str(small)]) == 0
    assert f"{ALL} of {ALL} cells hold" in capsys.readouterr().out
    assert main(["matrix", "--json", str(small)]) == 0
    rows = json.loads(capsys.readouterr().out)["cells"]
    assert len(rows) == ALL + NEVER
    assert set(rows[0]) == {
        "mode", "page_offset", "crash", "kernel", "machine", "xen", "crashed", "outcome", "detail",
        "seconds",
    }  # fmt: skip
    big = tmp_path / "big"
    big.write_bytes(bzimage(init_size=0xD000_0000))
    assert main(["matrix", str(big)]) == 1


class Elsewhere(Fake):
    """A machine that has only one paging mode."""

    name = "elsewhere"

    def run(self, handover: Handover) -> Run:
        if handover.host.paging is not Paging.X86_64:
            raise MissingPart("it has long mode only")
        return super().run(handover)


def test_each_machine_has_a_column_and_what_it_cannot_be_has_its_reason() -> None:
    got = matrix([kernel()], on=[Fake(), Elsewhere()])
    text = screen(report.VIEW, got)
    assert "made, fake" in text
    assert "made, elsewhere" in text
    assert "(1) it has long mode only" in text
    there = {
        name: {cell.paging for cell in got if cell.machine == name and cell.outcome}
        for name in ("fake", "elsewhere")
    }
    assert there == {"fake": set(Paging), "elsewhere": {Paging.X86_64}}


def test_kvm_agrees_with_the_emulator_in_every_cell_that_it_has(
    kvm: Kvm, kvm_free: Kvm, cells: tuple[Cell, ...]
) -> None:
    def place(cell: Cell) -> tuple[object, ...]:
        return cell.paging, cell.page_offset, cell.xen, cell.crash, cell.crashed

    theirs = {place(cell): cell.outcome for cell in cells}
    got = matrix([image.read(shipped.read(), "shipped")], on=[kvm, kvm_free])
    walked = [cell for cell in got if cell.outcome is not None]
    assert len(walked) >= 4
    assert [cell for cell in walked if cell.outcome != theirs[place(cell)]] == []
    lacking = [cell for cell in got if cell.outcome is None and theirs[place(cell)] is not None]
    assert all("this computer's KVM" in cell.detail for cell in lacking)
