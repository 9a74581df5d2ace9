"""The entry stubs' theorem notices when an instruction is gone, and when a condition is."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

import pytest

from tightrope import routines
from tightrope.memory import PAGE_SIZE
from tightrope.model.proof import Fate, Killed
from tightrope.plan.entering import KNOWN_CR0, PVH_CR0
from tightrope.prove.goal import Limits
from tightrope.prove.routine import stub_goals, stubs
from tightrope.prove.routine.contract import Contract
from tightrope.prove.routine.goals import mutants
from tightrope.prove.routine.mutations import Mutation
from tightrope.prove.routine.stubs import STUBS, Part
from tightrope.x86 import cpu as x86

OF_EACH = 4
SEED = 20060512
KINDS = ("NOP out", "wrong register", "wrong size", "swapped")


@cache
def walked(stub: str) -> tuple[Part, ...]:
    code = routines.read(stub)
    return stubs.parts(stub, Contract(STUBS[stub], None), code.data, code.symbols)


@cache
def every(stub: str) -> tuple[Mutation, ...]:
    return tuple(stub_goals.mutations(stub))


@cache
def sample(stub: str) -> tuple[Killed, ...]:
    """A few of each kind; all of them are `tightrope prove --mutants`."""
    chosen = random.Random(SEED)
    out = []
    for kind in KINDS:
        some = [mutation for mutation in every(stub) if mutation.kind == kind]
        out += chosen.sample(some, min(OF_EACH, len(some)))
    return tuple(stub_goals.kill(stub, mutation, Limits()) for mutation in out)


def changed(stub: str, text: str, kind: str = "NOP out") -> Killed:
    """The fate of the one mutation whose description has `text`."""
    (mutation,) = (m for m in every(stub) if m.kind == kind and text in m.says)
    return stub_goals.kill(stub, mutation, Limits())


@pytest.mark.parametrize("stub", STUBS)
def test_the_shipped_stub_has_no_failure(stub: str) -> None:
    count, failure = stubs.first_failure(walked(stub), 20.0)
    assert (count > 100, failure) == (True, None)


@pytest.mark.parametrize("stub", STUBS)
def test_each_condition_is_needed(stub: str) -> None:
    for part in walked(stub):
        for condition in part.conditions:
            left = tuple(h for h in part.segment.hypotheses if not h.eq(condition.formula))
            assert len(left) == len(part.conditions) - 1
            without = replace(part, segment=replace(part.segment, hypotheses=left))
            _, failure = stubs.first_failure((without,), 20.0)
            assert failure is not None, condition.name
            assert failure.model is not None, condition.name


def test_the_words_for_cr0_that_the_planner_fills_in_meet_the_condition() -> None:
    for word in (KNOWN_CR0, PVH_CR0):
        assert word & (x86.CR0_PE | x86.CR0_PG | x86.CR0_NW) == x86.CR0_PE


def test_the_stub_that_leaves_long_mode_is_walked_in_two_widths() -> None:
    first, second = walked(routines.ENTER_32_FROM_64)
    assert first.end is not None
    assert second.end is not None
    assert (first.end.bits, second.end.bits) == (64, 32)


@pytest.mark.parametrize("stub", STUBS)
def test_no_mutant_of_a_stub_survives(stub: str) -> None:
    fates = {(each.says, each.fate) for each in sample(stub)}
    assert {fate for _, fate in fates} <= {Fate.KILLED, Fate.EQUIVALENT}, fates
    assert Fate.KILLED in {fate for _, fate in fates}


@pytest.mark.parametrize("stub", STUBS)
def test_every_instruction_of_a_stub_is_mutated(stub: str) -> None:
    code = routines.read(stub)
    gone = [mutation for mutation in every(stub) if mutation.kind == "NOP out"]
    covered = {n for m in gone for n in range(m.at.offset, m.at.offset + m.at.size)}
    left = set(range(code.symbols["gdt"])) - covered
    assert not left or min(left) == max(covered) + 1  # the padding before the gdt
    assert all(len(mutation.data) == len(code.data) <= PAGE_SIZE for mutation in every(stub))


def test_the_command_has_the_stubs_mutants_as_well() -> None:
    subjects = [mutant.subject for mutant in mutants()]
    assert {stub: subjects.count(stub) for stub in STUBS} == {s: len(every(s)) for s in STUBS}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0x52: mov %eax,%cr0 is gone", "EFER.LME cannot be changed while paging is on"),
        ("wrmsr is gone", "EFER.LME or LMA is set"),
        ("and $0xFFFFFEFF,%eax is gone", "EFER.LME or LMA is set"),
        ("mov %eax,%cr4 is gone", "cr4 is not what the protocol says"),
        ("0x3d: mov $0x18,%eax is gone", "the selector that goes to ds is not known"),
    ],
)
def test_a_step_out_of_long_mode_that_is_left_out_is_named(text: str, says: str) -> None:
    killed = changed(routines.ENTER_32_FROM_64, text)
    assert killed.fate is Fate.KILLED
    assert says in killed.evidence


def test_bits_of_efer_that_go_with_lme_are_missed() -> None:
    """WRMSR with eax cleared turns off LME, and SCE and NXE with it."""
    swapped = changed(routines.ENTER_32_FROM_64, "wrmsr changes places", "swapped")
    assert swapped.fate is Fate.KILLED
    assert "another bit of EFER has changed" in swapped.evidence


def test_half_a_register_is_all_of_it_below_4_gib() -> None:
    half = changed(routines.ENTER_32_FROM_64, "lea 0,%ebp", "wrong size")
    assert half.fate is Fate.EQUIVALENT


def test_a_stub_that_keeps_cr0_as_it_was_is_seen() -> None:
    killed = changed(routines.ENTER_32, "mov %eax,%cr0 is gone")
    assert "cr0 is not what the protocol says" in killed.evidence
