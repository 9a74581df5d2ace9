"""The world of a real old kernel that stands in a machine: its own tables, registers and memory
map.

    /proc/iomem, /proc/kallsyms    as its init printed them     -> memory map, crash region, text, V
    control registers, tables      as the machine has them       -> paging, direct map, the current pgd

Rules: what the tables and the CPU say is believed before what a file says.  Nothing is made up: the
World's pieces are what lies in memory, and the one page that is to be put at V.  Free is what the
old kernel reserved for a crash kernel and nothing else, so that it loses nothing before the walk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tightrope.errors import HostError
from tightrope.host.capture import iomem as memory_files
from tightrope.host.capture import kernel
from tightrope.memory import (
    PAGE_SIZE,
    Extent,
    MemoryMap,
    Phys,
    RegionKind,
    Virt,
    align_down,
    align_up,
    covered,
    subtract,
)
from tightrope.model import (
    Basis,
    Code,
    Cpu,
    DirectMap,
    Fact,
    Host,
    KernelText,
    Named,
    Paging,
    Piece,
    PieceRole,
    Registers,
    World,
)
from tightrope.model.modes import mode_of
from tightrope.x86 import cpu as x86
from tightrope.x86.walk import Access, Mmu, Refused, Translated, walk

if TYPE_CHECKING:
    from tightrope.x86.survey import Mappings

SOURCE = "the guest"
CPU, TABLES = "the guest's CPU, standing", "the guest's tables, from CR3"
FACTS = (
    *((each, Basis.READ, CPU) for each in ("paging", "cr0", "cr4", "efer")),
    ("memory", Basis.READ, "the guest's resources (/proc/iomem)"),
    ("text.virt", Basis.READ, "the guest's symbols"),
    ("text.phys", Basis.READ, TABLES),
    ("relocation", Basis.READ, "the guest's symbols"),
    ("direct_map.virt", Basis.DERIVED, TABLES),
    ("private", Basis.READ, TABLES),
    ("busy", Basis.DERIVED, "what is loaded, or all RAM outside the crash region"),
)
"""Where each field comes from; of a guest that stands nothing is assumed."""
LARGE = 2 << 20
FOUR_GIB = 1 << 32
NX_IN_TOP_BYTE = 0x80
"""Bit 63 of an entry of 8 bytes (SDM 4.5.4)."""
LARGEST_TEXT = 1 << 30
"""KERNEL_IMAGE_SIZE with KASLR (arch/x86/include/asm/page_64_types.h)."""
BIOS_AREA = Extent(0xF0000, 0x10_0000)
"""Where a BIOS leaves the RSDP (ACPI 6.5, 5.2.5.1)."""

ReadMemory = Callable[[int, int], memoryview | None]
"""(physical address, bytes) -> the bytes, or None where there is no memory."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a guest's init printed, and what its machine is."""

    iomem: str
    """/proc/iomem, as root reads it."""
    symbols: str
    """Lines of /proc/kallsyms: _text and relocate_kernel among them."""
    physical_bits: int
    gbpages: bool
    notes: str = ""
    """Lines of START SIZE WHAT in hexadecimal: its notes for a crash kernel."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Guest:
    """A real old kernel: its description, and its page tables as they were read."""

    host: Host
    registers: Registers
    pgd: Phys
    tables: dict[int, memoryview]
    """Frame address -> 4096 bytes, of every table that the current pgd leads to."""


def read_guest(
    told: Told,
    registers: Registers,
    read: ReadMemory,
    *,
    crash: bool = False,
    loaded: bool = False,
) -> Guest:
    """The old kernel that stands with these registers.

    What it reserved for a crash kernel is its crash region with `crash`, else the only memory that
    it gives away; where it has `loaded` an image, that has its places, and nothing is asked of it.
    Raises HostError where it cannot be described.
    """
    cpu = _cpu(told, registers)
    mmu = registers.mmu(cpu)
    tables, mapped = _tables(mmu, read)
    found = kernel.symbols(told.symbols, ["_text", "relocate_kernel"])
    if not isinstance(found, dict) or len(found) != 2:
        raise HostError("tells no addresses of its text", source=SOURCE, field="/proc/kallsyms")
    resources = memory_files.iomem(told.iomem)
    if not isinstance(resources, tuple):
        raise HostError("tells no memory", source=SOURCE, field="/proc/iomem")
    memory = MemoryMap(memory_files.iomem_regions(resources))
    reserved = [each.extent for each in resources if each.name == "Crash kernel"]
    if not memory.ram or not (reserved or (loaded and not crash)):
        raise HostError(
            "has no memory to lay a handover into: give it crashkernel= on its command line",
            source=SOURCE,
            field="/proc/iomem",
        )
    relocation = _in_text(Virt(align_down(found["relocate_kernel"], PAGE_SIZE)), mmu, read)
    text = _text(found, resources, mmu, read)
    paging = mode_of(registers.cr4, registers.efer)
    pgd = Phys(registers.cr3 if paging is Paging.PAE else registers.cr3 & ~0xFFF)
    root = Extent.sized(pgd & -PAGE_SIZE, PAGE_SIZE)
    own = Extent.sized(text.phys, text.size)
    host = Host(
        source=SOURCE,
        paging=paging,
        cpu=cpu,
        cr0=registers.cr0,
        cr4=registers.cr4,
        efer=registers.efer,
        memory=memory,
        text=text,
        relocation=relocation,
        direct_map=_direct_map(mapped, memory),
        private=root,
        busy=tuple(
            Named(extent=each, what="the old kernel's memory")
            for each in subtract(memory.ram, [*reserved, own, root])
            if not loaded
        ),
        # The image goes into the highest, whatever its size.
        crash_region=max(reserved) if crash else None,
        firmware=_firmware(memory),
        facts=tuple(Fact(field=name, basis=basis, source=of) for name, basis, of in FACTS),
        rsdp=None,
        low_mappings=(),
        crash_notes=_notes(told.notes, memory) if crash else (),
        crash_memory=tuple(
            Named(extent=each, what="the low part of the crash region")
            for each in sorted(reserved)[:-1]
        )
        if crash
        else (),
    )
    return Guest(host=host, registers=registers, pgd=pgd, tables=tables)


def _cpu(told: Told, registers: Registers) -> Cpu:
    """What is told, and what the kernel has switched on."""
    return Cpu(
        physical_bits=told.physical_bits,
        nx=bool(registers.efer & x86.EFER_NXE),
        pse=bool(registers.cr4 & (x86.CR4_PSE | x86.CR4_PAE)),
        pge=bool(registers.cr4 & x86.CR4_PGE),
        gbpages=told.gbpages,
        la57=bool(registers.cr4 & x86.CR4_LA57),
    )


def _tables(mmu: Mmu, read: ReadMemory) -> tuple[dict[int, memoryview], Mappings]:
    """Every table under CR3, and all that they map.  Raises HostError where one is not there."""
    # numpy's: a machine that is captured imports this room and has none.
    from tightrope.x86.survey import survey

    tables: dict[int, memoryview] = {}

    def table(frame: int) -> memoryview | None:
        page = read(frame & -PAGE_SIZE, PAGE_SIZE)
        if page is not None:
            tables[frame & -PAGE_SIZE] = memoryview(bytes(page))
        return None if page is None else tables[frame & -PAGE_SIZE][frame % PAGE_SIZE :]

    mapped = survey(table, mmu)
    if mapped.lost or not tables:
        raise HostError("its page tables lead out of memory", source=SOURCE, field="cr3")
    return tables, mapped


def with_code(guest: Guest, code: Code, relocation: Virt, read: ReadMemory) -> World:
    """The guest's world with `code` at V.  Raises HostError where V is not mapped.

    A kernel that calls the control page through its direct map has made it executable when it
    loaded the image (machine_kexec_prepare() and set_memory_x() in Linux
    arch/x86/kernel/machine_kexec_64.c); no image was loaded here, so that is done to the guest's
    tables now, and they count as they are then.
    """
    host, registers = guest.host, guest.registers
    mmu = registers.mmu(host.cpu)
    if host.relocation is None:
        guest = replace(guest, tables=_executable(guest.tables, relocation, mmu, read))
    at = _behind(relocation, mmu, read)
    general = dict(registers.general)
    return World(
        host=host,
        laid=(Piece(phys=at, data=code.data.ljust(PAGE_SIZE, b"\0"), role=PieceRole.CODE_AT_V),),
        pgd=guest.pgd,
        tables=guest.tables,
        code_phys=at,
        registers=Registers(
            general=general,
            rip=relocation,
            rflags=registers.rflags & ~x86.RFLAGS_IF,
            cr0=registers.cr0,
            cr2=registers.cr2,
            cr3=registers.cr3,
            cr4=registers.cr4,
            efer=registers.efer,
            segments=registers.segments,
            gdt=registers.gdt,
            idt=registers.idt,
        ),
    )


def _in_text(virt: Virt, mmu: Mmu, read: ReadMemory) -> Virt | None:
    """V where the kernel has its code to be executed; None where it is data, to be copied and
    called elsewhere, as Linux has it since 6.14.
    """
    data = isinstance(_walked(virt, mmu, read, Access.FETCH), Refused)
    return None if data and not isinstance(_walked(virt, mmu, read, Access.READ), Refused) else virt


def _executable(
    tables: Mapping[int, memoryview], virt: Virt, mmu: Mmu, read: ReadMemory
) -> dict[int, memoryview]:
    """The tables with every entry on the way to an address without NX, in the guest's memory as
    well."""
    changed = dict(tables)
    for visit in _walked(virt, mmu, read, Access.READ).visits:
        top = read(visit.at + 7, 1)
        if top is None or not top[0] & NX_IN_TOP_BYTE:
            continue
        top[0] &= ~NX_IN_TOP_BYTE & 0xFF
        frame = align_down(visit.at, PAGE_SIZE)
        page = bytearray(changed[frame])
        page[visit.at - frame + 7] = top[0]
        changed[frame] = memoryview(bytes(page))
    return changed


def _walked(virt: int, mmu: Mmu, read: ReadMemory, access: Access) -> Translated | Refused:
    def entry(phys: int, size: int) -> int | None:
        view = read(phys, size)
        return None if view is None else int.from_bytes(view, "little")

    return walk(entry, mmu, virt, access)


def _behind(virt: int, mmu: Mmu, read: ReadMemory) -> Phys:
    """The frame that the guest's own tables have at an address."""
    got = _walked(virt, mmu, read, Access.FETCH)
    if isinstance(got, Refused):
        raise HostError(f"{virt:#x}: {got.reason}", source=SOURCE, field="relocate_kernel")
    return got.phys


