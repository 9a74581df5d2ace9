"""The old kernel's world laid out as bytes, and the CPU at the call.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.memory import Extent, Phys, Virt

if TYPE_CHECKING:
    from tightrope.model.handover import Tables
    from tightrope.model.host import Host, Registers
    from tightrope.model.image import Buffer


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Bytes that lie at a physical address, and what they are."""

    phys: Phys
    data: Buffer
    what: str

    @property
    def extent(self) -> Extent:
        """Where the piece lies."""
        return Extent.sized(self.phys, len(self.data))


@dataclass(frozen=True, kw_only=True, slots=True)
class WayOut:
    """How a 64-bit hypervisor leaves long mode before it calls a 32-bit dom0's code."""

    virt: Virt
    """Where its code lies in the hypervisor's text, page aligned; `code` is the frame."""
    code: Phys
    words: Phys
    """The page of what the code reads: page_list, descriptor tables, the arguments of the call."""
    wide: Tables
    """The 4-level tables that it goes on with: `virt` and `code` lead to the code."""
    narrow: Tables
    """The PAE tables under which dom0's code is called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """A complete old kernel laid out: bytes, and the CPU as it is when `machine_kexec` calls V."""

    host: Host
    pieces: tuple[Piece, ...]
    pgd: Phys
    """The current pgd: root of the old kernel's page tables."""
    tables: Mapping[int, memoryview]
    """Its page tables: frame address -> 4096 bytes, each also a piece."""
    code_phys: Phys
    """The frame that backs V before the switch: the old kernel's own page of relocation code, or the
    control page where V is in the direct map."""
    registers: Registers
    arguments: tuple[Extent, ...] = ()
    """Memory that the call hands over besides registers: words on the stack, v1's page_list."""
    way_out: WayOut | None = None
    """What comes before V where a 64-bit hypervisor calls 32-bit code."""
