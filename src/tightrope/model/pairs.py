"""Pairs of an old and a new kernel: what `deeds.pairs` makes and a report shows.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightrope.choices import Loader, Paging
    from tightrope.model.verdict import Criterion, Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One jump: from an old kernel by its own code into a new one."""

    old: str
    """The old kernel's image."""
    old_version: str | None
    new: str
    new_version: str | None
    paging: Paging | None
    """The old kernel's; None where it is not known what its code is."""
    crash: bool
    outcome: Outcome | None
    """None where it cannot be told, for the reason in `detail`."""
    detail: str
    """The rule that fell first and its step; otherwise by which protocol the new kernel is
    entered."""
    advice: tuple[str, ...]
    """Rules that are told and that nothing falls by."""
    loader: Loader
    by: str | None
    """Whose segments, in words; None for ours."""
    purgatory: str | None
    seconds: float
    mend: str = ""
    """What mends the finding that fell first; empty where nothing fell."""
    asked: tuple[Criterion, ...] = ()
    """The rules that its rehearsal was asked; empty where there was none."""
