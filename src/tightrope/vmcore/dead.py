"""A dead kernel's memory by linear address, through its own page tables.

    linear address --x86.walk, the root that find_root names--> physical address -> a page of the dump

Rules: standard library alone.  A page that cannot be reached is a LookupError, which says where the
way ended: tables may be broken, and memory may be left out of a dump.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tightrope.memory import PAGE_SIZE
from tightrope.model.modes import MODES
from tightrope.model.notes import EM_X86_64
from tightrope.model.root import Root
from tightrope.printk import Memory
from tightrope.vmcore.root import Headed
from tightrope.x86.ladder import CR4_PSE, EFER_NXE
from tightrope.x86.walk import Access, Mmu, Refused, walk

_CR0 = 0x8005_0033
"""PG, WP, PE and what else Linux has on."""


class Paged(Headed, Protocol):
    """A core whose memory can be asked, a frame at a time."""

    def page(self, frame: int) -> bytes | None:
        """The 4096 bytes of a frame, None where the core does not hold all of it."""
        ...


def memory_of(core: Paged, root: Root) -> Memory:
    """What the dead kernel's pointers lead to."""
    return Memory(
        info=core.notes.vmcoreinfo,
        read=_reader(core, root),
        word=8 if core.machine == EM_X86_64 else 4,
    )


def _reader(core: Paged, root: Root) -> Callable[[int, int], bytes]:
    row = MODES[root.paging]
    mmu = Mmu(
        cr0=_CR0,
        cr3=root.phys,
        cr4=row.cr4_on | CR4_PSE,
        efer=row.efer_on | EFER_NXE,
        physical_bits=52,
    )
    frames: dict[int, bytes | str] = {}
    tables: dict[int, bytes | None] = {}

    def entry(at: int, size: int) -> int | None:
        frame = at & -PAGE_SIZE
        if frame not in tables:
            tables[frame] = core.page(frame)
        page = tables[frame]
        if page is None:
            return None
        value = int.from_bytes(page[at - frame : at - frame + size], "little")
        return value & ~root.encryption_mask

    def page(virt: int) -> bytes:
        found = frames.get(virt)
        if found is None:
            found = frames[virt] = reached(virt)
        if isinstance(found, str):
            raise LookupError(found)
        return found

    def reached(virt: int) -> bytes | str:
        way = walk(entry, mmu, virt, Access.READ)
        if isinstance(way, Refused):
            return f"{virt:#x} is not mapped ({way.reason})"
        there = core.page(way.phys & -PAGE_SIZE)
        return there if there is not None else f"{way.phys:#x} is not in the dump"

    def read(virt: int, size: int) -> bytes:
        first = virt & -PAGE_SIZE
        pages = (page(each) for each in range(first, virt + size, PAGE_SIZE))
        return b"".join(pages)[virt - first :][:size]

    return read
