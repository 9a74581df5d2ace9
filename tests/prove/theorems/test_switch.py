"""Theorem 3: the orders, the maximal TLB, and the order in the routine's bytes."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope import routines
from tightrope.model import Code, Paging
from tightrope.prove.goal import Answer, Goal, Limits
from tightrope.prove.run import goals, judge
from tightrope.prove.theorems import switch
from tightrope.prove.theorems.order import events, shipped_order
from tightrope.prove.theorems.switch import ANY, NO_GLOBAL, Cpu, Entry, old_tables, runs

LIMITS = Limits()


def named(goal: Goal) -> str:
    return f"{goal.name}-{goal.mode}"


@pytest.mark.parametrize("goal", goals("switch"), ids=named)
def test_every_goal_comes_out_as_the_theorem_says(goal: Goal) -> None:
    judged = judge(goal, LIMITS)
    assert judged.as_stated, judged.result


def test_every_order_of_the_events_is_tried_on_every_old_kernel() -> None:
    assert len(list(old_tables(ANY))) == 4 * 9 * 9
    assert len(list(old_tables(NO_GLOBAL))) == 4 * 5 * 5
    result = switch.one_order("AGJB", LIMITS)
    assert (result.answer, result.cases) == (Answer.HOLDS, 324)


@pytest.mark.parametrize(
    ("order", "problem"),
    [
        ("JAGB", "J: the stack at P may use frame K"),
        ("ABGJ", "B: the next fetch at V is not mapped"),
        ("AJGB", "J: the stack at P may use frame K"),
        ("AGOJ", "O: the next fetch at V, with paging off"),
        ("GJAB", "J: the stack at P is not mapped"),
        ("AGJ", "C: the copy at X is not mapped"),
    ],
)
def test_an_unsafe_order_says_where_it_falls(order: str, problem: str) -> None:
    found = {runs(order, ANY)[1]} | {
        next((p for e in f"{order}C" if (p := cpu.step(e))), None)
        for old in old_tables(ANY)
        for cpu in [Cpu(old)]
    }
    assert problem in found


def falls(order: str, old: switch.Tables, remembered: frozenset[tuple[str, Entry]]) -> bool:
    """The same walk with a TLB that caches only what is `remembered`."""

    class Forgetful(Cpu):
        def _cache(self) -> None:
            super()._cache()
            self.tlb &= remembered

    cpu = Forgetful(old)
    return any(cpu.step(event) for event in f"{order}C")


@given(
    order=st.sampled_from(["".join(p) for p in permutations("AGJB")]),
    old=st.sampled_from(list(old_tables(ANY))),
    data=st.data(),
)
def test_no_smaller_tlb_is_worse_than_the_maximal_one(
    order: str, old: switch.Tables, data: st.DataObject
) -> None:
    """The lemma: safe with the maximal TLB is safe with any; unsafe needs one entry at the most."""
    entries = sorted({*old.items(), *switch.TABLE_A.items(), *switch.TABLE_B.items()})
    some = frozenset(data.draw(st.lists(st.sampled_from(entries))))
    maximal = any(cpu.step(event) for cpu in [Cpu(old)] for event in f"{order}C")
    assert maximal or not falls(order, old, some)
    small = [frozenset(each) for size in (0, 1) for each in combinations(entries, size)]
    assert maximal == any(falls(order, old, each) for each in small)


def test_an_order_that_is_said_to_be_safe_and_is_not_is_noticed() -> None:
    question = next(q for q in switch._questions() if q.events == "AGJB" and q.assumption is ANY)
    for safe in (("AGJB",), ("AGJB", "AJBG", "GAJB"), ()):
        assert switch.decide(replace(question, safe=safe), LIMITS).answer is Answer.FAILS


# ------------------------------------------------------------------------- the routine's bytes


@pytest.mark.parametrize(
    ("mode", "order"),
    [
        (Paging.X86_64, "AGJB"),
        (Paging.LA57, "AGJB"),
        (Paging.I386, "AGJO"),
        (Paging.PAE, "AGJO"),
    ],
)
def test_the_order_that_ships_is_read_from_the_bytes(mode: Paging, order: str) -> None:
    assert shipped_order(mode) == order


def without(code: Code, hexadecimal: str) -> Code:
    """The routine with one instruction, which it has once, replaced by NOPs."""
    old = bytes.fromhex(hexadecimal)
    assert code.data.count(old) == 1
    return replace(code, data=code.data.replace(old, b"\x90" * len(old)))


@pytest.mark.parametrize(
    ("instruction", "order"),
    [
        ("0f22d9", "GJA"),  # mov %rcx, %cr3: the first load is the other one, then
        ("0f22e0", "AJB"),  # mov %rax, %cr4
        ("48cb", "AGB"),  # lretq
        ("410f22d8", "AGJ"),  # mov %r8, %cr3
        ("2520100000", "AJB"),  # and $CR4_KEPT, %eax: PGE is not known to be 0
    ],
)
def test_an_instruction_less_is_another_order_and_an_unsafe_one(
    instruction: str, order: str
) -> None:
    code = routines.read(routines.RELOCATE_X86_64)
    found = "".join(events(without(code, instruction), 64))
    assert found == order
    assert runs(found, ANY)[1] is not None
