"""All theorems in their order, and putting one to the test.

    THEOREMS[word]() -> goals --judge(Limits)--> proof.Judged
    MUTANTS -> mutants --kill(Limits)--> proof.Killed

Rules: what a machine lacks, or what took too long, is an answer: "not decided", with the reason.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from tightrope.errors import MissingPart
from tightrope.model import Paging
from tightrope.model.proof import Answer, Judged, Killed, Result
from tightrope.prove.goal import Goal, Limits, Mutant, Undecided
from tightrope.prove.routine import goals as code
from tightrope.prove.theorems import builder_mutants, copying, designs, splits, switch, tables

THEOREMS: Mapping[str, Callable[[], Iterator[Goal]]] = {
    "tables": tables.goals,
    "designs": designs.goals,
    "split": splits.goals,
    "switch": switch.goals,
    "copy": copying.goals,
    "code": code.goals,
}
"""The word on the command line -> its goals."""
MUTANTS: tuple[Callable[[], Iterator[Mutant]], ...] = (builder_mutants.mutants, code.mutants)
"""Where mutants come from."""


def goals(
    theorem: str | None = None, *, mode: Paging | None = None, design: str | None = None
) -> tuple[Goal, ...]:
    """The goals of one theorem, or of all; those for one mode or design,
    and those for every one.
    """
    words = THEOREMS if theorem is None else (theorem,)
    every = (goal for word in words for goal in THEOREMS[word]())
    return tuple(
        goal
        for goal in every
        if (mode is None or goal.mode in (None, mode))
        and (design is None or goal.design in (None, design))
    )


def foreign(path: Path, contract: str, mode: Paging | None) -> tuple[Goal, ...]:
    """Theorem 5 about somebody else's code.  Raises BadInput and MissingPart."""
    return tuple(code.foreign(path, contract, mode))


def judge(goal: Goal, limits: Limits) -> Judged:
    """Put a goal to the test."""
    started = time.perf_counter()
    try:
        result = goal.decide(limits)
    except Undecided as err:
        result = Result(
            answer=Answer.UNDECIDED,
            how="",
            cases=None,
            detail=f"no answer within {limits.seconds:g} s: {err}",
        )
    except MissingPart as err:
        result = Result(answer=Answer.UNDECIDED, how="", cases=None, detail=str(err))
    return Judged(
        theorem=goal.theorem,
        name=goal.name,
        statement=goal.statement,
        mode=goal.mode,
        design=goal.design,
        expected=goal.expected,
        result=replace(result, seconds=time.perf_counter() - started),
    )


def mutants() -> tuple[Mutant, ...]:
    """Every deliberate mistake."""
    return tuple(mutant for source in MUTANTS for mutant in source())


def kill(mutant: Mutant, limits: Limits) -> Killed:
    """Put a mutant to the theorems, and time it."""
    started = time.perf_counter()
    return replace(mutant.kill(limits), seconds=time.perf_counter() - started)
