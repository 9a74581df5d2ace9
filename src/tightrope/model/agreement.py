"""What machines agreed on: what `deeds.agree` makes and a report shows.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """`what` is one of the four; `was` is the first machine's, `got` the other's."""

    number: int
    says: str
    machine: str
    what: str
    was: str
    got: str
    explained: str | None = None
    """Why it is no disagreement, where that is known."""
    at: int | None = None
    """Where memory differs: the first byte's physical address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """What came of it."""

    seed: int
    cases: int
    machines: tuple[str, ...]
    compared: Mapping[str, int]
    """Machine -> cases that it walked beside the first one."""
    holds: int
    """Cases in which the first machine found nothing."""
    could_not: Mapping[tuple[str, str], int]
    """(machine, reason) -> cases."""
    differences: tuple[Difference, ...]

    @property
    def unexplained(self) -> tuple[Difference, ...]:
        """What nobody can explain: a bug, ours or a machine's."""
        return tuple(each for each in self.differences if each.explained is None)
