"""Rival designs on one host: what `deeds.compare` makes and a report shows.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightrope.model.verdict import Criterion, Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One design: `outcome` None where it cannot exist, for the reason in `detail`."""

    design: str
    outcome: Outcome | None
    detail: str
    """The first finding's rule and step where it falls."""
    table_pages: int
    old_bytes_changed: int
    """Bytes of the old kernel's own memory (tables, text, gdt, idt, stack) that are not what they
    were."""
    pages_copied: int
    """Pages of destinations that a copy wrote."""
    copies_per_page: float | None
    """What was copied in step 6 over what had to be: 1 here, 3 in a Linux that swaps; None without.
    """
    reached: bool
    """The walk came to the new kernel's first instruction, whatever was found on the way."""
    instructions: int
    flushes: int
    """Writes of CR3, and of CR4 that clear PGE."""
    asked: tuple[Criterion, ...] = ()
    """The rules that its rehearsal was asked."""
