"""Rules about what a crash kernel can still read of the old one: the dump that all is done for.

    core header   the old kernel's machine, text, notes and memory, and where each byte is found now
    memory map    what the new kernel may write: nothing of that

Rules: header and map are read back from memory, by `core_header` and `reading`; what the header
should say is known from the host.  Source: Linux kernel/crash_core.c, crash_prepare_elf64_headers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tightrope.check.alike import alike, wrong
from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.check.told import core_header as elf
from tightrope.check.told.memory import Garbled
from tightrope.check.told.memory_map import FIRST_MIB
from tightrope.check.told.reading import AsLoaded, told_as_loaded, told_at_entry
from tightrope.errors import MachineError
from tightrope.memory import Extent, subtract, union
from tightrope.model import Host, Step, Stop, Trees


@rule(
    "dump-survives",
    Step.PREPARE,
    says="The new kernel may write nothing that its core header leads to.",
    source="Linux commit 7c321eb2b843: low memory is left out where it is not backed up",
    mend="leave it out, or lead it to a backup that the memory map reserves",
)
def dump_survives(case: Case) -> Iterator[Found]:
    """The new kernel may write nothing that its core header leads to."""
    for at, phys, extent, mine in overwritten(case):
        yield finding(
            f"the core header reads {phys:#x} of the old kernel at {at:#x},"
            " which the new kernel may write",
            evidence={"it reads": str(extent), "the new kernel's RAM": str(mine)},
        )
        return


def overwritten(case: Case) -> Iterator[tuple[int, int, Extent, Extent]]:
    """(where, the old kernel's address, the row's extent, the RAM it is in) of what may be
    written."""
    told = told_as_loaded(case) if case.intent.crash else None
    at = elf.named(told.line) if told else None
    if told is None or at is None:
        return  # a flat binary is told nothing
    try:
        header = elf.read(AsLoaded(case.handover), at)
    except (Garbled, MachineError):
        return  # see core-header-told
    for row in header.rows:
        for mine in told.ram:
            if row.offset.overlaps(mine):
                first = max(row.offset.start, mine.start)
                yield first, row.phys + first - row.offset.start, row.offset, mine


def unsaved(case: Case) -> Iterator[tuple[int, int, NDArray[np.int64], int]]:
    """(where it was, where its copy is, the wrong bytes, of how many) of low memory that is not
    saved."""
    for saved, kept in zip(case.intent.backup, case.backup, strict=True):
        bad = wrong(case.run.memory.read(kept), case.run.memory.read(saved.source))
        if len(bad):
            yield saved.source.start + int(bad[0]), kept.start + int(bad[0]), bad, kept.size


@rule(
    "backup-complete",
    Step.COPY,
    says="At the entry of a crash kexec the backup holds what low memory held.",
    source="kexec-tools purgatory/arch/i386/crashdump_backup.c",
    mend="copy it before the new kernel writes there: its entry is the last moment",
)
def backup_complete(case: Case) -> Iterator[Found]:
    """At the entry the backup holds what low memory held."""
    if case.run.stop is not Stop.ENTRY:
        return
    for source, copy, bad, size in unsaved(case):
        yield finding(
            f"low memory is not saved: {source:#x} is not at {copy:#x}",
            evidence={"wrong bytes": str(len(bad)), "of": f"{size:#x}"},
        )
        return


@rule(
    "core-header-told",
    Step.COPY,
    says="The core header names the old kernel's machine, text, notes and memory, and nothing else.",
    source="Linux kernel/crash_core.c, crash_prepare_elf64_headers; fs/proc/vmcore.c",
    mend="write it from the old kernel's memory map and mappings, or its dump cannot be read",
)
def core_header_told(case: Case) -> Iterator[Found]:
    """The core header that the command line leads to is the old kernel's, row by row."""
    if case.run.stop is not Stop.ENTRY or not case.intent.crash:
        return
    told = told_at_entry(case)
    if told is None:
        return
    at = elf.named(told.line)
    if at is None:
        problems = ["the command line names none (elfcorehdr=)"]
    elif not case.intact(Extent.sized(at, 1)):
        return
    else:
        try:
            problems = list(_problems(case, elf.read(case.run.memory, at)))
        except (Garbled, MachineError) as err:
            problems = [str(err)]
    for problem in problems[:1]:
        yield finding(
            f"the core header is not this old kernel's: {problem}",
            evidence={"it lies at": "?" if at is None else f"{at:#x}"},
        )


