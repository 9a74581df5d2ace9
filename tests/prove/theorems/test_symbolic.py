"""Unknown numbers: they compute as numbers do, every path is walked,
and nothing wraps in silence.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tightrope.model import Paging
from tightrope.prove.goal import Undecided
from tightrope.prove.theorems.modes import GEOMETRIES
from tightrope.prove.theorems.symbolic import Fork, Word, WordTables, values
from tightrope.prove.theorems.tables_by_z3 import Unknowns
from tightrope.x86.walk import canonical

MASK = (1 << 64) - 1
NUMBERS = st.integers(0, MASK)


def z3() -> Any:
    import z3

    return z3


def value_of(fork: Fork, word: Word) -> int:
    (model,) = [m for _, m in fork.paths(lambda _: z3().BoolVal(False))]
    return int(model.eval(word.term, model_completion=True).as_long())


@settings(max_examples=60)
@given(
    NUMBERS,
    NUMBERS,
    st.sampled_from([operator.and_, operator.or_, lambda a, b: (a >> 8) + (b >> 9)]),
)
def test_a_word_computes_as_a_number_does(
    one: int, two: int, do: Callable[[Any, Any], Any]
) -> None:
    a, b = z3().BitVecs("a b", 64)
    fork = Fork([a == one, b == two], 10)
    got = do(Word(fork, a), Word(fork, b))
    assert value_of(fork, got) == do(one, two) & MASK
    assert got.may & do(one, two) == do(one, two)


@settings(max_examples=40)
@given(NUMBERS, st.integers(0, MASK), st.sampled_from([operator.eq, operator.ne, operator.lt]))
def test_a_comparison_has_the_truth_of_the_numbers(
    one: int, two: int, do: Callable[[Any, Any], Any]
) -> None:
    a = z3().BitVec("a", 64)
    fork = Fork([a == one], 10)
    assert bool(do(Word(fork, a), two)) == do(one, two)


def test_every_path_is_walked_once_and_together_they_are_everything() -> None:
    fork = Fork([], 10)
    word = fork.word("x")
    seen = []

    def program(_: Fork) -> Any:
        path = "".join("1" if bool(word & bit) else "0" for bit in (1, 2, 4))
        if path == "101" and word == 5:
            path += "five"
        seen.append(path)
        return z3().BoolVal(True)

    paths = [path for path, model in fork.paths(program)]
    assert sorted(seen) == ["000", "001", "010", "011", "100", "101", "101five", "110", "111"]
    solver = z3().Solver()
    solver.add(*(z3().Not(z3().And(*path.conditions)) for path in paths))
    assert solver.check() == z3().unsat


def test_an_impossible_answer_is_not_followed() -> None:
    x = z3().BitVec("x", 64)
    fork = Fork([z3().ULT(x, 8)], 10)
    answers = [m for _, m in fork.paths(lambda on: z3().BoolVal(bool(Word(on, x) >> 3)))]
    assert len(answers) == 1
    assert answers[0] is not None


def test_a_goal_that_fails_on_one_path_comes_with_values() -> None:
    fork = Fork([], 10)
    word = fork.word("x")

    def program(_: Fork) -> Any:
        return word.term != 77 if word < 100 else z3().BoolVal(True)

    found = [values(m, {"x": word.term}) for _, m in fork.paths(program) if m is not None]
    assert found == [{"x": "0x4d"}]


@pytest.mark.parametrize(
    "wraps",
    [lambda w: w + w, lambda w: w * 8, lambda w: w << 1, lambda w: 1 + w],
    ids=["sum", "product", "shift", "plus one"],
)
def test_what_may_wrap_round_fails_its_path(wraps: Callable[[Word], Word]) -> None:
    fork = Fork([], 10)

    def program(on: Fork) -> Any:
        wraps(on.word("x"))
        return z3().BoolVal(True)

    assert [model is not None for _, model in fork.paths(program)] == [True]


def test_a_word_is_multiplied_with_powers_of_two_only() -> None:
    with pytest.raises(TypeError):
        Fork([], 10).word("x") * 12


def test_time_that_runs_out_is_said() -> None:
    fork = Fork([], 0)
    with pytest.raises(Undecided):
        bool(fork.word("x") == 1)


def test_outside_the_zeroed_frames_lies_anything() -> None:
    fork = Fork([], 10)
    frames = [fork.number(0x1000), fork.number(0x2000)]
    tables = WordTables(fork, frames[:1], 8, frames)
    assert bool(tables.read(fork.number(0x1008), 8) == 0)
    inside = tables.read(fork.number(0x2008), 8)
    assert not z3().is_bv_value(inside.term)
    tables.set_entry(frames[1], fork.number(1), fork.number(0x63))
    assert bool(tables.read(fork.number(0x2008), 8) == 0x63)


@given(data=st.data(), mode=st.sampled_from(Paging))
def test_what_is_given_of_v_and_p_is_what_the_hypotheses_say(
    data: st.DataObject, mode: Paging
) -> None:
    """A term's shape says "canonical, aligned, below the limit": here on numbers."""
    geometry = GEOMETRIES[mode]
    unknowns = Unknowns(geometry)
    solver = z3().Solver()
    solver.add(*unknowns.given)
    virt = data.draw(NUMBERS)
    solver.push()
    solver.add(unknowns.virt == virt)
    possible = solver.check() == z3().sat
    good = not virt & 0xFFF and canonical(virt, geometry.strict(0))
    assert possible == good
    solver.pop()
    phys = data.draw(st.integers(0, 1 << geometry.identity_bits + 1))
    solver.add(unknowns.phys == phys)
    assert (solver.check() == z3().sat) == (not phys & 0xFFF and phys < 1 << geometry.identity_bits)
