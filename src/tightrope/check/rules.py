"""All rules, and asking them.

Rules: findings come sorted by the step of the walk.  Within a step what is wrong in memory comes
before the exception that it caused, so that the first finding is the one to mend.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from tightrope.check import (
    apart,
    branches,
    call,
    copying,
    crash_region,
    digest,
    entry,
    evidence,
    faults,
    ownership,
    pdptes,
    placed,
    programs,
    room,
    switching,
    tables,
    window,
)
from tightrope.check.case import Case
from tightrope.check.rule import Rule, rules_of
from tightrope.check.told import dump, efi, handed_on, information, inputs, leads, linux
from tightrope.check.told.reading import AsLoaded
from tightrope.check.xen import hypervisor, numbers, way_out
from tightrope.model import Finding, Handover, Run, Sight, Step, Stop
from tightrope.model.watched import Apart

RULES: tuple[Rule, ...] = (
    *rules_of(
        numbers,
        hypervisor,
        way_out,
        tables,
        switching,
        pdptes,
        evidence,
        copying,
        dump,
        ownership,
        window,
        branches,
        digest,
        entry,
        linux,
        efi,
        inputs,
        information,
        handed_on,
        placed,
        leads,
        room,
        crash_region,
        programs,
        call,
    ),
    *faults.RULES,
)

WATCHED: tuple[Rule, ...] = rules_of(apart)
"""What only a guest that is watched can be asked."""


def check(handover: Handover, run: Run, *, unpacked: int | None = None) -> tuple[Finding, ...]:
    """Every finding of every rule that the run can answer, the one to mend first.

    `unpacked`: bytes that the initrd unpacks to, where somebody has unpacked it.
    """
    case = Case(handover, run, unpacked=unpacked)
    found = [finding for rule in asked(run) for finding in rule.check(case)]
    return tuple(sorted(found, key=lambda finding: finding.step))


def broken(handover: Handover, run: Run) -> Iterator[str]:
    """The id of a rule for each finding that is no advice: who wants one asks no further.

    Memory has to stay as the run left it until the last is asked for.
    """
    case = Case(handover, run)
    for rule in asked(run):
        for finding in rule.check(case):
            if not finding.advice:
                yield finding.rule


def laid(handover: Handover) -> tuple[Run, tuple[Finding, ...]]:
    """What is wrong with a handover before anything walks it, and the run that did not happen.

    Where a machine cannot even begin, this says why, if the handover is to blame.
    """
    run = _unwalked(handover, Stop.LIMIT)
    case = Case(handover, run)
    rules = rules_of(placed, programs, call)
    return run, tuple(finding for rule in rules for finding in rule.check(case))


def read_back(handover: Handover) -> Iterator[str]:
    """The ids of rules that are broken by what was loaded, whatever the walk does: the new kernel
    is told of it as the segments have it.

    What they say of a walk that leaves the segments whole, without one; of advice nothing.
    """
    run = _unwalked(handover, Stop.ENTRY)
    case = Case(handover, run)
    for rule in rules_of(programs, linux, efi, inputs, information, handed_on):
        if rule.needs <= run.sees:
            yield from (each.rule for each in rule.check(case) if not each.advice)
    # The rules of `dump` that look for the new kernel's memory besides ask more than segments.
    yield from (each.rule for each in dump.core_header_told.check(case) if not each.advice)


def foretold(handover: Handover) -> Iterator[str]:
    """The ids of rules that are broken before anything walks, by what is laid and how it is called.

    Each is told after the walk as well.
    """
    run = _unwalked(handover, Stop.LIMIT)
    case = Case(handover, run)
    for rule in rules_of(tables, call, programs):
        if rule.needs <= run.sees:
            yield from (each.rule for each in rule.check(case) if not each.advice)


def _unwalked(handover: Handover, stop: Stop) -> Run:
    """What there is to look at before anything walks: memory as it was loaded."""
    return Run.unwatched(
        machine="none",
        stop=stop,
        fault=None,
        registers=handover.registers,
        memory=AsLoaded(handover),
        descriptors={},
        blind=("the walk: nothing was executed",),
        step_starts=((0, Step.CALL),),
    )


def told_apart(handover: Handover, run: Run, found: Apart) -> tuple[Finding, ...]:
    """What is wrong with a guest that is watched, by what lies in its memory twice."""
    case = Case(handover, run, apart=found)
    return tuple(each for rule in WATCHED for each in rule.check(case))


def asked(run: Run) -> tuple[Rule, ...]:
    """The rules that a run can answer: its machine observed what they need."""
    return _asked(run.sees)


@cache
def _asked(sees: frozenset[Sight]) -> tuple[Rule, ...]:
    return tuple(rule for rule in RULES if rule.needs <= sees)


def unasked(run: Run) -> dict[str, str]:
    """The ids of the other rules, and what their machine did not see."""
    return {
        rule.id: " and ".join(sight.value for sight in Sight if sight in rule.needs - run.sees)
        for rule in RULES
        if not rule.needs <= run.sees
    }
