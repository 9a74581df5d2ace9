"""What a crash kernel is told of the old one (B36, B60, B62, B63, B73): the core header.

Rules: as `rebuilt`; the header is changed at offsets of the System V ABI.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

from tests.history.rebuilt import Change, Entry, Findings, loaded, same, walked
from tests.modes.runs import kernel
from tests.rehearse.runs import crash_host
from tightrope.memory import Extent, MemoryMap, Region, RegionKind
from tightrope.model import Handover, Host, Named, OnDamage, SegmentRole, Step
from tightrope.plan import Request
from tightrope.sabotage.edits import edit_segment

CRASH = Request(command_line="a word", crash=True)
MIB = 1 << 20
ROW = struct.Struct("<IIQQQQQQ")
"""An ELF64 program header: type, flags, offset, vaddr, paddr, filesz, memsz, align."""
E_MACHINE, E_PHNUM = 0x12, 0x38
PAGE_OFFSET_BEFORE_4_20 = 0xFFFF_8800_0000_0000
"""Where Linux's direct map began until 4.20 moved it (Documentation/arch/x86/x86_64/mm.rst)."""


def header(change: Callable[[bytearray], None]) -> Change:
    def changed(handover: Handover) -> Handover:
        return edit_segment(handover, SegmentRole.CORE_HEADER, change, planned=True)

    return changed


def crashed(change: Change | None = None) -> Findings:
    return (
        walked(crash_host(), request=CRASH, change=change)
        if change
        else walked(crash_host(), request=CRASH)
    )


def another_direct_map(data: bytearray) -> None:
    """Every row of memory at the address where an older kernel had it."""
    for at in range(64, len(data) - ROW.size + 1, ROW.size):
        row = list(ROW.unpack_from(data, at))
        if row[0] == 1 and row[3] == row[4] + int(crash_host().direct_map.virt):
            row[3] = row[4] + PAGE_OFFSET_BEFORE_4_20
            ROW.pack_into(data, at, *row)


def without_kaslr(data: bytearray) -> None:
    """The text where it is linked to lie, and not where it was moved to."""
    virt = int(crash_host().text.virt)
    at = data.index(virt.to_bytes(8, "little"))
    data[at : at + 8] = 0xFFFF_FFFF_8100_0000.to_bytes(8, "little")


def of_i386(data: bytearray) -> None:
    data[E_MACHINE] = 3


def fewer_rows(data: bytearray) -> None:
    """As an array that is too small leaves it: the last range of memory is not there."""
    data[E_PHNUM] -= 1


def hotplug(data: bytearray) -> None:
    """The kernel writes the header anew when memory goes: the last range is a page shorter."""
    at = 64 + ROW.size * (data[E_PHNUM] - 1)
    row = list(ROW.unpack_from(data, at))
    row[5] -= 4096
    row[6] -= 4096
    ROW.pack_into(data, at, *row)


def verified(change: Change | None = None) -> Findings:
    """With a purgatory that has the digest of every segment, the header's too."""
    asked = replace(CRASH, verify=OnDamage.HALT)
    return walked(crash_host(), request=asked, change=change or same)


def aperture() -> Host:
    """The graphics aperture (GART) lies over RAM that the firmware reserves for it."""
    old = crash_host()
    taken = Extent.sized(0x6000_0000, 64 * MIB)
    regions = []
    for each in old.memory:
        if each.extent.covers(taken):
            regions += [
                Region(Extent(each.extent.start, taken.start), each.kind),
                Region(taken, RegionKind.RESERVED),
                Region(Extent(taken.end, each.extent.end), each.kind),
            ]
        else:
            regions.append(each)
    return replace(old, memory=MemoryMap(tuple(regions)))


# --------------------------------------------------------------------------- B36: notes out of a kernel's reach


def notes_at(place: int) -> Findings:
    """The registers of a CPU, in memory that a 32-bit crash kernel has no address for."""
    old = crash_host()
    high = Region(Extent.sized(1 << 36, 256 * MIB), RegionKind.RAM)
    note = Named(extent=Extent.sized(place, 0x400), what="CPU 0's registers")
    return walked(
        replace(old, memory=MemoryMap(tuple(sorted([*old.memory, high]))), crash_notes=(note,)),
        new=kernel(xloadflags=0),
        request=CRASH,
    )


ENTRIES = (
    Entry(
        id="B36",
        rule="dump-in-reach",
        step=Step.PREPARE,
        broken=lambda: notes_at(1 << 36),
        fixed=lambda: notes_at(0x5000),
    ),
    Entry(
        id="B60",
        what="another PAGE_OFFSET",
        rule="core-header-told",
        step=Step.COPY,
        broken=lambda: crashed(header(another_direct_map)),
        fixed=crashed,
    ),
    Entry(
        id="B60",
        what="no KASLR",
        rule="core-header-told",
        step=Step.COPY,
        broken=lambda: crashed(header(without_kaslr)),
        fixed=crashed,
    ),
    Entry(
        id="B62",
        rule="core-header-told",
        step=Step.COPY,
        broken=lambda: crashed(header(of_i386)),
        fixed=crashed,
    ),
    Entry(
        id="B63",
        what="rows of the core header",
        rule="core-header-told",
        step=Step.COPY,
        broken=lambda: crashed(header(fewer_rows)),
        fixed=crashed,
    ),
    Entry(
        id="B68",
        what="a digest of what is changed behind it",
        rule="arrived",
        step=Step.COPY,
        broken=lambda: verified(header(hotplug)),
        fixed=verified,
    ),
    Entry(
        id="B73",
        rule="core-header-told",
        step=Step.COPY,
        broken=lambda: loaded(aperture(), knew=crash_host(), request=CRASH),
        fixed=lambda: loaded(aperture(), request=CRASH),
    ),
)
