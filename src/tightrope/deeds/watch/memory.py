"""A guest's memory while it stands, by physical and by linear address.

Rules: pages are kept until `forget`, which whoever lets the guest run has to call.
"""

from __future__ import annotations

from tightrope.errors import MachineError
from tightrope.machine.attached import Attached
from tightrope.memory import PAGE_SIZE, align_down, align_up
from tightrope.x86.walk import Access, Mmu, Refused, walk

PTI_BIT = 1 << 12
"""The kernel's pgd is the even page of two, the process's the odd one (PTI_PGTABLE_SWITCH_BIT,
arch/x86/entry/calling.h)."""


class GuestMemory:
    """What `guest` has in memory."""

    def __init__(self, guest: Attached) -> None:
        self._guest = guest
        self._pages: dict[int, memoryview] = {}

    def forget(self) -> None:
        """The guest has run."""
        self._pages.clear()

    def view(self, at: int, size: int) -> memoryview | None:
        """Physical memory inside one page; None where there is none."""
        frame = align_down(at, PAGE_SIZE)
        if frame not in self._pages:
            data = self._guest.read(frame, PAGE_SIZE)
            if data is None:
                return None
            self._pages[frame] = memoryview(data)
        return self._pages[frame][at - frame : at - frame + size]

    def phys(self, at: int, size: int) -> bytes:
        """Physical memory.  Raises MachineError where there is none."""
        first, last = align_down(at, PAGE_SIZE), align_up(at + size, PAGE_SIZE)
        if last - first > PAGE_SIZE:
            data = self._guest.read(first, last - first)
        else:
            page = self.view(first, PAGE_SIZE)
            data = None if page is None else bytes(page)
        if data is None:
            raise MachineError(f"the guest has no memory at {at:#x}, {size:#x} bytes")
        return data[at - first : at - first + size]

    def entry(self, at: int, size: int) -> int | None:
        """An entry of a table, for `walk`."""
        view = self.view(at, size)
        return None if view is None else int.from_bytes(view, "little")

    def where(self, mmu: Mmu, virt: int) -> int | None:
        """The physical address of a linear one, None where it is not mapped."""
        got = walk(self.entry, mmu, virt, Access.READ)
        return None if isinstance(got, Refused) else int(got.phys)

    def virt(self, mmu: Mmu, at: int, size: int) -> bytes:
        """Linear memory.  Raises MachineError where it is not mapped."""
        parts = []
        while size:
            part = min(size, PAGE_SIZE - at % PAGE_SIZE)
            phys = self.where(mmu, at)
            if phys is None:
                raise MachineError(f"the guest does not map {at:#x}")
            parts.append(self.phys(phys, part))
            at, size = at + part, size - part
        return b"".join(parts)

    def word(self, mmu: Mmu, at: int, size: int = 8) -> int:
        """A number of linear memory, of as many bytes."""
        return int.from_bytes(self.virt(mmu, at, size), "little")
