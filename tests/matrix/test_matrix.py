"""The matrix: every mode, split and kind, one cell each, and what a cell that does not hold looks like."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.makers.bzimage import bzimage
from tightrope import image, shipped
from tightrope.cli import main
from tightrope.machine.fake import Fake
from tightrope.matrix import CRASH_REGION, Cell, hosts, matrix
from tightrope.memory import PAGE_SIZE, covered
from tightrope.model import Handover, Image, Outcome, Paging, Run
from tightrope.report import matrix as report

MODES = 5 + 5 + 1 + 1
"""Splits of i386 and PAE, and the two 64-bit modes."""


def kernel(init_size: int = 0x20_0000) -> Image:
    return image.read(bzimage(init_size=init_size), "made")


@pytest.fixture(scope="module")
def cells() -> tuple[Cell, ...]:
    return matrix([image.read(shipped.read(), "shipped")])


def test_every_mode_split_and_kind_has_a_cell_and_all_hold(cells: tuple[Cell, ...]) -> None:
    assert len(cells) == MODES * 2
    assert {cell.paging for cell in cells} == set(Paging)
    assert {(c.paging, c.page_offset, c.crash) for c in cells} == {
        (paging, split, crash) for paging, split, _ in hosts() for crash in (False, True)
    }
    assert [cell for cell in cells if cell.outcome is not Outcome.HOLDS] == []


def test_the_crash_region_is_free_ram_of_every_host_and_unaligned() -> None:
    assert CRASH_REGION.start % (2 << 20) == PAGE_SIZE
    for _paging, _split, host in hosts():
        assert covered(CRASH_REGION, host.memory.ram)
        assert not any(CRASH_REGION.overlaps(each.extent) for each in host.busy)


def test_a_kernel_that_fits_nowhere_has_cells_that_do_not_exist() -> None:
    big = kernel(init_size=0xD000_0000)
    got = matrix([big], on=[Fake()])
    assert {cell.outcome for cell in got} == {None}
    text = report.text(got)
    assert "- (1)" in text
    assert "(1) needs 0xd0000000 bytes of RAM in one piece" in text
    assert text.endswith("24 do not exist")


def test_a_fallen_cell_names_its_rule(cells: tuple[Cell, ...]) -> None:
    class Blind(Fake):
        def run(self, handover: Handover) -> Run:
            run = super().run(handover)
            return replace(run, registers=replace(run.registers, rflags=0x202))

    got = matrix([kernel()], on=[Blind()])
    assert {cell.outcome for cell in got} == {Outcome.FALLS}
    assert {cell.detail for cell in got} == {"entry-flags, step 6"}
    assert "0 of 24 cells hold" in report.text(got)
    assert "24 of 24 cells hold" in report.text(cells)


def test_the_command_prints_the_table_and_its_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small"
    small.write_bytes(bzimage())
    assert main(["matrix", str(small)]) == 0
    assert "24 of 24 cells hold" in capsys.readouterr().out
    assert main(["matrix", "--json", str(small)]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == MODES * 2
    assert set(rows[0]) == {
        "mode", "page_offset", "crash", "kernel", "machine", "outcome", "detail", "seconds",
    }  # fmt: skip
    big = tmp_path / "big"
    big.write_bytes(bzimage(init_size=0xD000_0000))
    assert main(["matrix", str(big)]) == 1