@rule(
    "dump-has-notes",
    Step.PREPARE,
    says="The core header leads to the notes of the old kernel: without one there is no /proc/vmcore.",
    source="Linux fs/proc/vmcore.c, vmcore_init; seen on 7.3.4",
    mend="add [[crash_note]] to the host file: `tightrope host capture`, run as root, reads them",
)
def dump_has_notes(case: Case) -> Iterator[Found]:
    """A crash kernel whose core header has no note makes no dump, whatever memory it names."""
    told = told_as_loaded(case) if case.intent.crash else None
    at = elf.named(told.line) if told else None
    if at is None:
        return
    try:
        header = elf.read(AsLoaded(case.handover), at)
    except (Garbled, MachineError):
        return  # see core-header-told
    if not any(each.type == elf.NOTE for each in header.rows):
        yield finding(
            "the core header has no note, and a crash kernel without notes has no /proc/vmcore",
            evidence={"the host's notes": str(len(case.host.crash_notes))},
        )


LARGE_PAGE = 2 << 20
REACH_32 = 1 << 36
"""64 GiB: what a 32-bit kernel has addresses for, with PAE (Linux MAXMEM; 4 GiB without)."""


@rule(
    "dump-in-reach",
    Step.PREPARE,
    says="The notes of a 32-bit crash kernel's core header lie below 64 GiB, where it can read them.",
    source="SDM 4.4: Linux's PAE; Xen commit 3355c1a2a6: notes above the limit of 32-bit tools",
    mend="reserve the notes below 64 GiB, or take a 64-bit crash kernel",
)
def dump_in_reach(case: Case) -> Iterator[Found]:
    """A kernel that has no 64-bit entry reads its notes by addresses of 36 bits."""
    told = told_as_loaded(case) if case.intent.crash and case.linux else None
    at = elf.named(told.line) if told else None
    if at is None or any(entry.bits == 64 for entry in case.intent.image.entries):
        return
    try:
        header = elf.read(AsLoaded(case.handover), at)
    except (Garbled, MachineError):
        return  # see core-header-told
    for row in header.rows:
        if row.type == elf.NOTE and row.offset.end > REACH_32:
            yield finding(
                f"the core header has a note at {row.offset}, and a 32-bit kernel ends at 64 GiB",
                evidence={"the note": str(row.old)},
            )
            return


def _problems(case: Case, header: elf.CoreHeader) -> Iterator[str]:
    host = case.host
    wide = header.bits == 64
    head, row = (elf.EHDR_64, elf.PHDR_64) if wide else (elf.EHDR_32, elf.PHDR_32)
    if header.ident[5:] != bytes([1, elf.CURRENT]) + bytes(9):
        yield f"e_ident is {header.ident.hex()}"
    if header.type != elf.CORE or header.version != elf.CURRENT:
        yield f"e_type is {header.type}, e_version {header.version}"
    machine = elf.MACHINE_64 if host.paging.long_mode else elf.MACHINE_32
    if header.machine != machine:
        yield f"e_machine is {header.machine}, and the old kernel's is {machine}"
    if not wide and host.paging.long_mode:
        yield "it is an ELF32 header of a 64-bit kernel"
    if header.rest != (0, head.size, 0, 0, head.size, row.size, 0, 0, 0):
        yield "a field of the ELF header that has one value has another"
    for each in header.rows:
        # Of a note nobody asks for rights: Linux and kexec-tools leave them empty.
        rights = (elf.RWX,) if each.type == elf.LOAD else (0, elf.RWX)
        if each.type not in (elf.LOAD, elf.NOTE) or each.flags not in rights or each.alignment:
            yield f"the row of {each.phys:#x} has type {each.type}, flags {each.flags:#x}"
        if each.memory_size != each.offset.size:
            yield f"the row of {each.phys:#x} has p_memsz {each.memory_size:#x}"
    notes = {each.old for each in header.rows if each.type == elf.NOTE}
    for extent in notes ^ {each.extent for each in host.crash_notes}:
        yield f"{extent} is {'no note' if extent in notes else 'a note that it leaves out'}"
    if any(each.virt for each in header.rows if each.type == elf.NOTE):
        yield "a note has a virtual address"
    yield from _memory(case, header)
    if not any(unsaved(case)):
        yield from _places(case, header)


