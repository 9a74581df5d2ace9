"""Realistic mistakes are refused with a readable reason and an input,
and the input goes wrong when run.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache

import pytest

from tests.conftest import lacking
from tests.prove.routine.mistakes import MISTAKES, READ, RIGHT, STACK, Mistake
from tightrope.machine.unicorn import Emulator
from tightrope.model import Paging
from tightrope.model.proof import Answer
from tightrope.participants import from_file
from tightrope.prove.goal import Limits
from tightrope.prove.routine.contract import Contract
from tightrope.prove.routine.counterexample import Counterexample, concrete
from tightrope.prove.routine.replay import Stage
from tightrope.prove.routine.verify import in_window, verify

EMULATOR = Emulator()


@cache
def stage(mode: Paging) -> Stage:
    return Stage(mode, EMULATOR)


def assembled(mistake: Mistake) -> bytes:
    if shutil.which("as") is None:
        lacking("no GNU as here: install binutils")
    bits = 64 if mistake.mode.long_mode else 32
    text = mistake.source().encode()
    return from_file.code_of(from_file.assemble(text, mistake.name, bits), mistake.name).data


@cache
def refused(mistake: Mistake) -> tuple[str, str, Counterexample]:
    """Where, why, and with what input."""
    contract = Contract(64 if mistake.mode.long_mode else 32, mistake.mode)
    got = verify(assembled(mistake), contract, Limits())
    assert got.answer is Answer.FAILS, got
    assert got.failure is not None
    found = concrete(contract, got.failure, stage(mistake.mode).wishes())
    return found.at, found.says, found


@pytest.fixture(params=MISTAKES, ids=lambda mistake: mistake.name)
def mistake(request: pytest.FixtureRequest) -> Mistake:
    made: Mistake = request.param
    return made


def test_a_mistake_is_refused_where_it_is_and_for_what_it_is(mistake: Mistake) -> None:
    at, says, _found = refused(mistake)
    assert mistake.reason in says
    assert mistake.where in at


def test_its_input_can_be_read(mistake: Mistake) -> None:
    printed = refused(mistake)[2].printed()
    assert {"V", "P", "cr0", "cr4", "rsp"} <= set(printed)
    assert ("word of the list" in printed) == (refused(mistake)[2].word is not None)


def test_its_input_goes_wrong_in_the_emulator_where_that_can_be_seen(mistake: Mistake) -> None:
    found = refused(mistake)[2]
    played = stage(mistake.mode).replay(assembled(mistake), found)
    assert played.wrong == mistake.seen, played.says


def test_the_shipped_routine_does_not_go_wrong_on_the_same_input(mistake: Mistake) -> None:
    found = refused(mistake)[2]
    the_stage = stage(mistake.mode)
    assert not the_stage.replay(the_stage.shipped.data, found).wrong


def test_there_are_at_least_a_dozen_of_both_widths() -> None:
    assert len(MISTAKES) >= 12
    assert {mistake.mode.long_mode for mistake in MISTAKES} == {True, False}


@pytest.mark.parametrize("right", RIGHT, ids=lambda each: each.name)
def test_right_code_that_does_it_another_way_holds(right: Mistake) -> None:
    contract = Contract(64 if right.mode.long_mode else 32, right.mode)
    assert verify(assembled(right), contract, Limits()).answer is Answer.HOLDS


def test_with_the_idt_emptied_before_the_stack_goes_there_is_no_fault_window() -> None:
    got, window = in_window(assembled(RIGHT[0]), Contract(64, Paging.X86_64), Limits())
    assert (got.answer, got.obligations, window) == (Answer.HOLDS, 0, frozenset())


def test_what_faults_on_the_old_stack_is_not_said_to_fault_in_the_window() -> None:
    late = next(each for each in MISTAKES if "no stack" in each.name)
    early = replace(late, edits=((STACK, READ + STACK),))
    contract = Contract(64, Paging.X86_64)
    for mistake, inside in ((late, True), (early, False)):
        failure = verify(assembled(mistake), contract, Limits()).failure
        assert failure is not None
        assert failure.obligation.in_window == inside
        got, _ = in_window(assembled(mistake), contract, Limits())
        assert got.answer is (Answer.FAILS if inside else Answer.HOLDS)
