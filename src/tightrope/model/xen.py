"""What a hypervisor adds to a host: its dom0, and what it takes of it.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.memory import Extent, Machine, PseudoPhys, Virt

if TYPE_CHECKING:
    from tightrope.model.host import Named
    from tightrope.model.p2m import P2m


@dataclass(frozen=True, kw_only=True, slots=True)
class Dom0:
    """The guest that asks for the jump.  What it calls physical is pseudo-physical: see `p2m`."""

    bits: int
    p2m: P2m
    text: Virt
    """Where its kernel is mapped; `text_start` and `text_size` say what of it."""
    text_start: PseudoPhys
    text_size: int
    relocation: Virt
    """V of bare Linux: where its kernel has `relocate_new_kernel`, in its text, page aligned."""
    tables: Extent
    """Pseudo-physical: where its page tables lie."""
    busy: tuple[Named, ...]
    """Pseudo-physical memory that it cannot give away, besides its text and tables."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Xen:
    """What makes a host a hypervisor."""

    version: tuple[int, int]
    virt_start: Virt
    """HYPERVISOR_VIRT_START: dom0's own mappings lie below it in 32 bits, around it in 64."""
    fixmap: Virt
    """FIX_KEXEC_BASE_0: the fixmap of the first page of v1's list; each further one is a page
    lower."""
    dom0: Dom0


@dataclass(frozen=True, kw_only=True, slots=True)
class XenPage:
    """One page of v1's page_list: the machine address in its even slot, the fixmap's in its odd
    one."""

    name: str
    slot: int
    """The even slot."""
    machine: Machine
    pseudo: PseudoPhys | None
    """What dom0 calls it; None where it is not dom0's, as in the crash region."""
    fixmap: Virt | None
    """None for the root of page_table_b, which has no odd slot."""
