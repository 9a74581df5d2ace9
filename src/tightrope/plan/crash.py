"""What a crash kernel is handed besides its image: the core header and its own memory map.

    PT_NOTE   the notes that the old kernel fills in when it dies: one per CPU, and vmcoreinfo
    PT_LOAD   the kernel text, and all RAM but the crash region and the first MiB, which the new kernel
              writes: at physical address = file offset
    PT_LOAD   low memory, where there is a backup of it: the file offset is in the backup

Rules: the layout is that of crash_prepare_elf64_headers() (Linux kernel/crash_core.c) and of the
ELF specification; the new kernel's /proc/vmcore is made of it.  ELF32 where all of RAM is below 4
GiB and the old kernel is a 32-bit one, else ELF64, as kexec-tools does it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tightrope.abi import elf
from tightrope.abi.elf import EM_386, EM_X86_64, PN_XNUM, PT_LOAD, PT_NOTE
from tightrope.errors import PlanError
from tightrope.memory import Extent, MemoryMap, Region, RegionKind, subtract
from tightrope.model import Backup, Host, Paging
from tightrope.plan.backup import within
from tightrope.plan.placement import FIRST_MIB, FOUR_GIB

WORD = "elfcorehdr="


def with_core_header(command_line: str, header: Extent) -> str:
    """The command line that tells a crash kernel where its core header lies.

    The word comes first, as kexec_file_load() has it (setup_cmdline in arch/x86/kernel/
    kexec-bzimage64.c): what stands behind a `--` is init's and not the kernel's.  Raises PlanError
    when the command line names a core header already: the kernel would believe the last one.
    """
    if any(word.startswith(WORD) for word in command_line.split()):
        raise PlanError(
            "names a core header already, and a crash plan makes its own",
            source="command line",
            field="elfcorehdr",
        )
    return f"{WORD}{header.start:#x} {command_line}" if command_line else f"{WORD}{header.start:#x}"


def core_header(host: Host, backup: Sequence[Backup] = ()) -> bytes:
    """The ELF header and program headers for `elfcorehdr=`.

    What is in no backup of the first MiB is left out, as kexec_file_load() does it since
    7c321eb2b843: the new kernel writes there, and a dump would show its bytes as the old
    kernel's.  Raises PlanError when there are more pieces of RAM than an ELF header can count.
    """
    assert host.crash_region is not None
    legacy = host.paging in (Paging.I386, Paging.PAE)
    # What the crash kernel runs in is not the old kernel's memory (elf_header_exclude_ranges).
    own = [host.crash_region, *(each.extent for each in host.crash_memory)]
    ram = subtract(host.memory.ram, [*own, FIRST_MIB])
    low = _kept(host, backup)
    text = Extent.sized(host.text.phys, host.text.size)
    ends = [each.end for each in (*ram, text, *(note.extent for note in host.crash_notes))]
    wide = not legacy or max(ends) > FOUR_GIB
    rows = [(PT_NOTE, each.extent, 0, _where(each.extent, backup)) for each in host.crash_notes]
    rows.append((PT_LOAD, text, host.text.virt, text.start))
    for extent, offset in (*low, *((each, each.start) for each in ram)):
        mapped = extent.start < host.direct_map.size
        virt = host.direct_map.virt + extent.start if mapped else 0
        rows.append((PT_LOAD, extent, virt, offset))
    if len(rows) >= PN_XNUM:
        raise PlanError(
            f"{len(rows)} pieces of memory are more than a core header can name",
            source=host.source,
            field="memory",
            limit=PN_XNUM - 1,
        )
    machine = EM_386 if legacy else EM_X86_64
    bits = 64 if wide else 32
    layout, row = elf.HEADER[bits], elf.PROGRAM_HEADER[bits]
    header = layout.pack(
        **elf.ident(bits),
        type=elf.ET_CORE,
        machine=machine,
        version=elf.VERSION,
        phoff=layout.size,
        ehsize=layout.size,
        phentsize=row.size,
        phnum=len(rows),
    )
    headers = [header]
    for kind, extent, virt, offset in rows:
        headers.append(
            row.pack(
                type=kind,
                flags=elf.PF_RWX if kind == PT_LOAD else 0,
                offset=offset,
                vaddr=virt,
                paddr=extent.start,
                filesz=extent.size,
                memsz=extent.size,
            )
        )
    return b"".join(headers)


def _kept(host: Host, backup: Sequence[Backup]) -> Iterator[tuple[Extent, int]]:
    """The RAM in each saved piece of low memory, and where it is in the backup.

    Offset and address are at the same place in their page, which /proc/vmcore needs.
    """
    for each in backup:
        for extent in within(each.source, host.memory.ram):
            yield extent, _where(extent, backup)


def _where(extent: Extent, backup: Sequence[Backup]) -> int:
    """Where the new kernel finds the bytes of an extent: in the backup where that has all of
    them."""
    for each in backup:
        if each.source.covers(extent):
            return each.copy + extent.start - each.source.start
    return extent.start


def crash_memory_map(host: Host, kept: Sequence[Extent]) -> MemoryMap:
    """The map that the crash kernel may use: low memory, the region with what the host has besides,
    and what firmware keeps.

    What is `kept` in the region, the core header and the backup, is reserved in it: as RAM it would
    be given away; without its header /proc/vmcore is missing without a word (measured in QEMU).
    """
    assert host.crash_region is not None
    also = [each.extent for each in host.crash_memory]
    usable = subtract([*within(FIRST_MIB, host.memory.ram), host.crash_region, *also], kept)
    regions = [
        *(region for region in host.memory if region.kind is not RegionKind.RAM),
        *(Region(extent, RegionKind.RAM) for extent in usable),
        *(Region(extent, RegionKind.RESERVED) for extent in kept),
    ]
    return MemoryMap(tuple(sorted(regions)))
