"""A kexec that was watched in a running guest.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightrope.memory import Virt
    from tightrope.model.verdict import Verdict
    from tightrope.model.walk import Step


@dataclass(frozen=True, kw_only=True, slots=True)
class Passed:
    """A place that the guest came to."""

    name: str
    step: Step | None
    """Of the walk; None behind the entry."""
    rip: int
    cr3: int
    seconds: float
    """Since the call, while the guest ran."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """What was said of it before it was let go, and what was seen then."""

    verdict: Verdict
    version: str | None
    """What the old kernel's banner says."""
    text: Virt
    """Where KASLR has put it."""
    passed: tuple[Passed, ...]
    ended: str | None
    """Why it did not come to the last place, None where it did, or was not let go."""
    standing: bool
    """It was left standing at the call, for its owner to look at."""
