"""A Linux's memory in its own words: what /proc/iomem would print, and what its firmware told it.

    iomem_resource       struct resource: start, end, name, flags, desc, parent, sibling, child
    e820_table_firmware  struct e820_table: a count, and so many rows

Source: Linux include/linux/ioport.h, arch/x86/include/asm/e820/types.h.

Rules: what is read has a limit, whatever the guest's memory says.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tightrope.deeds.watch.kernel import SOURCE, GuestKernel
from tightrope.deeds.watch.memory import GuestMemory
from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Extent, MemoryMap, RegionKind, regions

E820_ROW = struct.Struct("<QQI")
KINDS = {
    1: RegionKind.RAM,
    3: RegionKind.ACPI,
    4: RegionKind.NVS,
}
"""enum e820_type (asm/e820/types.h); all others are reserved."""
MOST_ROWS = 1024
MOST_RESOURCES = 4096


def listed(memory: GuestMemory, kernel: GuestKernel) -> Iterator[str]:
    """/proc/iomem's lines, out of struct resource: start, end, name, flags, desc, parent, sibling,
    child."""
    layout = kernel.width.resource

    def row(at: int) -> tuple[int, ...]:
        return layout.unpack(memory.virt(kernel.mmu, at, layout.size))

    first = row(kernel.address("iomem_resource"))[7]
    todo, seen = [(first, 0)], 0
    while todo and seen < MOST_RESOURCES:
        at, depth = todo.pop()
        if not at:
            continue
        seen += 1
        start, end, name, _flags, _desc, _parent, sibling, child = row(at)
        yield f"{'  ' * depth}{start:08x}-{end:08x} : {_text(memory, kernel, name)}"
        todo += [(sibling, depth), (child, depth + 1)]


def firmware_map(memory: GuestMemory, kernel: GuestKernel, printed: MemoryMap) -> MemoryMap:
    """What the firmware told the old kernel (struct e820_table, asm/e820/types.h): loaders read
    that, and not what the old kernel made of it.

    A 32-bit one has no symbol for it: there it is what /proc/iomem would print, with the page that
    the kernel has taken for itself (trim_bios_range() in arch/x86/kernel/setup.c).
    """
    if kernel.width.bits == 32:
        first = Extent(0, PAGE_SIZE)
        rows = [(each.extent, each.kind) for each in printed if each.extent != first]
        taken = [(first, RegionKind.RAM)] if len(rows) < len(printed.regions) else []
        return MemoryMap(regions([*taken, *rows]))
    at = memory.word(kernel.mmu, kernel.address("e820_table_firmware"))
    count = int.from_bytes(memory.virt(kernel.mmu, at, 4), "little")
    if not 0 < count <= MOST_ROWS:
        raise BadInput(f"has {count} rows", source=SOURCE, field="e820_table_firmware")
    data = memory.virt(kernel.mmu, at + 4, E820_ROW.size * count)
    rows = [
        (Extent.sized(start, size), KINDS.get(kind, RegionKind.RESERVED))
        for start, size, kind in E820_ROW.iter_unpack(data)
        if size
    ]
    return MemoryMap(regions(rows))


def _text(memory: GuestMemory, kernel: GuestKernel, at: int) -> str:
    if not at:
        return "?"
    size = min(64, PAGE_SIZE - at % PAGE_SIZE)
    return memory.virt(kernel.mmu, at, size).partition(b"\0")[0].decode("latin-1")
