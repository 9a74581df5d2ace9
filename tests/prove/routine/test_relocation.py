"""Theorem 5 holds of the shipped routines, and each hypothesis is needed."""

from __future__ import annotations

import pytest
import z3

from tightrope import routines
from tightrope.model import Paging
from tightrope.model.proof import Answer
from tightrope.prove.goal import Goal, Limits, Undecided
from tightrope.prove.routine.contract import Contract
from tightrope.prove.routine.cutpoints import Walker
from tightrope.prove.routine.decide import feasible
from tightrope.prove.routine.goals import BITS, goals

GOALS = list(goals())


@pytest.mark.parametrize("goal", GOALS, ids=lambda goal: f"{goal.name} {goal.mode}")
def test_theorem_5_is_as_stated(goal: Goal) -> None:
    result = goal.decide(Limits())
    assert result.answer is goal.expected, result


def test_every_mode_has_its_routine_proved() -> None:
    assert {goal.mode for goal in GOALS if goal.name == "relocation"} == set(Paging)


@pytest.mark.parametrize("name", BITS)
def test_the_walk_executes_every_instruction_and_finds_the_loop(name: str) -> None:
    code = routines.read(name)
    walker = Walker(Contract(BITS[name], None), code.data)
    segments = list(walker.segments())
    walked = walker.walked
    assert walked is not None
    assert walked.head == code.symbols["classify"]
    assert code.symbols["done"] in walked.executed
    assert len(walked.ways) == 6  # destination, indirection, done, none, in place, copied
    assert all(feasible(segment) for segment in segments)


def test_the_obligations_together_are_one_formula_that_cannot_be_broken() -> None:
    for goal in GOALS:
        if goal.mode in (Paging.X86_64, Paging.I386) and goal.smt:
            for script in goal.smt():
                solver = z3.SolverFor("QF_AUFBV")
                solver.from_string(script.text)
                assert str(solver.check()) == script.expected


def test_no_time_is_no_answer() -> None:
    goal = next(goal for goal in GOALS if goal.name == "hypotheses")
    with pytest.raises(Undecided):
        goal.decide(Limits(seconds=0.0))
    relocation = GOALS[0].decide(Limits(seconds=0.0))
    assert relocation.answer is Answer.UNDECIDED
    assert relocation.detail