def _text(
    found: dict[str, int], resources: tuple[memory_files.Resource, ...], mmu: Mmu, read: ReadMemory
) -> KernelText:
    """The kernel's image in whole 2 MiB: KASLR moves its virtual and its physical place.

    Raises HostError where /proc/iomem has no image at the place that the tables lead to.
    """
    virt = align_down(found["_text"], LARGE)
    phys = _behind(found["_text"], mmu, read) - (found["_text"] - virt)
    ends = [each.extent.end for each in resources if each.name in memory_files.TEXT_PIECES]
    if not ends or not phys < max(ends) < phys + LARGEST_TEXT:
        raise HostError("has no kernel where it is mapped", source=SOURCE, field="/proc/iomem")
    return KernelText(virt=Virt(virt), phys=Phys(phys), size=align_up(max(ends) - phys, LARGE))


def _direct_map(mapped: Mappings, memory: MemoryMap) -> DirectMap:
    """The offset that maps most of RAM: KASLR moves it, and no file says where.

    Raises HostError when no offset maps any.
    """
    import numpy as np

    ram = np.zeros(len(mapped.phys), np.bool_)
    for extent in memory.ram:
        ram |= (mapped.phys >= extent.start) & (mapped.phys < extent.end)
    offsets = mapped.virt[ram] - mapped.phys[ram]
    if not len(offsets):
        raise HostError("maps no RAM", source=SOURCE, field="cr3")
    values, which = np.unique(offsets, return_inverse=True)
    offset = values[np.argmax(np.bincount(which, weights=mapped.size[ram].astype(np.float64)))]
    here = ram & (mapped.virt - mapped.phys == offset)
    ends = mapped.phys[here] + mapped.size[here]
    whole = int(ends.max())
    return DirectMap(
        virt=Virt(int(offset)),
        page_size=int(mapped.size[here].max()),
        # A 64-bit kernel maps all of RAM; a 32-bit one as far as lowmem goes.
        size=whole if whole < memory.ram[-1].end else 1 << 52,
    )


