"""What all rules look at: a handover and its run, with what several rules would work out twice.

Rules: everything is worked out when it is first asked for, once, and nothing is ever changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tightrope.check.alike import alike, among, any_set, wrong
from tightrope.check.changes import Change, changes
from tightrope.check.page_list import INDIRECTION, Copies, follow
from tightrope.errors import MachineError
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent, Phys, RegionKind, union
from tightrope.model import (
    Buffer,
    Given,
    Handover,
    Loaded,
    Named,
    Piece,
    Place,
    Plan,
    Protocol,
    Run,
    Segment,
    SegmentRole,
    Stop,
    Tables,
)
from tightrope.model.watched import Apart
from tightrope.x86.cpu import CR4_PAE, CR4_PGE, EFER_LMA, EFER_LME
from tightrope.x86.survey import Mappings, survey
from tightrope.x86.walk import Access, Mmu, Refused, Translated, entries_in, walk

T = TypeVar("T")

"""Bits 51:12 of an entry: where it leads (SDM 4.5.4)."""

OWN_STACK = (SegmentRole.ENTRY_STUB, SegmentRole.PURGATORY)
"""What has its stack behind its bytes."""


class Case:
    """One handover and its run."""

    def __init__(
        self,
        handover: Handover,
        run: Run,
        *,
        unpacked: int | None = None,
        apart: Apart | None = None,
    ) -> None:
        """`unpacked`: bytes that the initrd unpacks to, where somebody has unpacked it; `apart`:
        what a guest that is watched has in memory twice."""
        self.unpacked = unpacked
        self.apart = apart
        self.handover = handover
        self.run = run
        self.intent = handover.intent
        self.contract = handover.relocation_code.contract
        self.host = handover.host
        self.control_page = Extent.sized(handover.intent.control_page, PAGE_SIZE)
        self._mmus: dict[int, Mmu] = {}
        self._walks: dict[tuple[int, int, Access], Translated | Refused] = {}
        self._known: dict[Callable[[Case], object], object] = {}

    def once(self, work: Callable[[Case], T]) -> T:
        """What a rule's helper makes of this case, worked out for the first rule that asks."""
        if work not in self._known:
            self._known[work] = work(self)
        return cast(T, self._known[work])

    @property
    def linux(self) -> bool:
        """The new kernel is handed boot_params."""
        return self.intent.protocol in (Protocol.LINUX_64, Protocol.LINUX_32)

    @property
    def boots_linux(self) -> bool:
        """The new kernel is Linux, handed boot_params or entered through PVH: it reads mem=."""
        entries = self.intent.image.entries
        return self.linux or (
            self.intent.protocol is Protocol.PVH
            and any(each.protocol is Protocol.LINUX_64 for each in entries)
        )

    @cached_property
    def base(self) -> int:
        """Where the image's first byte lies, from where it is entered."""
        entries = self.intent.image.entries
        offset = next(each.offset for each in entries if each.protocol is self.intent.protocol)
        return self.intent.kernel_entry - offset

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        """What of the old kernel differs after the run."""
        return tuple(changes(self.handover, self.run))

    @cached_property
    def copies(self) -> Copies:
        """The page list as it lay in memory before the walk, followed from its head."""
        found = self._follow(self.handover.page_list)
        if not found.problem:
            return found
        # A word that leads astray is followed as far as there is something.
        return self._follow(
            {
                int(piece.phys): piece.data
                for piece in self.pieces
                if len(piece.data) == PAGE_SIZE and piece.phys % PAGE_SIZE == 0
            }
        )

    def _follow(self, pages: Mapping[int, Buffer]) -> Copies:
        return follow(self.head, pages, word=self.word, zeros=self.contract.clears)

    @property
    def head(self) -> int:
        """The first word of the page list, from where the contract has the call hand it over."""
        page = self.contract.where(Given.LIST_PAGE)
        if page is not None:
            return self._handed(page) | INDIRECTION
        word = self.contract.where(Given.LIST)
        return 0 if word is None else self._handed(word)

    def _handed(self, where: str) -> int:
        """What the call has in a register, or in a word above its stack pointer."""
        register, _, offset = where.partition("+")
        if not offset:
            return self.handover.registers.general[register]
        # The words begin above the return address, and are the last memory that the call hands
        # over.
        words = self.handover.world.arguments[-1]
        at = words.start + int(offset) - self.word
        piece = next(p for p in self.handover.world.pieces if p.extent.covers(words))
        return int.from_bytes(piece.data[at - piece.phys :][: self.word], "little")

    @cached_property
    def pieces(self) -> tuple[Piece, ...]:
        """What the handover lays into memory before the walk."""
        return self.handover.pieces

    @property
    def swap_page(self) -> tuple[Extent, ...]:
        """The page beside the control page through which each page is copied, where there is
        one."""
        page = self.handover.swap_page
        return () if page is None else (Extent.sized(page, PAGE_SIZE),)

    @property
    def loaded(self) -> Loaded | None:
        """Whose places the segments have, where they are not our own."""
        return self.intent.loaded if isinstance(self.intent, Plan) else None

    @property
    def purgatory(self) -> tuple[Extent, ...]:
        """The segment of a purgatory, where there is one."""
        return () if self.intent.purgatory is None else (self.intent.purgatory,)

    @cached_property
    def purgatory_own(self) -> tuple[Extent, ...]:
        """What of it the purgatory may write, all of it where nothing says."""
        return tuple(each for one in self.handover.chain for each in one.own) or self.purgatory

    @cached_property
    def writes(self) -> frozenset[Place]:
        """Where the programs of the chain may write, besides what the list has them copy."""
        return frozenset().union(*(each.contract.writes for each in self.handover.chain))

    @cached_property
    def reads(self) -> frozenset[Place]:
        """Where they may read: there too."""
        return self.writes.union(*(each.contract.reads for each in self.handover.chain))

    @property
    def behind_v(self) -> Phys:
        """The frame that has to be behind V once page_table_a is in use."""
        stays = self.contract.stays_at_v
        return self.handover.world.code_phys if stays else self.intent.control_page

    @cached_property
    def landing(self) -> Phys:
        """The page that step 4 jumps to, by its identity address."""
        jumps_to = self.handover.jumps_to
        return self.intent.control_page if jumps_to is None else jumps_to

    @cached_property
    def backup(self) -> tuple[Extent, ...]:
        """Where in the crash region low memory is kept."""
        return tuple(Extent.sized(each.copy, each.source.size) for each in self.intent.backup)

    @cached_property
    def spoilt(self) -> tuple[tuple[Segment, NDArray[np.int64]], ...]:
        """Segments that do not lie at the entry as they were planned, with the offsets that differ.

        The stub's page is also its stack: the words that it pushed lie at the page's end.  What low
        memory was saved to holds what low memory held.
        """
        if self.run.stop is not Stop.ENTRY:
            return ()
        out = []
        backup = self.backup
        for segment in self.intent.segments:
            if any(each.overlaps(segment.destination) for each in backup):
                continue
            try:
                got = self.run.memory.read(segment.destination)
            except MachineError:
                continue  # it is no memory: see placed-in-ram
            if segment.role in OWN_STACK or segment.destination.start == self.intent.entry:
                got = got[: len(segment.data)]
            if self._whole(segment, got):
                continue
            bad = wrong(got, segment.data)
            if segment.role is SegmentRole.PURGATORY:
                # Its variables and its stack are its own.
                for own in self.purgatory_own if self.loaded else ():
                    start = segment.destination.start
                    bad = bad[(bad < own.start - start) | (bad >= own.end - start)]
            if len(bad):
                out.append((segment, bad))
        return tuple(out)

    def _whole(self, segment: Segment, got: memoryview) -> bool:
        """Whether memory has the segment's data, and zeros behind them as far as `got` goes."""
        size, start = len(segment.data), segment.destination.start
        if len(got) == size:
            return alike(got, segment.data)
        memory = self.run.memory
        behind = memory.held(Extent(start + size, start + max(size, len(got))))
        return alike(got[:size], segment.data) and not any(
            any_set(memory.read(each)) for each in behind
        )

    def planned(self, extent: Extent) -> Buffer | None:
        """What a segment that was found to be whole has there, without the zeros behind it; else
        None."""
        for segment in self.intent.segments if self.intact(extent) else ():
            first = extent.start - segment.destination.start
            if segment.destination.covers(extent):
                return memoryview(segment.data)[first : first + extent.size]
        return None

    def intact(self, extent: Extent) -> bool:
        """No segment there is spoilt: whatever is wrong with it was planned so."""
        return not any(segment.destination.overlaps(extent) for segment, _ in self.spoilt)

    @property
    def word(self) -> int:
        """Bytes of a word of the code that walks: 8 in long mode, 4 on i386 and PAE."""
        return self.intent.word

    @cached_property
    def list_frames(self) -> tuple[int, ...]:
        """Frame numbers of the pages of the list."""
        return tuple(frame >> PAGE_SHIFT for frame in self.handover.page_list)

    def destinations_among(self, frames: Sequence[int]) -> tuple[int, ...]:
        """Which of a few frames are destinations of the list."""
        wanted = np.array(frames, np.int64)
        return tuple(wanted[among(wanted, self._destinations)].tolist())

    @cached_property
    def _destinations(self) -> NDArray[np.int64]:
        return np.sort(self.copies.destinations)

    @cached_property
    def table_frames(self) -> tuple[int, ...]:
        """Frame numbers of page_table_a and page_table_b, but for what the old kernel's image
        holds.

        What lies there is used before the copy begins, and is the new kernel's to overwrite.
        """
        tables = (self.handover.page_table_a, self.handover.page_table_b)
        image = {piece.phys for piece in self.handover.static} | set(self.handover.world.tables)
        return tuple(
            frame >> PAGE_SHIFT
            for each in tables
            if each
            for frame in each.pages
            if frame not in image
        )

    def mmu(self, tables: Tables) -> Mmu:
        """The MMU state under which a tree of tables is used: as the old kernel left it, PGE off.

        Where long mode was left before, PAE's.
        """
        mmu = self._mmus.get(tables.root)
        if mmu is None:
            registers = self.handover.registers
            left = EFER_LME | EFER_LMA if self.handover.world.way_out else 0
            then = registers.mmu(self.host.cpu, root=tables.root)
            mmu = self._mmus[tables.root] = replace(
                then,
                cr4=then.cr4 & (CR4_PAE if left else ~CR4_PGE),
                efer=registers.efer & ~left,
            )
        return mmu

    def walk(self, tables: Tables, virt: int, access: Access) -> Translated | Refused:
        """Walk a tree of tables as it was built, before anything ran."""
        # Several rules ask the same of page_table_a; a root with other pages is another tree.
        question = (id(tables), virt, access)
        known = self._walks.get(question)
        if known is None:
            read = entries_in(tables.pages)
            known = self._walks[question] = walk(read, self.mmu(tables), virt, access)
        return known

    def text(self, index: int) -> str:
        """The instruction with that number, as text."""
        trace = self.run.trace
        return self.run.texts.get(int(trace[index]), "?") if 0 <= index < len(trace) else "?"

    @property
    def ended_at(self) -> tuple[int, str | None]:
        """Where the walk stands at its end, and the instruction there, if it was seen."""
        run = self.run
        rip = int(run.registers.rip)
        if run.stop is Stop.HALT and self.text(len(run.trace) - 1) == "hlt":
            rip = int(run.trace[-1])  # the CPU's own points behind it
        return rip, run.texts.get(rip)

    @cached_property
    def mapped_a(self) -> Mappings:
        """All that page_table_a maps, as it was built."""
        tables = self.handover.page_table_a
        return survey(tables.pages.get, self.mmu(tables))

    @cached_property
    def mapped_b(self) -> Mappings:
        """All that page_table_b maps, as it was built."""
        tables = self.handover.page_table_b
        assert tables is not None, "asked only where there is a page_table_b"
        return survey(tables.pages.get, self.mmu(tables))

    @cached_property
    def reached_b(self) -> tuple[Extent, ...]:
        """The physical memory that page_table_b leads to, as sorted extents."""
        return self.mapped_b.physical()

    @cached_property
    def wanted_b(self) -> tuple[Extent, ...]:
        """What page_table_b has to reach, as sorted extents."""
        return union(each.extent for each in self.needed_b)

    @cached_property
    def needed_b(self) -> tuple[Named, ...]:
        """What page_table_b has to reach, each with its reason."""
        return self.handover.needed_b


def owner(case: Case, phys: int) -> str:
    """Whose a physical address is, as a noun phrase: the smallest thing known to lie there."""
    best: Piece | None = None
    for piece in (*case.pieces, *case.handover.world.pieces):
        if phys in piece.extent and (best is None or len(piece.data) < len(best.data)):
            best = piece
    if best is not None:
        return best.what
    for segment in case.intent.segments:
        if phys in segment.destination:
            return f"the {segment.name}'s destination"
    for named in case.intent.identity:
        if phys in named.extent:
            return named.what
    host = case.host
    own = (
        (Extent.sized(host.text.phys, host.text.size), "the old kernel's text"),
        (host.private, "the old kernel's private memory"),
        *((busy.extent, f"the old kernel's {busy.what}") for busy in host.busy),
        *((each.extent, each.what) for each in host.firmware),
        *([(host.crash_region, "the crash region")] if host.crash_region else []),
    )
    for extent, what in own:
        if phys in extent:
            return what
    kind = host.memory.kind_at(Phys(phys))
    if kind is None:
        return "a hole"
    return "free RAM" if kind is RegionKind.RAM else f"{kind.value} memory"
