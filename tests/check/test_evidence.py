"""Evidence: which instruction wrote what, in which step, and which level an entry is of.

Rules: the rules' verdicts are asked in test_rules; here it is who is blamed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.check.breaking_told import Overlaid
from tests.makers.hosts import table_b
from tests.rehearse.runs import entered_with_5_levels, sound
from tightrope.check import changes, check
from tightrope.check.changes import steps_of
from tightrope.check.told.boot_params import PLACES
from tightrope.model import PieceRole, Run, Step
from tightrope.sabotage.edits import with_tables

ADDRESS = 0x000F_FFFF_FFFF_F000
STARTS = ((0, Step.CALL), (5, Step.TABLE_A), (9, Step.STATE))


def stepped() -> Run:
    return replace(sound().run, step_starts=STARTS)


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (0, Step.CALL),
        (4, Step.CALL),
        (5, Step.TABLE_A),
        (8, Step.TABLE_A),
        (9, Step.STATE),
        (99, Step.STATE),
    ],
)
def test_an_instruction_belongs_to_the_step_that_it_begins(number: int, step: Step) -> None:
    assert steps_of(stepped(), np.array([number])).tolist() == [step]


@given(st.lists(st.integers(0, 40), min_size=1))
def test_each_instruction_belongs_to_the_last_step_that_has_begun(numbers: list[int]) -> None:
    wanted = [max(step for at, step in STARTS if at <= number) for number in numbers]
    assert steps_of(stepped(), np.array(numbers)).tolist() == wanted


@pytest.mark.parametrize(
    ("before", "size", "blamed"),
    [(8, 8, False), (7, 8, True), (0, 1, True), (-1, 1, False), (9, 8, False), (15, 16, True)],
)
def test_a_store_is_blamed_for_the_bytes_that_it_wrote_and_no_other(
    before: int, size: int, blamed: bool
) -> None:
    """A store that begins `before` bytes in front of the changed one."""
    good = sound()
    gdt = next(each for each in good.handover.world.pieces if each.role is PieceRole.GDT)
    at = gdt.phys + 16
    byte = bytes([bytes(gdt.data)[16] ^ 1])
    row = np.array([[7, Step.STATE, at - before, size]], np.int64)
    run = replace(
        good.run,
        memory=Overlaid(good.run.memory, at, byte),
        stores=np.concatenate([good.run.stores, row]),
    )
    [change] = changes(good.handover, run)
    assert (change.first, change.count) == (at, 1)
    assert change.instruction == (7 if blamed else -1)


def test_the_last_of_two_stores_is_blamed() -> None:
    good = sound()
    gdt = next(each for each in good.handover.world.pieces if each.role is PieceRole.GDT)
    at = gdt.phys + 16
    rows = np.array([[7, Step.STATE, at, 1], [9, Step.STATE, at, 1]], np.int64)
    byte = bytes([bytes(gdt.data)[16] ^ 1])
    run = replace(
        good.run,
        memory=Overlaid(good.run.memory, at, byte),
        stores=np.concatenate([good.run.stores, rows]),
    )
    [change] = changes(good.handover, run)
    assert change.instruction == 9


@pytest.mark.parametrize("level", [5, 4])
def test_bit_8_is_found_in_both_of_the_levels_that_amd_reserves_it_in(level: int) -> None:
    good = entered_with_5_levels()
    tables = table_b(good.handover)
    frame = int(tables.root)
    if level == 4:
        frame = int.from_bytes(tables.pages[tables.root][:8], "little") & ADDRESS
    page = bytearray(tables.pages[frame])
    page[1] |= 1
    broken = with_tables(good.handover, frame, bytes(page))
    found = [each for each in check(broken, good.run) if each.rule == "reserved-bits"]
    assert [each.evidence["entry"].endswith(f" at {frame:#x}") for each in found] == [True]


def test_bit_8_one_level_further_down_is_a_page_s_own() -> None:
    """A PDPTE that maps a page has its G bit there; one that leads to a table has none, and it is ignored."""
    good = entered_with_5_levels()
    tables = table_b(good.handover)
    frame = int(tables.root)
    for _ in range(2):
        frame = int.from_bytes(tables.pages[frame][:8], "little") & ADDRESS
    page = bytearray(tables.pages[frame])
    slot = next(at for at in range(0, 4096, 8) if page[at] & 1)
    page[slot + 1] |= 1
    broken = with_tables(good.handover, frame, bytes(page))
    assert not [each for each in check(broken, good.run) if each.rule == "reserved-bits"]


def test_the_zero_page_s_fields_follow_one_another_without_a_gap() -> None:
    at = 0
    for place in PLACES:
        assert place.at == at, place.name
        at += place.size
    assert at == 0x1000
