"""Where a dead kernel's pgd is.

Rules: frozen, keyword-only, slotted; nouns only, see the package.  Standard library alone.

May import: choices, memory, model
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.choices import Paging
from tightrope.memory import Phys, Virt


@dataclass(frozen=True, kw_only=True, slots=True)
class Anchor:
    """The tables must map `virt` to `phys`."""

    name: str
    virt: Virt
    phys: Phys


@dataclass(frozen=True, kw_only=True, slots=True)
class Root:
    """The pgd: where it is (PAE's may lie inside a page), its format, and how that was found."""

    phys: Phys
    paging: Paging
    how: str
    encryption_mask: int
    """Bits of an entry that AMD's memory encryption took from the address (NUMBER(sme_mask))."""
    anchors: tuple[Anchor, ...]
    settled: tuple[str, ...] = ()
    """What else was said of it, and is not believed."""
