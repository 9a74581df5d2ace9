"""Theorem 4 is as stated, and the list interpreter of the checks
agrees with its functions d and s.
"""

from __future__ import annotations

import numpy as np
import pytest
import z3
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tightrope.check.page_list import follow
from tightrope.model.proof import Answer
from tightrope.plan.frames import FramePool
from tightrope.plan.page_list import chained, list_length, words
from tightrope.prove.goal import Goal, Limits, Undecided
from tightrope.prove.theorems import copying
from tightrope.prove.theorems.pages import Pages

GOALS = {goal.name: goal for goal in copying.goals()}


@pytest.mark.parametrize("goal", GOALS.values(), ids=lambda goal: goal.name)
def test_theorem_4_is_as_stated(goal: Goal) -> None:
    result = goal.decide(Limits())
    assert result.answer is goal.expected, result
    assert (result.counterexample is None) == (result.answer is Answer.HOLDS)


@pytest.mark.parametrize("name", ["induction", "rule", "without-rule", "movs"])
def test_each_obligation_can_be_given_to_a_solver(name: str) -> None:
    smt = GOALS[name].smt
    assert smt is not None
    for script in smt():
        solver = z3.Solver()
        solver.from_string(script.text)
        assert str(solver.check()) == script.expected, script.name


def test_without_order_one_more_copy_is_not_proved() -> None:
    questions = copying._induction()
    pages = Pages()
    one_more = questions[2]
    without = [each for each in one_more.given if not each.eq(pages.order())]
    assert len(without) == len(one_more.given) - 1
    solver = z3.Solver()
    solver.set("timeout", 5000)
    solver.add(*without, z3.Not(one_more.then))
    assert solver.check() != z3.unsat


def test_a_pool_that_gives_a_frame_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(FramePool):
        def take(self, count: int, what: str) -> NDArray[np.int64]:
            return super().take(count, what) * 0

    monkeypatch.setattr(copying, "FramePool", Twice)
    result = GOALS["pool"].decide(Limits())
    assert result.answer is Answer.FAILS
    assert result.counterexample


def test_no_time_is_no_answer() -> None:
    with pytest.raises(Undecided):
        GOALS["shortcut"].decide(Limits(seconds=0.01))


def run_copies(memory: dict[int, int], d: list[int], s: list[int]) -> dict[int, int]:
    """Copies one after the other; a page is one number here."""
    now = dict(memory)
    for to, of in zip(d, s, strict=True):
        now[to] = now[of]
    return now


@given(st.data())
def test_the_theorem_on_small_lists(data: st.DataObject) -> None:
    frames = range(12)
    d = data.draw(st.lists(st.sampled_from(frames), unique=True, max_size=6))
    nobody = [frame for frame in frames if frame not in d]
    s = [data.draw(st.sampled_from([to, *nobody])) for to in d]
    memory = {frame: 100 + frame for frame in frames}
    after = run_copies(memory, d, s)
    assert all(after[to] == memory[of] for to, of in zip(d, s, strict=True))
    assert all(after[frame] == memory[frame] for frame in nobody)


@given(st.lists(st.lists(st.integers(1, 1 << 20), min_size=1, max_size=700), max_size=3))
def test_the_list_that_the_planner_writes_reads_back_as_d_and_s(runs: list[list[int]]) -> None:
    """The bridge between the list interpreter and the theorem's functions."""
    firsts = [0x20_0000 + 1000 * number for number in range(len(runs))]
    flat = words(
        (first, np.array(sources, np.int64)) for first, sources in zip(firsts, runs, strict=True)
    )
    length = list_length(len(runs), sum(map(len, runs)))
    head, pages = chained(flat, np.arange(0x30_0000, 0x30_0000 + length, dtype=np.int64))
    copies = follow(head, {frame: row.tobytes() for frame, row in pages.items()})
    d = [
        first + n for first, sources in zip(firsts, runs, strict=True) for n in range(len(sources))
    ]
    assert copies.problem is None
    assert copies.destinations.tolist() == d
    assert copies.sources.tolist() == [source for sources in runs for source in sources]
