"""The old kernel's world laid out as bytes, and the CPU at the call.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from tightrope.memory import Extent, Phys, Virt

if TYPE_CHECKING:
    from tightrope.model.handover import Tables
    from tightrope.model.host import Host, Registers
    from tightrope.model.image import Buffer


class PieceRole(StrEnum):
    """What bytes are that lie in memory before the walk; the value is what a report calls them."""

    CONTROL_PAGE = "the control page"
    TABLE_A = "page_table_a"
    TABLE_B = "page_table_b"
    PAGE_LIST = "the page list"
    TABLE_A_IN_IMAGE = "page_table_a, in the old kernel's image"
    LEVELS_IN_IMAGE = "the old kernel's pgtable_level"
    GDT = "the old kernel's gdt"
    IDT = "the old kernel's idt"
    STACK = "the old kernel's stack"
    CODE_AT_V = "the old kernel's relocation code at V"
    TABLES = "the old kernel's page tables"
    NOTE = "the old kernel's crash note"
    BIOS = "the BIOS data area"
    DOM0_TABLES = "dom0's page tables"
    DOM0_CODE = "dom0's own relocation code"
    PAGE_ARRAY = "the hypervisor's copy of page_list"
    ARRAY_ON_STACK = "page_list, on the old kernel's stack"
    CALL = "the call's words on the old kernel's stack"
    WAY_OUT = "the hypervisor's code that leaves long mode"
    WAY_OUT_TABLES = "the way out's page tables"
    WAY_OUT_GDTR = "the way out's gdtr"
    WAY_OUT_IDTR = "the way out's idtr"
    WAY_OUT_FAR = "the way out's far address"
    WAY_OUT_STACK = "the stack that dom0's code is called with"
    PLANTED = "an identity map in the current pgd"
    OTHER = "something else"
    """What only its own name tells."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Bytes that lie at a physical address, and what they are."""

    phys: Phys
    data: Buffer
    role: PieceRole
    which: str = ""
    """Which one, where there are several of the role and each has a name."""

    @property
    def what(self) -> str:
        """A noun phrase for reports."""
        if self.role is PieceRole.OTHER and self.which:
            return self.which
        return f"{self.role.value}: {self.which}" if self.which else self.role.value

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
    laid: tuple[Piece, ...]
    """Its bytes, but for page tables."""
    pgd: Phys
    """The current pgd: root of the old kernel's page tables."""
    tables: Mapping[int, memoryview]
    """Its page tables: frame address -> 4096 bytes."""
    code_phys: Phys
    """The frame that backs V before the switch: the old kernel's own page of relocation code, or
    the control page where V is in the direct map."""
    registers: Registers
    arguments: tuple[Extent, ...] = ()
    """Memory that the call hands over besides registers: words on the stack, v1's page_list."""
    stack: Extent | None = None
    """The old kernel's stack, physical; None where a hypervisor calls."""
    way_out: WayOut | None = None
    """What comes before V where a 64-bit hypervisor calls 32-bit code."""
    dom0_tables: frozenset[int] = frozenset()
    """Which of the tables are dom0's and not the hypervisor's, by their frame addresses."""

    _pieces: tuple[Piece, ...] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All of its bytes, each once, page tables last."""
        if self._pieces is None:
            object.__setattr__(self, "_pieces", self._all_pieces())
        return self._pieces or ()

    def _all_pieces(self) -> tuple[Piece, ...]:
        out = list(self.laid)
        for frame, page in self.tables.items():
            dom0 = frame in self.dom0_tables
            role = PieceRole.DOM0_TABLES if dom0 else PieceRole.TABLES
            out.append(Piece(phys=Phys(frame), data=page, role=role))
        for tree in (self.way_out.wide, self.way_out.narrow) if self.way_out else ():
            for frame, page in tree.pages.items():
                out.append(Piece(phys=Phys(frame), data=page, role=PieceRole.WAY_OUT_TABLES))
        return tuple(out)
