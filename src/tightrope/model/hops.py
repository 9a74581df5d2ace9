"""Several jumps, each out of the kernel that the one before entered.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightrope.model.entered import Entered
    from tightrope.model.verdict import Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Hop:
    """One jump of several."""

    number: int
    """From 1."""
    old: str
    """The image that is left."""
    verdict: Verdict
    entered: Entered | None
    """What the new kernel was handed; None where it was not entered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hops:
    """As many as were made: one that does not hold is the last."""

    asked: int
    made: tuple[Hop, ...]
