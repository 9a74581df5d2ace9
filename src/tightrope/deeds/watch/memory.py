"""A guest's memory while it stands, by physical and by linear address.

Rules: pages are kept until `forget`, which whoever lets the guest run has to call.
"""

from __future__ import annotations

from tightrope.errors import MachineError
from tightrope.machine.attached import Attached
from tightrope.memory import PAGE_SIZE, align_down, align_up
from tightrope.x86.cpu import CR4_PAE, EFER_LMA
from tightrope.x86.walk import Access, Mmu, Refused, walk

PTI_BIT = 1 << 12
"""The kernel's pgd is the even page of two, the process's the odd one (PTI_PGTABLE_SWITCH_BIT,
arch/x86/entry/calling.h)."""


PDPTES, ACCESSED = 4, 0x20


class GuestMemory:
    """What `guest` has in memory."""

    def __init__(self, guest: Attached) -> None:
        self._guest = guest
        self._pages: dict[int, memoryview] = {}
        self._roots: set[int] = set()

    def in_use(self, mmu: Mmu) -> None:
        """Whose PDPTEs a CPU has used: under PAE QEMU's TCG sets their accessed bit, which is
        reserved there (SDM 4.4.1), and no CPU would.  They are read without it."""
        if mmu.cr4 & CR4_PAE and not mmu.efer & EFER_LMA:
            self._roots.add(mmu.cr3 & 0xFFFF_FFE0)
            self._pages.pop(align_down(mmu.cr3, PAGE_SIZE), None)

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
            self._pages[frame] = memoryview(self._as_loaded(frame, data))
        return self._pages[frame][at - frame : at - frame + size]

    def _as_loaded(self, frame: int, data: bytes) -> bytes:
        for root in self._roots:
            if root - frame in range(PAGE_SIZE):
                page = bytearray(data)
                for at in range(root - frame, root - frame + 8 * PDPTES, 8):
                    page[at] &= ~ACCESSED & 0xFF
                data = bytes(page)
        return data

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

    def lies(self, mmu: Mmu, virt: int) -> int:
        """The same.  Raises MachineError where it is not mapped."""
        phys = self.where(mmu, virt)
        if phys is None:
            raise MachineError(f"the guest does not map {virt:#x}")
        return phys

    def virt(self, mmu: Mmu, at: int, size: int) -> bytes:
        """Linear memory.  Raises MachineError where it is not mapped."""
        parts = []
        while size:
            part = min(size, PAGE_SIZE - at % PAGE_SIZE)
            parts.append(self.phys(self.lies(mmu, at), part))
            at, size = at + part, size - part
        return b"".join(parts)

    def word(self, mmu: Mmu, at: int, size: int = 8) -> int:
        """A number of linear memory, of as many bytes."""
        return int.from_bytes(self.virt(mmu, at, size), "little")
