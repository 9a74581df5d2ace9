"""Rules about what a crash kernel can still read of the old one: the dump that all is done for.

    core header   PT_LOAD: p_paddr of the old kernel's memory <- file offset, an address to read now
    e820          what the new kernel may write: its RAM in boot_params

Rules: header and map are read from the segments' bytes, by the System V ABI's and zero-page.rst's
offsets, because those bytes are what the new kernel believes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from tightrope.abi import boot
from tightrope.abi.elf import CLASS_BITS, HEADER_OFFSETS, HEADER_SIZE, IDENT_CLASS, MAGIC
from tightrope.check.case import Case
from tightrope.check.information import ram_told
from tightrope.check.rule import Found, finding, rule
from tightrope.memory import Extent, union
from tightrope.model import Step, Stop

PT_LOAD, PT_NOTE = 1, 4


@rule(
    "backup-complete",
    Step.COPY,
    says="At the entry of a crash kexec the backup holds what low memory held.",
    source="kexec-tools purgatory/arch/i386/crashdump_backup.c",
)
def backup_complete(case: Case) -> Iterator[Found]:
    """At the entry the backup holds what low memory held."""
    if case.run.stop is not Stop.ENTRY:
        return
    for saved, kept in zip(case.plan.backup, case.backup, strict=True):
        wanted = np.frombuffer(case.run.memory.read(saved.source), np.uint8)
        wrong = np.nonzero(np.frombuffer(case.run.memory.read(kept), np.uint8) != wanted)[0]
        if len(wrong):
            at = int(wrong[0])
            yield finding(
                f"low memory is not saved: {saved.source.start + at:#x} is not at {kept.start + at:#x}",
                evidence={"wrong bytes": str(len(wrong)), "of": f"{kept.size:#x}"},
                mend="copy it before the new kernel writes there: its entry is the last moment",
            )
            return


def loads_of(header: bytes) -> Iterator[tuple[Extent, int]]:
    """(where the bytes are read, the old kernel's address of them) of each PT_LOAD and PT_NOTE."""
    if header[: len(MAGIC)] != MAGIC:
        return
    bits = CLASS_BITS.get(header[IDENT_CLASS], 64)
    size = HEADER_SIZE[bits]
    row = struct.Struct("<IIQQQQQQ" if bits == 64 else "<8I")
    count = int.from_bytes(header[HEADER_OFFSETS[bits]["e_phnum"] :][:2], "little")
    for number in range(count):
        fields = row.unpack_from(header, size + number * row.size)
        # p_flags stands second in 64 bits and behind the sizes in 32.
        kind, offset, _virt, phys, length = (fields[0], *fields[2 if bits == 64 else 1 :][:4])
        if kind in (PT_LOAD, PT_NOTE):
            yield Extent.sized(offset, length), phys


def may_write(page: bytes) -> tuple[Extent, ...]:
    """The RAM that boot_params gives to the new kernel."""
    count = boot.field("e820_entries").read(page)
    at = boot.E820_TABLE
    rows = boot.E820_ENTRY.iter_unpack(page[at : at + count * boot.E820_ENTRY.size])
    return union(Extent.sized(start, size) for start, size, kind in rows if kind == 1)


@rule(
    "dump-survives",
    Step.PREPARE,
    says="The new kernel may write nothing that its core header leads to.",
    source="Linux commit 7c321eb2b843: low memory is left out where it is not backed up",
)
def dump_survives(case: Case) -> Iterator[Found]:
    """The new kernel may write nothing that its core header leads to."""
    if not case.plan.crash:
        return
    data = {each.name: bytes(each.data) for each in case.handover.segments}
    if "core header" not in data:
        return  # a flat binary is told nothing
    ram = may_write(data["boot_params"]) if "boot_params" in data else ram_told(case)
    for extent, phys in loads_of(data["core header"]):
        for mine in ram:
            if not extent.overlaps(mine):
                continue
            at = max(extent.start, mine.start)
            yield finding(
                f"the core header reads {phys + at - extent.start:#x} of the old kernel at {at:#x},"
                " which the new kernel may write",
                evidence={"it reads": str(extent), "the new kernel's RAM": str(mine)},
                mend="leave it out, or lead it to a backup that the memory map reserves",
            )
            return
