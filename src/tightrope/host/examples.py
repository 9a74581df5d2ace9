"""Example hosts for every mode and split, as values; what is printed of them is written by
`profile`.

Rules: one machine, and what differs of it by mode.  A 32-bit kernel lies where Linux puts it: text
at 16 MiB inside lowmem, lowmem as long as the split leaves room for vmalloc.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tightrope.errors import HostError
from tightrope.host.document import (
    CpuTable,
    DirectMapTable,
    Document,
    MappingTable,
    MemoryTable,
    NamedTable,
    PlaceTable,
    RegistersTable,
    TextTable,
)
from tightrope.host.pc import on_pc
from tightrope.host.profile import read, written
from tightrope.host.schema import Comments
from tightrope.memory import PAGE_SIZE, Extent, RegionKind
from tightrope.model import Paging
from tightrope.model.host import FOUR_FOUR
from tightrope.model.modes import MODES

PAGE_OFFSETS = (0xC000_0000, 0xB000_0000, 0x8000_0000, 0x7800_0000, 0x4000_0000)
"""The memory splits that arch/x86/Kconfig offers a 32-bit kernel."""
SPLITS = (*PAGE_OFFSETS, FOUR_FOUR)
FIXMAP = 0xFFFB_7000
"""A page of the fixmap, which ends a page below 4 GiB (arch/x86/include/asm/fixmap.h)."""
VMALLOC = 128 << 20
"""What Linux keeps above lowmem by default (arch/x86/include/asm/pgtable_32_areas.h)."""
LOWMEM = 0x3800_0000
"""896 MiB: the most that a 3G/1G split gives, and enough for an example with any."""
SOURCE = "an example host"
FOUR_GIB = 1 << 32
MACHINE = "A machine and the kernel that runs on it, as Tightrope sees them before a kexec."
NUMBERS = "Addresses and sizes are bytes; hexadecimal, decimal and _ are TOML's own."


def _row(start: int, size: int, kind: str = "ram") -> MemoryTable:
    return MemoryTable(start=start, size=size, kind=RegionKind(kind))


DEFAULT = Document(
    paging=Paging.X86_64,
    relocation=0xFFFF_FFFF_9AC0_1000,
    rsdp=0xF_5A40,
    cpu=CpuTable(physical_bits=46, nx=True, pse=True, pge=True, gbpages=True, la57=False),
    registers=RegistersTable(cr0=0x8005_0033, cr4=MODES[Paging.X86_64].example_cr4, efer=0xD01),
    text=TextTable(virt=0xFFFF_FFFF_9A20_0000, phys=0x2E20_0000, size=0x2E0_0000),
    direct_map=DirectMapTable(virt=0xFFFF_9A58_4000_0000, page_size=0x20_0000),
    private=PlaceTable(start=0x3100_0000, size=0x100_0000),
    memory=(
        _row(0, 0x9_FC00),
        _row(0x9_FC00, 0x400, "reserved"),
        _row(0xF_0000, 0x1_0000, "reserved"),
        _row(0x10_0000, 0xBFED_9000),
        _row(0xBFFD_9000, 0x2_0000, "acpi"),
        _row(0xBFFF_9000, 0x7000, "nvs"),
        _row(0xFEFF_C000, 0x4000, "reserved"),
        _row(0xFFFC_0000, 0x4_0000, "reserved"),
        _row(FOUR_GIB, 0x4000_0000),
    ),
    busy=(
        NamedTable(start=0x100_0000, size=0x180_0000, what="slab and page cache"),
        NamedTable(start=0x6000_0000, size=0x1800_0000, what="user memory"),
    ),
    firmware=(NamedTable(start=0xF_0000, size=0x1_0000, what="BIOS area with the RSDP"),),
)
"""The default host: a 4 GiB PC whose 64-bit kernel was placed by KASLR."""

NOTES = (
    NamedTable(start=0x210_0000, size=0x200, what="CPU 0's registers"),
    NamedTable(start=0x210_1000, size=0x1000, what="vmcoreinfo"),
)
SAMPLES = replace(
    DEFAULT,
    crash_region=PlaceTable(start=0x3300_0000, size=0x1000_0000),
    crash_note=NOTES,
    mapping=(MappingTable(virt=0x2_0000, phys=0x2_0000, size=0x1000, global_=False),),
)
"""What an example shows, as a comment, of what it does not have."""


def example(
    paging: Paging = Paging.X86_64,
    page_offset: int | None = None,
    crash: Extent | None = None,
    pc: int | None = None,
) -> str:
    """A host as a commented TOML document that `read` takes.

    `page_offset` is the memory split of a 32-bit kernel (3G/1G when None), `crash` a crash region:
    with it come the notes that the old kernel leaves for a crash kernel.  With `pc` the memory is
    that of QEMU's `pc` machine with so many MiB.  Raises HostError for a split in a 64-bit mode,
    one that leaves no lowmem, or a region that is none.
    """
    document = described(paging, page_offset, crash, pc)
    what = "is the default host: a 4 GiB PC whose 64-bit kernel was placed by KASLR."
    if paging.long_mode and paging is not DEFAULT.paging:
        what = what.replace("kernel was", f"kernel runs with {MODES[paging].levels} levels and was")
    above = {}
    if not paging.long_mode:
        what = f"is a PC with a 32-bit kernel whose PAGE_OFFSET is {document.direct_map.virt:#x}."
        above["mapping"] = "The page of the text that has the relocation code, in the fixmap."
    if pc is not None:
        what = what.replace("is the default host: a 4 GiB PC", f"is QEMU's pc with {pc} MiB")
    text = shown(document, f"This file {what}", Comments(above=above))
    if crash is not None:
        read(text, SOURCE)  # a region that cannot be one
    return text


def shown(document: Document, what: str, said: Comments | None = None) -> str:
    """An example as text, with what it does not have as comments."""
    return written(document, (MACHINE, what, NUMBERS), said=said, samples=SAMPLES)


def described(
    paging: Paging = Paging.X86_64,
    page_offset: int | None = None,
    crash: Extent | None = None,
    pc: int | None = None,
) -> Document:
    """The same as a value.  Raises HostError."""
    document = DEFAULT
    if not paging.long_mode:
        document = _legacy(paging, PAGE_OFFSETS[0] if page_offset is None else page_offset)
    elif page_offset is not None:
        raise HostError("only i386 and pae have a memory split", source=SOURCE, field="split")
    elif paging is not document.paging:
        mode = MODES[paging]
        document = replace(
            document,
            paging=paging,
            cpu=replace(document.cpu, la57=document.cpu.la57 or mode.feature == "la57"),
            registers=replace(document.registers, cr4=mode.example_cr4),
            direct_map=replace(document.direct_map, virt=mode.direct_map),
        )
    if pc is not None:
        document = on_pc(document, pc)
    return document if crash is None else with_crash(document, crash)


def with_crash(document: Document, crash: Extent) -> Document:
    """With a crash region, and its notes in the first of two busy places that the region leaves.

    What the region takes at boot is nobody's page cache later.
    """
    busy = tuple(
        each for each in document.busy if not crash.overlaps(Extent.sized(each.start, each.size))
    )
    region = PlaceTable(start=crash.start, size=crash.size)
    document = replace(document, crash_region=region, busy=busy)
    for base in (0x210_0000, 0x6000_0000):
        if not crash.overlaps(Extent.sized(base, 0x2000)):
            moved = base - NOTES[0].start
            notes = tuple(replace(each, start=each.start + moved) for each in NOTES)
            return replace(document, crash_note=notes)
    return document


def _legacy(paging: Paging, page_offset: int) -> Document:
    """A 32-bit kernel: no long mode, text and direct map at PAGE_OFFSET + physical address."""
    lowmem = min(LOWMEM, FOUR_GIB - page_offset - VMALLOC)
    if page_offset % (1 << 22) or page_offset < 0 or lowmem < 256 << 20:
        raise HostError(
            f"{page_offset:#x} is not a memory split: 4 MiB aligned, with at least 256 MiB of lowmem",
            source=SOURCE,
            field="split",
        )
    pae = paging is Paging.PAE
    mapping: Iterable[MappingTable] = ()
    relocation = page_offset + 0x140_1000
    if page_offset == FOUR_FOUR:
        relocation = FIXMAP
        mapping = [MappingTable(virt=FIXMAP, phys=0x140_1000, size=PAGE_SIZE, global_=True)]
    return replace(
        DEFAULT,
        paging=paging,
        relocation=relocation,
        cpu=replace(DEFAULT.cpu, physical_bits=36 if pae else 32, nx=pae, gbpages=False),
        registers=RegistersTable(
            cr0=DEFAULT.registers.cr0, cr4=MODES[paging].example_cr4, efer=0x800 if pae else 0
        ),
        text=TextTable(virt=page_offset + 0x100_0000, phys=0x100_0000, size=0x100_0000),
        direct_map=DirectMapTable(
            virt=page_offset, page_size=0x20_0000 if pae else 0x40_0000, size=lowmem
        ),
        private=PlaceTable(start=0x300_0000, size=0x100_0000),
        busy=(replace(DEFAULT.busy[0], start=0x200_0000, size=0x80_0000), *DEFAULT.busy[1:]),
        # A CPU with 32 address bits sees nothing above 4 GiB.
        memory=tuple(each for each in DEFAULT.memory if pae or each.start < FOUR_GIB),
        mapping=tuple(mapping),
    )
