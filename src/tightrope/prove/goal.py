"""The vocabulary of all theorems: a goal, how long it may take, what it looks like to a solver.

    goals() -> Goal --decide(Limits)--> proof.Result
                    --smt()-----------> Script ...    the same obligation for any other solver
    mutants() -> Mutant --kill(Limits)--> proof.Killed

Rules: a goal is a statement that is either so or not; a theorem may be that something fails, and
then its goal expects FAILS and its result carries the counterexample.  `decide` never asks for more
than `Limits.seconds`, and says UNDECIDED rather than guess.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tightrope.model import Paging
from tightrope.model.proof import Answer, Fate, Judged, Killed, Result

__all__ = [
    "Answer",
    "Fate",
    "Goal",
    "Judged",
    "Killed",
    "Limits",
    "Mutant",
    "Result",
    "Script",
    "Undecided",
]

Progress = Callable[[str, int, int], None]
"""(what is being done, how much of it, of how much; 0 when that cannot be told)."""


class Undecided(Exception):
    """No answer in the time that was given; its text is the reason.
    `run.judge` makes a result of it.
    """


def no_progress(_what: str, _done: int, _total: int) -> None:
    """Nobody is watching."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How long one goal may take, in seconds, and who is told how it goes."""

    seconds: float = 60.0
    progress: Progress = no_progress

    @property
    def milliseconds(self) -> int:
        """For a solver's `timeout`."""
        return max(1, int(self.seconds * 1000))


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """An obligation as SMT-LIB 2 text, `(check-sat)` included; a solver must answer `expected`.

    `name` is a file name without its ending: lower case, digits and hyphens.
    """

    name: str
    text: str
    expected: str = "unsat"


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """One statement.  `theorem` is the word on the command line, `name` is unique inside it for
    each mode and design.  A result's `seconds` are filled in by `run.judge`.

    `decide` raises Undecided where time ran out and MissingPart where its solver is not installed;
    `smt` is None where the statement is decided by enumeration and has no formula.
    """

    theorem: str
    name: str
    statement: str
    decide: Callable[[Limits], Result]
    mode: Paging | None = None
    design: str | None = None
    expected: Answer = Answer.HOLDS
    smt: Callable[[], Iterable[Script]] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """One deliberate mistake in what is proved, and the theorem that has to notice.

    `subject` is what was changed ("builder", "relocate_x86_64"), `name` is unique inside it.
    """

    subject: str
    name: str
    says: str
    kill: Callable[[Limits], Killed]
