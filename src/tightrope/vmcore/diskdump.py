"""A compressed dump (kdump format): header, two bitmaps, page descriptors, packed pages.

    block 0        "KDUMP   ", version, utsname, time, block size, blocks of what follows
    block 1 ..     sub header: which part of a split dump; where VMCOREINFO and the notes lie
    then           bitmap 1: frames that are memory        bitmap 2: frames that are in the dump
    then           a descriptor for each frame of bitmap 2, in their order
    then           the pages

Source: makedumpfile diskdump_mod.h (struct disk_dump_header, kdump_sub_header), IMPLEMENTATION;
QEMU include/sysemu/dump.h.  Its writer's long has 32 or 64 bits, and so has the layout; nothing
says which, so it is the one whose block size is a page's.  diskdump before kdump wrote "DISKDUMP"
and has no sub header and no VMCOREINFO.

    frames   0 1 2 3 4 5 6 7
    bitmap 2 1 1 0 0 1 0 0 0   ->  held [0, 2) [4, 5)   ->  offsets 0, 2 pages into what `Packed` reads

Rules: bitmaps and descriptors are read in stretches, as arrays.  A frame whose descriptor or bytes
are not in the file is left out, not wrong: the file was cut short.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import CoreError
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model.dump import U64, Compression, Container, Core, Data, Kind, Pieces
from tightrope.model.notes import EM_386, EM_X86_64, Notes
from tightrope.vmcore.notes import read_notes, vmcoreinfo_alone
from tightrope.vmcore.packed import BY_FLAG, DESCRIPTOR, Packed

SIGNATURES = (b"KDUMP   ", b"DISKDUMP")
_UTSNAME_MACHINE = 12 + 4 * 65
"""Offset of utsname.machine, in both layouts: signature, version, then six strings of 65 bytes."""
_HEADERS = {64: struct.Struct("<12x390x6xqqiiiIII"), 32: struct.Struct("<12x390x2xiiiiiIII")}
"""struct disk_dump_header, as the compiler of a 64- and a 32-bit writer lays it: seconds and
microseconds, status, block_size, sub_hdr_size, bitmap_blocks, max_mapnr, total_ram_blocks."""
_SUB_HEADER = {
    64: (("phys_base", 0, 8), ("split", 12, 4), ("start", 16, 8), ("end", 24, 8),
         ("vmcoreinfo", 32, 8), ("vmcoreinfo_size", 40, 8), ("notes", 48, 8), ("notes_size", 56, 8),
         ("start_64", 80, 8), ("end_64", 88, 8), ("max_mapnr_64", 96, 8)),
    32: (("phys_base", 0, 4), ("split", 8, 4), ("start", 12, 4), ("end", 16, 4),
         ("vmcoreinfo", 20, 8), ("vmcoreinfo_size", 28, 4), ("notes", 32, 8), ("notes_size", 40, 4),
         ("start_64", 56, 8), ("end_64", 64, 8), ("max_mapnr_64", 72, 8)),
}  # fmt: skip
"""struct kdump_sub_header: field, offset, bytes.  A 32-bit writer aligns its off_t to 4 bytes."""
_SINCE = {"split": 2, "start": 2, "end": 2, "vmcoreinfo": 3, "vmcoreinfo_size": 3, "notes": 4,
          "notes_size": 4, "start_64": 6, "end_64": 6, "max_mapnr_64": 6}  # fmt: skip
"""The header version that has a field; older ones have something else there, or nothing."""
_NOTES_LIMIT = 64 << 20
_BITMAP_LIMIT = 1 << 29
"""Bytes of a bitmap: 16 TiB of memory."""
PIECES_LIMIT = 1 << 22
"""Runs of frames: a filtered dump of a terabyte has some hundred thousand."""
_STRETCH = 1 << 16
"""Bytes of bitmap that are read at once: 2 GiB of memory, and 12 MiB of descriptors at the most."""

Bits = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Header:
    """What the two headers say that is asked here; sizes in bytes, places in the file."""

    bits: int
    machine: int
    seconds: int
    bitmaps: int
    bitmap_size: int
    """Of each of the two."""
    frames: int
    descriptors: int
    sub: Mapping[str, int]

    @property
    def own(self) -> tuple[int, int]:
        """The first frame that this file has pages of, and the one behind the last."""
        if not self.sub["split"]:
            return 0, self.frames
        first = min(self.sub["start_64"] or self.sub["start"], self.frames)
        return first, max(first, min(self.sub["end_64"] or self.sub["end"], self.frames))

    @property
    def part(self) -> Extent | None:
        """The memory of a split dump that this file has, where it is a part."""
        first, last = self.own
        return Extent(first * PAGE_SIZE, last * PAGE_SIZE) if self.sub["split"] else None


def read(data: Data, source: str, *, flattened: bool) -> Core:
    """The memory of a compressed dump.  Raises CoreError."""
    unused: list[str] = []
    header = _header(data, source)
    there, held, offsets, count, lost = _frames(data, header, source)
    if lost:
        unused.append(f"of {lost:,} pages the bytes are not in the file: it was cut short")
    if count == lost and header.part is None:
        raise CoreError("no page of its memory is in the file", source=source, field="bitmap")
    return Core(
        source=source,
        machine=header.machine,
        bits=header.bits,
        container=Container(
            kind=Kind.KDUMP,
            flattened=flattened,
            compression=_compression(data, header, count),
            written=header.seconds or None,
            part=header.part,
        ),
        data=Packed(data, source, descriptors=header.descriptors, count=count),
        held=held,
        offsets=offsets,
        described=there,
        linear=(),
        notes=_notes(data, header, unused),
        unused=tuple(unused),
    )


def _header(data: Data, source: str) -> _Header:
    head = data.read(0, min(data.size, PAGE_SIZE))
    version = int.from_bytes(head[8:12], "little")
    bits, (seconds, _, _, _, sub_blocks, bitmap_blocks, frames, _) = _laid_out(head, source)
    sub = _sub_header(data, bits, version if head.startswith(b"KDUMP") and sub_blocks > 0 else 0)
    bitmaps = (1 + max(sub_blocks, 0)) * PAGE_SIZE
    size = bitmap_blocks * PAGE_SIZE // 2
    frames = max(frames, sub["max_mapnr_64"])
    if min(size, -(-frames // 8)) > _BITMAP_LIMIT:
        raise CoreError(
            f"bitmaps of {size:,} bytes", source=source, field="bitmap_blocks", limit=_BITMAP_LIMIT
        )
    return _Header(
        bits=bits,
        machine=_machine(head, source),
        seconds=seconds,
        bitmaps=bitmaps,
        bitmap_size=size,
        frames=min(frames, size * 8),
        descriptors=bitmaps + bitmap_blocks * PAGE_SIZE,
        sub=sub,
    )


def _laid_out(head: bytes, source: str) -> tuple[int, tuple[int, ...]]:
    """The width of the writer's long, and the header's fields."""
    for bits, layout in _HEADERS.items():
        if len(head) < layout.size:
            raise CoreError("ends inside its header", source=source, offset=len(head))
        fields = layout.unpack_from(head)
        if fields[3] == PAGE_SIZE:
            return bits, fields
    raise CoreError(
        f"a compressed dump (kdump) with blocks that are not a page of {PAGE_SIZE} bytes:"
        " damaged, or not of an x86",
        source=source,
        field="block_size",
        offset=428,
    )


def _machine(head: bytes, source: str) -> int:
    name = head[_UTSNAME_MACHINE : _UTSNAME_MACHINE + 65].split(b"\0", 1)[0]
    if name == b"x86_64":
        return EM_X86_64
    if len(name) == 4 and name[:1] == b"i" and name[2:] == b"86":
        return EM_386
    raise CoreError(
        f"a dump of machine {name.decode('latin-1')!r}, not of an x86",
        source=source,
        field="utsname.machine",
        offset=_UTSNAME_MACHINE,
    )


def _sub_header(data: Data, bits: int, version: int) -> Mapping[str, int]:
    """Its fields, 0 where this version of the header has none or the file ends before it."""
    raw = data.read(PAGE_SIZE, max(0, min(PAGE_SIZE, data.size - PAGE_SIZE)))
    return {
        name: int.from_bytes(raw[at : at + size], "little")
        if version >= _SINCE.get(name, 1) and at + size <= len(raw)
        else 0
        for name, at, size in _SUB_HEADER[bits]
    }


def _frames(data: Data, header: _Header, source: str) -> tuple[Pieces, Pieces, U64, int, int]:
    """Frames that are memory; those that are held, and where; descriptors; those without bytes."""
    there, held = _Runs(source), _Runs(source)
    rank = lost = 0
    for first, memory, dumped in _stretches(data, header):
        if not memory.any() and not dumped.any():
            continue
        numbers = np.nonzero(dumped)[0]
        bad = ~_have_bytes(data, header.descriptors + rank * DESCRIPTOR.size, len(numbers))
        before = np.cumsum(dumped, dtype=np.int64) - dumped + rank
        rank += len(numbers)
        lost += int(bad.sum())
        there.add(first, memory | dumped, None)
        dumped[numbers[bad]] = 0
        held.add(first, dumped, before)
    pieces, offsets = held.pieces()
    return there.pieces()[0], pieces, offsets, rank, lost


def _stretches(data: Data, header: _Header) -> Iterator[tuple[int, Bits, Bits]]:
    """(first frame, bitmap 1, bitmap 2) as a byte a frame; what the file lacks is not set."""
    size = -(-header.frames // 8)
    for at in range(0, size, _STRETCH):
        count = min(_STRETCH, size - at)
        both = []
        for begins in (header.bitmaps, header.bitmaps + header.bitmap_size):
            have = max(0, min(count, data.size - begins - at))
            raw = np.zeros(count, np.uint8)
            if have:
                raw[:have] = np.frombuffer(data.read(begins + at, have), np.uint8)
            both.append(raw)
        if not both[0].any() and not both[1].any():
            continue
        memory, dumped = (np.unpackbits(each, bitorder="little") for each in both)
        memory[max(0, header.frames - at * 8) :] = 0
        first, last = header.own
        dumped[: max(0, first - at * 8)] = 0
        dumped[max(0, last - at * 8) :] = 0
        yield at * 8, memory, dumped


def _have_bytes(data: Data, at: int, count: int) -> NDArray[np.bool_]:
    """Which of `count` descriptors are in the file, with a page behind them that is as well."""
    good = np.zeros(count, np.bool_)
    have = max(0, min(count, (data.size - at) // DESCRIPTOR.size))
    if have:
        rows = np.frombuffer(data.read(at, have * DESCRIPTOR.size), _ROW)
        size = np.uint64(data.size)
        length = rows["size"].astype(np.uint64)
        good[:have] = (length > 0) & (length <= 2 * PAGE_SIZE)
        good[:have] &= (rows["offset"] <= size) & (
            length <= size - np.minimum(rows["offset"], size)
        )
    return good


_ROW = np.dtype([("offset", "<u8"), ("size", "<u4"), ("flags", "<u4"), ("page_flags", "<u8")])


class _Runs:
    """Collects runs of frames that are set, and the rank of each one's first."""

    def __init__(self, source: str) -> None:
        self._source, self._count = source, 0
        self._starts, self._ends, self._ranks = ([np.zeros(0, np.int64)] for _ in range(3))

    def add(self, first: int, frames: Bits, before: NDArray[np.int64] | None) -> None:
        """Frames from `first` on, a byte each; `before` counts descriptors before each of them."""
        edges = np.diff(frames.astype(np.int8), prepend=0, append=0)
        starts, ends = np.nonzero(edges == 1)[0], np.nonzero(edges == -1)[0]
        self._count += len(starts)
        if self._count > PIECES_LIMIT:
            raise CoreError(
                "its pages lie in more pieces than are listed",
                source=self._source,
                field="bitmap",
                limit=PIECES_LIMIT,
            )
        self._starts.append(starts + first)
        self._ends.append(ends + first)
        self._ranks.append(starts if before is None else before[starts])

    def pieces(self) -> tuple[Pieces, U64]:
        """All of them, those that adjoin joined, and where each begins in `Packed`."""
        starts, ends, ranks = (np.concatenate(e) for e in (self._starts, self._ends, self._ranks))
        # A frame more is a descriptor more, but where one in between has no bytes.
        begins = np.ones(len(starts), np.bool_)
        begins[1:] = starts[1:] != ends[:-1]
        last = np.ones(len(starts), np.bool_)
        last[:-1] = begins[1:]
        size = np.uint64(PAGE_SIZE)
        return (
            Pieces(
                starts=starts[begins].astype(np.uint64) * size,
                ends=ends[last].astype(np.uint64) * size,
            ),
            ranks[begins].astype(np.uint64) * size,
        )


def _compression(data: Data, header: _Header, count: int) -> tuple[Compression, ...]:
    """What the first pages are packed with: all are by one, or not at all where it does not pay."""
    have = max(0, min(count, 1 << 16, (data.size - header.descriptors) // DESCRIPTOR.size))
    rows = np.frombuffer(data.read(header.descriptors, have * DESCRIPTOR.size), _ROW)
    flags = np.unique(rows["flags"]).tolist()
    return tuple(BY_FLAG[each] for each in flags if each in BY_FLAG)


def _notes(data: Data, header: _Header, unused: list[str]) -> Notes:
    word = 8 if header.machine == EM_X86_64 else 4

    def piece(name: str) -> memoryview:
        offset, size = header.sub[name], header.sub[f"{name}_size"]
        if offset + size > data.size or size > _NOTES_LIMIT:
            unused.append(f"{name} of {size:,} bytes at offset {offset:#x} do not fit")
            return memoryview(b"")
        return memoryview(data.read(offset, size) if size else b"")

    found = read_notes([piece("notes")], word=word)
    if found.vmcoreinfo:
        return found
    return replace(found, vmcoreinfo=vmcoreinfo_alone(bytes(piece("vmcoreinfo"))))
