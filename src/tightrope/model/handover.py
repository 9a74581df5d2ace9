"""Everything that `machine_kexec` needs: programs, tables, page list.

Rules: frozen, keyword-only, slotted; nouns only, see the package.  Every byte is stored once: what
lies in memory before the walk, `pieces` and `static`, is put together from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tightrope.memory import PAGE_SIZE, Extent, Phys
from tightrope.model.host import Named
from tightrope.model.modes import MODES
from tightrope.model.participant import Code, Participant, Trees, relocation_code
from tightrope.model.plan import Plan
from tightrope.model.world import Piece, PieceRole

if TYPE_CHECKING:
    from tightrope.model.host import Host, Registers
    from tightrope.model.image import Buffer
    from tightrope.model.intent import Intent, Segment
    from tightrope.model.world import World

ADDRESS = 0xF_FFFF_FFFF_F000
"""Bits 12 to 51 of an entry that leads to a table (SDM 4.5.4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """One tree of page tables: frame address -> 4096 bytes."""

    root: Phys
    pages: Mapping[int, memoryview]


@dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """Everything `machine_kexec` needs: control page, page_table_a, page_table_b, page list."""

    intent: Intent
    world: World
    chain: tuple[Participant, ...]
    """The programs between the call and the new kernel, in their order; one is the relocation code.
    """
    page_table_a: Tables
    page_table_b: Tables | None
    """None where step 5 turns paging off."""
    page_list: Mapping[int, Buffer]
    """Frame address -> the bytes of each page of the list."""
    segments: tuple[Segment, ...]
    """What lies in the source pages (the intent's segments, unless a sabotage says otherwise)."""
    registers: Registers
    """The CPU at the call: rip = V and the routine's arguments."""
    levels: tuple[Phys, ...] = ()
    """Zero pages in the old kernel's image, from which the code at V makes tables as it runs."""
    jumps_to: Phys | None = None
    """Where step 4 lands, None for the control page."""
    swap_page: Phys | None = None
    """The page through which each page is copied, where the contract has one."""
    prepared: Tables | None = None
    """Xen's v1: page_table_a as dom0 filled it in, before the hypervisor overwrote it."""
    extra: tuple[Piece, ...] = ()
    """What else is laid into memory before the walk."""

    _pieces: tuple[Piece, ...] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def plan(self) -> Plan:
        """The plan that the intent is.  Raises LookupError where it was observed and not
        planned."""
        if isinstance(self.intent, Plan):
            return self.intent
        raise LookupError("the intent of this handover was observed: there is no plan")

    @property
    def host(self) -> Host:
        """The old kernel."""
        return self.world.host

    @property
    def needed_b(self) -> tuple[Named, ...]:
        """What the plan wants page_table_b to reach, and its own top where the mode's kernels read
        it, each with its reason."""
        tables = self.page_table_b
        if tables is None or not MODES[self.host.paging].reads_root:
            return self.intent.identity
        second = int.from_bytes(tables.pages[tables.root][:8], "little") & ADDRESS
        return (
            *self.intent.identity,
            Named(extent=Extent.sized(tables.root, PAGE_SIZE), what="page_table_b's own root"),
            Named(extent=Extent.sized(second, PAGE_SIZE), what="page_table_b's second level"),
        )

    @property
    def relocation_code(self) -> Participant:
        """The program that switches tables and copies."""
        return relocation_code(self.chain)

    @property
    def code(self) -> Code:
        """What lies in the control page."""
        return self.relocation_code.code

    def place(self, rip: int) -> str:
        """Where an instruction lies: `V + 0x5 after_table_a`, `entry stub + 0x9`; "" where nobody
        knows.

        The label is the last one at or before it in the relocation code.
        """
        intent = self.intent
        for name, start in (("V", intent.relocation), ("P", intent.control_page)):
            offset = rip - start
            if 0 <= offset < PAGE_SIZE:
                code = self.at_v if name == "V" and self.at_v else self.code
                before = [(at, label) for label, at in code.symbols.items() if at <= offset]
                return " ".join([f"{name} + {offset:#x}", *([max(before)[1]] if before else [])])
        for segment in intent.segments:
            if rip in segment.destination:
                return f"{segment.name} + {rip - segment.destination.start:#x}"
        return ""

    @property
    def at_v(self) -> Code | None:
        """The code at V where it is not the control page's: then the old kernel's page stays behind
        V."""
        return self.relocation_code.at_v

    @property
    def design(self) -> str:
        """The relocation code's name."""
        return self.relocation_code.name

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """All bytes that lie in memory before the walk, apart from the source pages' contents."""
        if self._pieces is None:
            object.__setattr__(self, "_pieces", self._all_pieces())
        return self._pieces or ()

    def _all_pieces(self) -> tuple[Piece, ...]:
        contract = self.relocation_code.contract
        data = self.code.data[: contract.same].ljust(PAGE_SIZE, b"\0")
        control = self.intent.control_page
        trees = contract.trees
        pieces = [Piece(phys=control, data=data, role=PieceRole.CONTROL_PAGE)]
        a, b = self.page_table_a, self.page_table_b
        # The current pgd is the old kernel's; what lies in its image is `static`.
        if trees not in (Trees.CURRENT, Trees.IN_IMAGE):
            pieces += self._laid(a, PieceRole.TABLE_A)
        if b is not None and b.root != a.root:
            pieces += self._laid(b, PieceRole.TABLE_B)
        pieces += [
            Piece(phys=Phys(frame), data=page, role=PieceRole.PAGE_LIST)
            for frame, page in self.page_list.items()
        ]
        return (*pieces, *self.extra)

    @property
    def static(self) -> tuple[Piece, ...]:
        """What the old kernel has in its own image for this, outside the crash region with it."""
        pieces = [
            Piece(phys=at, data=bytes(PAGE_SIZE), role=PieceRole.LEVELS_IN_IMAGE)
            for at in self.levels
        ]
        if self.relocation_code.contract.trees is Trees.IN_IMAGE:
            pieces += self._laid(self.page_table_a, PieceRole.TABLE_A_IN_IMAGE)
        return tuple(pieces)

    def _laid(self, tables: Tables, role: PieceRole) -> Iterator[Piece]:
        # A table inside the control page is a part of the page, and lies in its bytes already.
        for frame, page in tables.pages.items():
            if frame != self.intent.control_page:
                yield Piece(phys=Phys(frame), data=page, role=role)
