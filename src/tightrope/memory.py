"""Addresses, extents of memory, and maps of who owns what.

Rules: an `Extent` is [start, end) in bytes, start inclusive, end exclusive, and never empty unless
it says so.  This file does not know what a page table, a kernel or an image is.  Addresses have
kinds: a `Phys` and a `Virt` are both ints at run time, and different types to mypy, so that a
mix-up is a type error before it is a triple fault.  Arithmetic gives a plain int: name the kind
again.

            end ->  +-----------+
                    |           |   size = end - start
          start ->  +-----------+
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import NewType

Phys = NewType("Phys", int)
"""An address on the memory bus: what the CPU calls physical."""
Virt = NewType("Virt", int)
"""A linear address: what the CPU translates through the tables."""
Machine = NewType("Machine", Phys)
"""Xen's word for a `Phys`: it may go wherever one may, into a table, a list, a control register."""
PseudoPhys = NewType("PseudoPhys", int)
"""What a Xen guest calls physical.  No CPU knows it: it is no `Phys`, and only a p2m makes it one.
"""

PAGE_SHIFT = 12
PAGE_SIZE = 1 << PAGE_SHIFT

NUMBER = {struct.calcsize(code): struct.Struct(f"<{code}").unpack_from for code in "BHIQ"}
"""Bytes -> what reads a little-endian number of that size at an offset of a buffer."""


def align_down(value: int, alignment: int) -> int:
    """The largest multiple of `alignment` (a power of two) that is not above `value`."""
    return value & ~(alignment - 1)


def align_up(value: int, alignment: int) -> int:
    """The smallest multiple of `alignment` (a power of two) that is not below `value`."""
    return (value + alignment - 1) & ~(alignment - 1)


