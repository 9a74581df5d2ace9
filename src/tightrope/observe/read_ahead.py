"""Pages that an engine looks into ahead of the instruction that gets there.

Unicorn translates a block at a time, and comes to an instruction that runs on into the next page
before the ones in front of it are executed (2.1.4).  They may never let it get there: a CPU faults
at the instruction that runs on, or not at all.

Rules: the engine is shown some page in place of one that may not be fetched; nothing of it is ever
executed, because whoever watches asks here ahead of each instruction.
"""

from __future__ import annotations

from tightrope.memory import PAGE_SIZE
from tightrope.observe.decode import Operation, decoded
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.observed import ObservedCpu
from tightrope.observe.privileged import Privileged
from tightrope.x86.walk import Access, Refused


class ReadAhead:
    """`pages` are those that were looked into and may not be fetched, and why."""

    def __init__(self, cpu: ObservedCpu, mmu: WatchedMmu, privileged: Privileged) -> None:
        self.pages: dict[int, Refused] = {}
        self._cpu = cpu
        self._mmu = mmu
        self._privileged = privileged

    def shown(self, page: int, refused: Refused) -> int | None:
        """The physical page to show; None where the very next instruction gets to `page`."""
        rip = self._cpu.read("rip")
        left = page - rip
        phys = self._mmu.cached(rip, Access.FETCH)
        if phys is None or not 0 < left < PAGE_SIZE:
            return None
        code = bytes(self._cpu.ram.view(phys, min(15, left)) or b"")
        if decoded(code, rip, self._privileged.bits).cut:
            return None
        self.pages[page] = refused
        return phys & -PAGE_SIZE

    def beyond(self, rip: int, operation: Operation) -> tuple[Refused, int] | None:
        """Why the instruction that is about to run cannot be fetched, and the page that it
        needs."""
        page = rip & -PAGE_SIZE
        if operation.cut and page not in self.pages:
            page += PAGE_SIZE
        refused = self.pages.get(page)
        return None if refused is None else (refused, page)
