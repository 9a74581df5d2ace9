"""The old kernel on QEMU's `pc` machine: an example host whose memory map is that PC's own.

    0           640 KiB - 1 KiB    RAM; the rest up to 640 KiB is the BIOS data area
    960 KiB     1 MiB              reserved: the BIOS, and the RSDP somewhere in it
    1 MiB       top - 256 KiB      RAM
    top-256 KiB top                reserved: where SeaBIOS puts the ACPI tables, and what it keeps for disks

Source: the map that SeaBIOS 1.16 of QEMU 7.2 hands over (measured: 128 KiB at the top are
reserved, with an NVMe disk 164), its src/config.h (BUILD_MAX_HIGHTABLE); a test compares with a PC
that runs.

Rules: a document in, the same on that PC out.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.errors import HostError
from tightrope.host.document import Document, MemoryTable, NamedTable, PlaceTable
from tightrope.memory import RegionKind
from tightrope.model.modes import MODES

MIB = 1 << 20
TABLES = 256 << 10
SMALLEST, LARGEST = 256, 3583
"""MiB: less leaves an old kernel no room beside a new one; more is split at 4 GiB."""


def on_pc(document: Document, size: int) -> Document:
    """An example host with the memory of a QEMU `pc` that has `size` MiB; a 64-bit kernel lies low
    enough.

    Raises HostError for a size that it cannot have.
    """
    if not SMALLEST <= size <= LARGEST:
        raise HostError(
            f"{size} MiB is not between {SMALLEST} and {LARGEST}", source="a PC", field="size"
        )
    top = size * MIB
    if document.paging.long_mode:
        document = replace(
            document,
            registers=replace(document.registers, cr4=MODES[document.paging].pc_cr4),
            text=replace(document.text, phys=0x400_0000),
            private=PlaceTable(start=0x700_0000, size=document.private.size),
        )
    rows = (
        (0, 0x9FC00, RegionKind.RAM),
        (0x9FC00, 0xA0000, RegionKind.RESERVED),
        (0xF0000, MIB, RegionKind.RESERVED),
        (MIB, top - TABLES, RegionKind.RAM),
        (top - TABLES, top, RegionKind.RESERVED),
        (0xFFFC_0000, 1 << 32, RegionKind.RESERVED),
    )
    return replace(
        document,
        rsdp=None,
        memory=tuple(
            MemoryTable(start=start, size=end - start, kind=kind) for start, end, kind in rows
        ),
        busy=(NamedTable(start=0x280_0000, size=0x80_0000, what="slab and page cache"),),
        firmware=(
            NamedTable(start=0xF0000, size=0x10000, what="BIOS area with the RSDP"),
            NamedTable(start=top - TABLES, size=TABLES, what="ACPI tables"),
        ),
    )
