"""Many hosts against new kernels: what `deeds.sweep` makes and a report shows.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightrope.model.verdict import Criterion, Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What a rehearsal came to, or why there was none."""

    outcome: Outcome | None
    """None where it cannot be told, for the reason in `detail`."""
    rule: str | None = None
    """The rule that fell first."""
    step: int | None = None
    detail: str = ""
    """The finding's message, or what stands in the way of a rehearsal."""
    advice: tuple[str, ...] = ()
    """Rules that are told and that nothing falls by."""
    seconds: float = 0.0
    """What the rehearsal took."""
    asked: tuple[str, ...] = ()
    """The ids of the rules that the rehearsal was asked, until a sweep has counted them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Swept:
    """One host, one new kernel, kexec or crash."""

    host: str
    """The host file, as it was named."""
    digest: str
    """SHA-256 of its bytes, in hex; empty where it could not be read."""
    new: str
    """The new kernel's image, as it was named."""
    crash: bool
    group: str | None
    """Its class: hosts with equal decisive facts.  None where there is none to be rehearsed."""
    walked: bool
    """This very host was rehearsed, and not another one of its class."""
    assumed: tuple[str, ...]
    """The fields of the host file that nothing says."""
    answer: Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """All of them, in the order in which they were done."""

    rows: Sequence[Swept]
    seconds: float
    """Wall time of this run."""
    before: int = 0
    """How many rows were there already, from a run that ended early."""
    judged: int = 0
    """Rehearsals of this run that rules were asked of."""
    asked: Mapping[Criterion, int] = field(default_factory=dict)
    """Each rule, and of how many of those it was asked."""