def _notes(text: str, memory: MemoryMap) -> tuple[Named, ...]:
    """The notes of a kernel that says where they lie.  Raises HostError for a line that is none."""
    found = []
    for line in text.splitlines():
        try:
            start, size, what = line.split(maxsplit=2)
            extent = Extent.sized(int(start, 16), int(size, 16))
        except ValueError as err:
            raise HostError(f"{line!r} is not a note", source=SOURCE, field="vmcoreinfo") from err
        if not covered(extent, memory.ram):
            raise HostError(f"{extent} is not all RAM", source=SOURCE, field=what)
        found.append(Named(extent=extent, what=what))
    return tuple(sorted(found, key=lambda each: each.what))


def _firmware(memory: MemoryMap) -> tuple[Named, ...]:
    """Where a PC's firmware keeps what a new kernel looks for: the BIOS area, and tables above
    RAM."""
    found = [Named(extent=BIOS_AREA, what="BIOS area with the RSDP")]
    tops = {each.end for each in memory.ram if each.end < FOUR_GIB}
    for region in memory:
        if region.kind is RegionKind.RESERVED and region.extent.start in tops:
            extent = region.extent.page_aligned()
            if extent.start >= BIOS_AREA.end:
                found.append(Named(extent=extent, what="ACPI tables"))
    return tuple(found)
