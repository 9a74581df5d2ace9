"""The memory map that a new kernel is told of, against the memory that there is.

    plain kexec   the host's map, type by type
    crash         RAM: the first MiB and the crash region, but for the core header and what low memory
                  was saved to, which are reserved; the rest as the host has it

Rules: types are E820's numbers, which Multiboot and PVH share as far as they have them.  What is
kept in the crash region is found where the new kernel finds it: through its command line and the
core header.  Source: ACPI 6.5, table 15.4; Linux arch/x86/include/asm/e820/types.h; Multiboot2
2.0, 3.6.8.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from tightrope.check.case import Case
from tightrope.check.told import core_header
from tightrope.check.told.memory import RAM, Garbled, Told, of_type
from tightrope.errors import MachineError
from tightrope.memory import PAGE_SIZE, Extent, RegionKind, align_down, align_up, subtract, union
from tightrope.model import Host, Memory, Protocol, SegmentRole, once_a_host

RESERVED = 2
TYPES: Mapping[RegionKind, int] = {
    RegionKind.RAM: RAM,
    RegionKind.RESERVED: RESERVED,
    RegionKind.ACPI: 3,
    RegionKind.NVS: 4,
    RegionKind.UNUSABLE: 5,
    RegionKind.PMEM: 7,
    RegionKind.PRAM: 12,
    RegionKind.SOFT_RESERVED: 0xEFFF_FFFF,
}
NAMES = {number: kind.value for kind, number in TYPES.items()}
FIRST_MIB = Extent(0, 1 << 20)
"""What a crash kernel has besides its region."""
BEYOND_32 = Extent(1 << 36, 1 << 52)
"""What a 32-bit kernel has no addresses for, with PAE (SDM 4.4)."""


def map_problems(case: Case, told: Told, memory: Memory) -> Iterator[str]:
    """What is wrong with the map, the first place of each type; `memory` is where all of it was
    read."""
    for row in told.rows:
        if not row.extent.size:
            yield f"the row at {row.extent.start:#x} is empty"
    if sum(row.extent.size for row in told.rows) != sum(
        each.size for each in union(row.extent for row in told.rows)
    ):
        yield "its rows overlap"
    wanted = _wanted(case, told, memory)
    if wanted is None:
        return  # its core header cannot be read: see core-header-told
    for number in sorted({*wanted, *(row.type for row in told.rows)}):
        name = NAMES.get(number, f"type {number:#x}")
        there, said = wanted.get(number, ()), of_type(told.rows, number)
        if there == said:
            continue
        for extent in _matters(case, number, subtract(said, there))[:1]:
            yield f"{extent} is said to be {name}, and is {_what(case, extent.start)}"
        for extent in _matters(case, number, subtract(there, said))[:1]:
            yield f"{extent} is {name}, and is not said to be"


def usable(case: Case, told: Told, memory: Memory) -> tuple[Extent, ...] | None:
    """The RAM that is the new kernel's; None where its core header cannot be read."""
    wanted = _wanted(case, told, memory)
    return None if wanted is None else union(wanted.get(RAM, ()))


def _matters(case: Case, number: int, extents: Sequence[Extent]) -> tuple[Extent, ...]:
    """What of a difference makes one.

    Another loader saves low memory to the byte and gives away what is left of the last page; of
    that no kernel can use anything (e820__end_of_ram_pfn, memblock: whole pages).  And what it
    keeps it may call reserved, or not name at all: memory that is in no row is no RAM.
    """
    if case.loaded is None or not case.intent.crash:
        return tuple(extents)
    if number == RAM:
        kept = [
            each.destination
            for each in case.intent.segments
            if each.role in (SegmentRole.CORE_HEADER, SegmentRole.BACKUP)
        ]
        return tuple(each for each in subtract(extents, kept) if _whole(each))
    if number == RESERVED and case.host.crash_region is not None:
        # A 32-bit loader has no numbers for what lies beyond PAE's reach.
        far = [BEYOND_32] if case.loaded.narrow else []
        return subtract(extents, [case.host.crash_region, *far])
    return tuple(extents)


def _whole(extent: Extent) -> bool:
    """It has a whole page."""
    return align_up(extent.start, PAGE_SIZE) < align_down(extent.end, PAGE_SIZE)


def _what(case: Case, at: int) -> str:
    region = case.host.crash_region
    if case.intent.crash and (region is None or at not in region):
        return "not the crash kernel's"
    kind = case.host.memory.kind_at(at)
    return "a hole" if kind is None else kind.value


def _wanted(case: Case, told: Told, memory: Memory) -> dict[int, tuple[Extent, ...]] | None:
    """By type, the extents that the map should have."""
    multiboot = case.intent.protocol in (Protocol.MULTIBOOT, Protocol.MULTIBOOT2)
    out = dict((_in_multiboot if multiboot else _by_type)(case.host))
    if case.loaded is not None:
        below = Extent(0, case.loaded.habits.first_ram)
        if not any(each.overlaps(below) for each in of_type(told.rows, RAM)):
            out[RAM] = subtract(out.get(RAM, ()), [below])
    own = case.host.crash_region
    if case.intent.crash and own is not None:
        kept = kept_for_a_dump(told, memory)
        if kept is None:
            return None
        low = subtract([FIRST_MIB], subtract([FIRST_MIB], out.get(RAM, ())))
        also = [each.extent for each in case.host.crash_memory]
        out[RAM] = subtract([*low, own, *also], kept)
        out[RESERVED] = union([*out.get(RESERVED, ()), *kept])
    return out


@once_a_host
def _by_type(host: Host) -> Mapping[int, tuple[Extent, ...]]:
    """The host's own map."""
    return _listed(host, {})


@once_a_host
def _in_multiboot(host: Host) -> Mapping[int, tuple[Extent, ...]]:
    """The same in Multiboot's words: it has none for persistent and special memory."""
    wordless = (RegionKind.PMEM, RegionKind.PRAM, RegionKind.SOFT_RESERVED)
    return _listed(host, dict.fromkeys(wordless, RESERVED))


def _listed(host: Host, otherwise: Mapping[RegionKind, int]) -> Mapping[int, tuple[Extent, ...]]:
    listed: dict[int, list[Extent]] = {}
    for region in host.memory:
        number = otherwise.get(region.kind, TYPES.get(region.kind, RESERVED))
        listed.setdefault(number, []).append(region.extent)
    return MappingProxyType({number: union(extents) for number, extents in listed.items()})


def kept_for_a_dump(told: Told, memory: Memory) -> tuple[Extent, ...] | None:
    """Whole pages of the core header, and of what it says low memory was saved to; None where it
    cannot be read."""
    at = core_header.named(told.line)
    if at is None:
        return ()
    try:
        header = core_header.read(memory, at)
    except (Garbled, MachineError):
        return None
    saved = [row.offset for row in header.rows if row.offset.start != row.phys]
    return union(each.page_aligned() for each in (Extent.sized(at, header.size), *saved))
