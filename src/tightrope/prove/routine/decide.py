"""Obligations to answers: z3 is asked, each formula once.

Rules: an obligation holds when no model of hypotheses, path and its negation exists.  One solver
per segment, because hypotheses are many and obligations small.  Formulas that were proved before
under the same hypotheses are not asked again: a mutant shares most of its obligations with the
original.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import z3

from tightrope.prove.isa.symbolic import Obligation
from tightrope.prove.routine.cutpoints import Segment

PER_QUESTION = 60.0
"""Seconds for one obligation, at most; most take milliseconds, and the slowest of the shipped code
four seconds when z3 is unlucky."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An obligation that does not hold, and a model that shows it; no model:
    not decided in time.
    """

    segment: Segment
    obligation: Obligation
    model: z3.ModelRef | None


@dataclass(slots=True)
class Known:
    """Formulas that were proved, kept alive so that their identities stay theirs."""

    proved: dict[tuple[int, ...], tuple[object, ...]] = field(default_factory=dict)

    def has(self, key: tuple[int, ...]) -> bool:
        return key in self.proved


def failures(segment: Segment, *, deadline: float, known: Known | None = None) -> Iterator[Failure]:
    """The obligations of a segment that fail or stay undecided, in the order of the walk.

    `deadline` is of time.perf_counter().
    """
    known = Known() if known is None else known
    solver = z3.SolverFor("QF_AUFBV")
    solver.add(*segment.hypotheses)
    under = tuple(h.get_id() for h in segment.hypotheses)
    for obligation in segment.obligations:
        parts = (*obligation.path, obligation.formula)
        key = (*under, -1, *(part.get_id() for part in parts))
        if known.has(key):
            continue
        left = deadline - time.perf_counter()
        if left <= 0:
            yield Failure(segment, obligation, None)
            return
        solver.push()
        solver.set("timeout", max(1, int(1000 * min(left, PER_QUESTION))))
        solver.add(*obligation.path, z3.Not(obligation.formula))
        answer = solver.check()
        if answer == z3.unsat:
            known.proved[key] = (*segment.hypotheses, *parts)
        else:
            yield Failure(segment, obligation, solver.model() if answer == z3.sat else None)
        solver.pop()


def feasible(segment: Segment) -> bool:
    """The hypotheses can hold together: without that, anything would."""
    solver = z3.SolverFor("QF_AUFBV")
    solver.add(*segment.hypotheses)
    return bool(solver.check() == z3.sat)