@dataclass(frozen=True, slots=True, order=True, init=False)
class Extent:
    """Bytes [start, end) of one address space.  Raises ValueError when end < start or start < 0."""

    start: int
    end: int

    def __init__(self, start: int, end: int) -> None:
        if not 0 <= start <= end:
            raise ValueError(f"Extent: [{start:#x}, {end:#x}) is not an extent")
        # A rehearsal makes hundreds: this takes a third of what a frozen dataclass's own takes.
        _set_start(self, start)
        _set_end(self, end)

    @staticmethod
    def sized(start: int, size: int) -> Extent:
        """The `size` bytes from `start`."""
        return Extent(start, start + size)

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def pages(self) -> range:
        """The frame numbers of every page that has a byte in this extent."""
        first = self.start >> PAGE_SHIFT
        # An empty extent in the middle of a page has no byte in it.
        return range(first, align_up(self.end, PAGE_SIZE) >> PAGE_SHIFT if self.size else first)

    def __contains__(self, address: int) -> bool:
        return self.start <= address < self.end

    def covers(self, other: Extent) -> bool:
        """Every byte of `other` is in this extent (an empty extent is covered where it lies)."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: Extent) -> bool:
        """They share at least one byte."""
        return max(self.start, other.start) < min(self.end, other.end)

    def page_aligned(self) -> Extent:
        """The smallest extent of whole pages that covers this one."""
        return Extent(align_down(self.start, PAGE_SIZE), align_up(self.end, PAGE_SIZE))

    def __str__(self) -> str:
        return f"[{self.start:#x}, {self.end:#x})"


_set_start, _set_end = (Extent.__dict__[name].__set__ for name in ("start", "end"))

_BY_PLACE = attrgetter("start", "end")


def union(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    """The same bytes as sorted extents that neither overlap nor touch; empty ones are dropped."""
    merged: list[Extent] = []
    end = -1
    for each in sorted(extents, key=_BY_PLACE):
        if each.start == each.end:
            continue
        if each.start > end:
            merged.append(each)
            end = each.end
        elif each.end > end:
            end = each.end
            merged[-1] = Extent(merged[-1].start, end)
    return tuple(merged)


def subtract(extents: Iterable[Extent], holes: Iterable[Extent]) -> tuple[Extent, ...]:
    """The bytes of `extents` that are in none of `holes`, sorted and merged."""
    cuts = union(holes)
    ends = [cut.end for cut in cuts]
    out: list[Extent] = []
    for extent in union(extents):
        start, end = extent.start, extent.end
        for number in range(bisect_right(ends, start), len(cuts)):
            cut = cuts[number]
            if cut.start >= end:
                break
            if cut.start > start:
                out.append(Extent(start, cut.start))
            start = cut.end
        if start == extent.start:
            out.append(extent)
        elif start < end:
            out.append(Extent(start, end))
    return tuple(out)


def covered(extent: Extent, by: Iterable[Extent]) -> bool:
    """Every byte of `extent` is in at least one of `by`."""
    return not subtract([extent], by)


class Cover:
    """Extents that are asked again and again whether something lies in them."""

    def __init__(self, extents: Iterable[Extent]) -> None:
        self.extents = union(extents)
        self._starts = [each.start for each in self.extents]
        self._ends = [each.end for each in self.extents]

    def covers(self, extent: Extent) -> bool:
        """Every byte of `extent` is in at least one of them; an empty one is where its start is."""
        at = bisect_right(self._starts, extent.start) - 1
        return at >= 0 and extent.end <= self._ends[at]


class RegionKind(StrEnum):
    """E820 types by name (Linux arch/x86/include/asm/e820/types.h; ACPI 6.5, table 15-374)."""

    RAM = "ram"
    RESERVED = "reserved"
    ACPI = "acpi"
    NVS = "nvs"
    UNUSABLE = "unusable"
    PMEM = "pmem"
    PRAM = "pram"
    """Persistent memory as it was before ACPI 6: type 12."""
    SOFT_RESERVED = "soft-reserved"
    """Memory for a special purpose (EFI_MEMORY_SP), such as CXL's: Linux's own type, 0xefffffff."""


@dataclass(frozen=True, slots=True, order=True)
class Region:
    """An extent of physical addresses and what the firmware says it is."""

    extent: Extent
    kind: RegionKind


TOP = 1 << 52
"""The end of physical addresses (SDM 4.1.4)."""
_BELIEVED_FIRST = (
    RegionKind.UNUSABLE,
    RegionKind.NVS,
    RegionKind.ACPI,
    RegionKind.PMEM,
    RegionKind.PRAM,
    RegionKind.SOFT_RESERVED,
    RegionKind.RESERVED,
    RegionKind.RAM,
)


def regions(rows: Iterable[tuple[Extent, RegionKind]]) -> tuple[Region, ...]:
    """Sorted regions without overlap; where two rows disagree, what is not RAM is believed."""
    by_kind: dict[RegionKind, list[Extent]] = {kind: [] for kind in _BELIEVED_FIRST}
    for extent, kind in rows:
        if extent.end <= TOP:
            by_kind[kind].append(extent)
    taken: list[Extent] = []
    out: list[Region] = []
    for kind, extents in by_kind.items():
        pieces = subtract(extents, taken)
        out += [Region(piece, kind) for piece in pieces]
        taken += pieces
    return tuple(sorted(out))


@dataclass(frozen=True, slots=True)
class MemoryMap:
    """The firmware's map: sorted regions that do not overlap (ValueError); what is in none is a
    hole."""

    regions: tuple[Region, ...]
    ram: tuple[Extent, ...] = field(init=False, repr=False, compare=False)
    """Sorted, merged extents of usable RAM."""

    readable: tuple[Extent, ...] = field(init=False, repr=False, compare=False)
    """The same of RAM and of what ACPI left in it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ram", self.of(RegionKind.RAM))
        kinds = (RegionKind.RAM, RegionKind.ACPI, RegionKind.NVS)
        object.__setattr__(self, "readable", self.of(*kinds))
        for before, after in zip(self.regions, self.regions[1:], strict=False):
            if before.extent.end > after.extent.start:
                raise ValueError(
                    f"MemoryMap: {before.extent} and {after.extent} overlap or are unsorted"
                )

    def __iter__(self) -> Iterator[Region]:
        return iter(self.regions)

    def of(self, *kinds: RegionKind) -> tuple[Extent, ...]:
        """Sorted, merged extents of the given kinds."""
        return union(r.extent for r in self.regions if r.kind in kinds)

    def kind_at(self, address: int) -> RegionKind | None:
        """What lies at a physical address, None in a hole."""
        at = bisect_right(self.regions, address, key=lambda r: r.extent.start) - 1
        if at >= 0 and address in self.regions[at].extent:
            return self.regions[at].kind
        return None
