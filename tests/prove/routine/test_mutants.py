"""A sample of the routines' mutants: each is killed, or is shown to do the same as the original.

All of them are put to the theorem by `tightrope prove --mutants`; here are some of every kind.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import cache

import pytest

from tightrope import routines
from tightrope.model.proof import Fate, Killed
from tightrope.prove.goal import Limits
from tightrope.prove.routine.goals import BITS, kill, mutants
from tightrope.prove.routine.mutations import Mutation, mutations

KINDS = ("NOP out", "wrong register", "wrong size", "swapped")
OF_EACH = 3
SEED = 20060512


@cache
def every(name: str) -> tuple[Mutation, ...]:
    code = routines.read(name)
    return tuple(mutations(code.data, code.symbols["gdt"], BITS[name]))


@cache
def sample(name: str) -> tuple[Killed, ...]:
    chosen = random.Random(SEED)
    return tuple(
        kill(name, mutation, Limits())
        for kind in KINDS
        for mutation in chosen.sample([m for m in every(name) if m.kind == kind], OF_EACH)
    )


@pytest.mark.parametrize("name", BITS)
def test_no_mutant_survives(name: str) -> None:
    assert [each for each in sample(name) if each.fate not in (Fate.KILLED, Fate.EQUIVALENT)] == []


@pytest.mark.parametrize("name", BITS)
def test_a_killed_mutant_has_an_input_or_is_called_a_refusal(name: str) -> None:
    for each in sample(name):
        if each.fate is Fate.KILLED:
            assert "V = 0x" in each.evidence or each.by == "a refusal of the model", each


@pytest.mark.parametrize("name", BITS)
def test_the_mistakes_are_of_every_kind_and_keep_the_length(name: str) -> None:
    counts = Counter(mutation.kind for mutation in every(name))
    assert set(counts) == set(KINDS)
    assert counts["NOP out"] >= 76
    original = routines.read(name).data
    for mutation in every(name):
        assert len(mutation.data) == len(original)
        assert mutation.data != original


def test_the_command_puts_all_of_them_to_the_theorem() -> None:
    subjects = Counter(mutant.subject for mutant in mutants())
    assert {name: subjects[name] for name in BITS} == {name: len(every(name)) for name in BITS}


def changed(name: str, text: str, kind: str = "NOP out") -> Killed:
    """The fate of one mutation, by how its instruction reads."""
    (mutation,) = (m for m in every(name) if m.kind == kind and text in m.says)
    return kill(name, mutation, Limits())


def test_a_redundant_instruction_is_shown_to_be_one() -> None:
    """POPF of zero clears DF as well: CLD before it may go."""
    assert changed(routines.RELOCATE_X86_64, "cld is gone").fate is Fate.EQUIVALENT


def test_a_register_that_nothing_reads_may_differ_on_the_way() -> None:
    """CR3 is written once with paging off and again before the entry."""
    gone = changed(routines.RELOCATE_I386, "0x74: mov %eax,%cr3 is gone")
    assert gone.fate is Fate.EQUIVALENT
    assert "which nothing reads" in gone.evidence


def test_the_last_flush_is_not_redundant() -> None:
    assert changed(routines.RELOCATE_I386, "0xcb: mov %eax,%cr3 is gone").fate is Fate.KILLED