def _memory(case: Case, header: elf.CoreHeader) -> Iterator[str]:
    """Every PT_LOAD: the text, then all RAM that the new kernel does not write, each at its
    address."""
    host = case.host
    text = Extent.sized(host.text.phys, host.text.size)
    loads = [each for each in header.rows if each.type == elf.LOAD]
    # Of a 32-bit kernel the text lies in the direct map, and in its rows.
    distance = host.text.virt - text.start
    # Of a hypervisor kexec-tools has no such row, and dom0's addresses: readers go by Xen's notes.
    by_notes = case.loaded is not None and case.contract.trees is Trees.SMALL_PAGES
    if not by_notes and not any(
        each.old.covers(text) and each.virt - each.phys == distance for each in loads
    ):
        yield f"no row has the old kernel's text {text} at {host.text.virt:#x}"
    taken = [FIRST_MIB] + ([host.crash_region] if host.crash_region else [])
    ram = subtract(host.memory.ram, [*taken, *(each.extent for each in host.crash_memory)])
    saved = _within(host.memory.ram, [each.source for each in case.intent.backup])
    mapped = [each for each in loads if not _of_text(each, text, host)]
    said = union(each.old for each in mapped)
    for extent in subtract([*ram, *saved], said)[:1]:
        yield f"it leaves out {extent}"
    for extent in subtract(said, [*ram, *saved])[:1]:
        yield f"it has {extent}, which is not memory of the old kernel's that is left"
    if sum(each.offset.size for each in mapped) != sum(each.size for each in said):
        yield "two of its rows overlap"
    for each in mapped if not by_notes else ():
        there = each.phys < host.direct_map.size
        virt = host.direct_map.virt + each.phys if there else 0
        # kexec-tools has all ones for memory that a 32-bit kernel does not map.
        nowhere = (0, 0xFFFF_FFFF, 0xFFFF_FFFF_FFFF_FFFF)
        if each.virt != virt and (there or each.virt not in nowhere):
            yield f"{each.phys:#x} is said to be mapped at {each.virt:#x}, and is at {virt:#x}"


def _of_text(row: elf.HeaderRow, text: Extent, host: Host) -> bool:
    """The row of the kernel's own mapping; kexec-tools' ends where its bss does, in a last page."""
    if row.old == text and row.virt == host.text.virt:
        return True
    distance = host.text.virt - text.start
    near = row.old.start == text.start and text.end <= row.old.end < text.end + LARGE_PAGE
    return near and row.virt - row.phys == distance != host.direct_map.virt


def _within(extents: tuple[Extent, ...], inside: list[Extent]) -> tuple[Extent, ...]:
    return subtract(inside, subtract(inside, extents))


def _places(case: Case, header: elf.CoreHeader) -> Iterator[str]:
    """What is read elsewhere than it was is a copy of it, in the crash region."""
    region, memory = case.host.crash_region, case.run.memory
    for each in header.rows:
        if each.offset == each.old:
            continue
        if region is None or not region.covers(each.offset):
            yield f"{each.old} is read at {each.offset}, outside the crash region"
        elif not alike(memory.read(each.offset), memory.read(each.old)):
            yield f"{each.old} is read at {each.offset}, where other bytes lie"
