"""What a proof leaves behind: the finished values that `prove` makes and `report` prints.

    Goal --decide--> Result          (prove.goal has the goals, with their deeds)
    Judged  = a goal's words + its result
    Killed  = a mutant's words + what became of it

Rules: everything is frozen and finished; nothing here decides, and nothing here knows a solver.

May import: model
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tightrope.model import Paging


class Answer(StrEnum):
    """What was found out about a statement.  UNDECIDED is honest: no time, or no solver."""

    HOLDS = "holds"
    FAILS = "fails"
    UNDECIDED = "not decided"


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """The outcome of one goal.

    `how` says by what: "enumeration", "z3", "enumeration + z3", "execution".  `cases` counts what
    an enumeration went through; None means for all values, by a solver.  `counterexample` maps a
    name such as "V" to a printed value, None where there is none.  `detail` is one sentence or
    empty: the reason of an answer that is not self-evident, always given with UNDECIDED.  `told`
    has more to say about a counterexample, label to text; where it is given, `detail` is the
    heading above it.
    """

    answer: Answer
    how: str
    cases: int | None
    seconds: float = 0.0
    counterexample: Mapping[str, str] | None = None
    detail: str = ""
    told: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A goal that was put to the test.  `expected` FAILS: the theorem is that the statement
    fails."""

    theorem: str
    name: str
    statement: str
    mode: Paging | None
    design: str | None
    expected: Answer
    result: Result

    @property
    def as_stated(self) -> bool:
        """The answer is the theorem's."""
        return self.result.answer is self.expected


class Fate(StrEnum):
    """What became of a mutant: only KILLED and EQUIVALENT leave the theorem with its credit."""

    KILLED = "killed"
    EQUIVALENT = "equivalent"
    SURVIVED = "survived"
    UNDECIDED = "not decided"


@dataclass(frozen=True, kw_only=True, slots=True)
class Killed:
    """A mutant and its fate.  `by` names the goal that refused it; `evidence` is a concrete input,
    or the reason why an EQUIVALENT one does the same as the original."""

    subject: str
    name: str
    says: str
    fate: Fate
    by: str
    evidence: str
    seconds: float
