"""A core as a kdump-compressed file, made here: each page packed by itself, as makedumpfile does.

    block 0       "KDUMP   ", version 6, utsname, time, sizes
    block 1 ..    sub header, the core's notes
    then          bitmap 1, bitmap 2: the frames, all of which are in the file
    then          a descriptor for each frame, in their order
    then          a page of zeros, which all such pages share; the others as they come

How many frames there are is known before one is read, and so is every place but a page's: what was
ended goes on where it was.

Source: makedumpfile diskdump_mod.h (struct disk_dump_header, kdump_sub_header, page_desc,
DUMP_DH_COMPRESSED_*), IMPLEMENTATION; a 32-bit kernel's long has 32 bits.

Rules: as `saving`: the standard library alone, but zstd's package where zstd is asked for; the
journal never says more than the disk has.  Frames are those that one row of the core has whole.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tightrope.errors import CoreError, MissingPart
from tightrope.kdump import saving
from tightrope.kdump.core import Vmcore
from tightrope.kdump.ring import Digest, Ring
from tightrope.kdump.saving import Copied, Progress, told
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model.notes import EM_X86_64
from tightrope.vmcore.dead import memory_of
from tightrope.vmcore.root import find_root

Pack = Callable[[bytes], bytes]


class Packing(StrEnum):
    """What pages are packed with; the value is what a user says."""

    ZLIB = "zlib"
    ZSTD = "zstd"


FLAGS = {Packing.ZLIB: 1, Packing.ZSTD: 0x20}
_DESCRIPTOR = struct.Struct("<QIIQ")
_HEADER = {64: struct.Struct("<8si390s6xqqiiiIIIIIIi"), 32: struct.Struct("<8si390s2xiiiiiIIIIIIi")}
_SUB_HEADER = {64: struct.Struct("<QiiQQQQQQQQQQQ"), 32: struct.Struct("<IiiIIQIQIQIQQQ")}
_FRAMES_LIMIT = 1 << 32
"""16 TiB: what the header's 32-bit count of frames can say, and pgd reads."""
_VMCOREINFO = b"VMCOREINFO\0"
_ZERO = bytes(PAGE_SIZE)
_LEVEL = {Packing.ZLIB: 1, Packing.ZSTD: 3}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """Where everything lies in the file."""

    frames: tuple[Extent, ...]
    """Memory, in whole pages, sorted and apart."""
    count: int
    bitmap_blocks: int
    """Of one bitmap."""
    sub_blocks: int

    @property
    def bitmaps(self) -> int:
        """Where the first one begins."""
        return (1 + self.sub_blocks) * PAGE_SIZE

    @property
    def descriptors(self) -> int:
        """Where the first one lies."""
        return self.bitmaps + 2 * self.bitmap_blocks * PAGE_SIZE

    @property
    def pages(self) -> int:
        """Where the page of zeros lies, and the others behind it."""
        return self.descriptors + self.count * _DESCRIPTOR.size


def packer(how: Packing) -> Pack:
    """What packs one page.  Raises MissingPart where a package is missing."""
    level = _LEVEL[how]
    if how is Packing.ZLIB:
        return lambda page: zlib.compress(page, level)
    try:
        import zstandard
    except ImportError as err:
        raise MissingPart(
            "zstd is the package zstandard: pip install 'tightrope[inspect]', or --compress zlib"
        ) from err
    return zstandard.ZstdCompressor(level=level).compress


def packed(
    core: Vmcore, final: Path, how: Packing, progress: Progress, asked: Digest = Digest.SHA256
) -> Copied:
    """Save all of a core, packed, as `final`.  Raises CoreError, PerformError, MissingPart."""
    pack = packer(how)
    layout = _laid_out(core)
    part = saving.Part(final, f"{saving.identity(core)} {how.value}")
    try:
        pages, end = part.left("pages", "end")
        if not pages or end > os.fstat(part.out).st_size or pages > layout.count:
            pages = 0
            _begin(core, part, layout, how)
            end = _zero_page(part, layout, pack)
        with told(final):
            os.ftruncate(part.out, end)
        writer = _Writer(core, part, layout, pack, FLAGS[how])
        end = writer.write(pages, end, progress)
        hexadecimal = None
        if asked is not Digest.NONE:
            with closing(Ring(saving.CHUNK, asked)) as ring:
                saving.digest(part.out, end, ring)
                hexadecimal = ring.end()
        part.finish()
    finally:
        part.close()
    return Copied(path=final, size=end, sha256=hexadecimal, resumed=pages * PAGE_SIZE)


def _laid_out(core: Vmcore) -> _Layout:
    frames = tuple(core.frames())
    if not frames:
        raise CoreError("no page of memory in it", source=core.source)
    if frames[-1].end // PAGE_SIZE > _FRAMES_LIMIT:
        raise CoreError(
            "has memory beyond what a compressed dump counts: save it as it is",
            source=core.source,
            field="p_paddr",
            limit=_FRAMES_LIMIT * PAGE_SIZE,
        )
    count = sum(each.size // PAGE_SIZE for each in frames)
    if count * PAGE_SIZE > core.size:
        raise CoreError(
            f"ends before its {count:,} pages of memory", source=core.source, limit=core.size
        )
    bits = -(-frames[-1].end // PAGE_SIZE)
    return _Layout(
        frames=frames,
        count=count,
        bitmap_blocks=-(-bits // (8 * PAGE_SIZE)),
        sub_blocks=1 + -(-len(core.raw_notes) // PAGE_SIZE),
    )


def _begin(core: Vmcore, part: saving.Part, layout: _Layout, how: Packing) -> None:
    """Headers, notes and bitmaps."""
    bits = 64 if core.machine == EM_X86_64 else 32
    highest = layout.frames[-1].end // PAGE_SIZE
    now = int(time.time())
    header = _HEADER[bits].pack(
        b"KDUMP   ", 6, _names(core, bits), now & 0x7FFF_FFFF if bits == 32 else now, 0, FLAGS[how], PAGE_SIZE,
        layout.sub_blocks, 2 * layout.bitmap_blocks, min(highest, 0xFFFF_FFFF), 0, 0, 0, 0,
        max(1, core.notes.cpus),
    )  # fmt: skip
    phys_base = (core.notes.number("NUMBER(phys_base)") or 0) & (1 << bits) - 1
    notes = 2 * PAGE_SIZE
    at, size = _vmcoreinfo(core.raw_notes)
    sub = _SUB_HEADER[bits].pack(
        phys_base, 0, 0, 0, 0, notes + at if size else 0, size, notes, len(core.raw_notes), 0, 0,
        0, highest, highest,
    )  # fmt: skip
    out = part.out
    with told(part.path):
        os.ftruncate(out, 0)
        os.pwrite(out, header, 0)
        os.pwrite(out, sub, PAGE_SIZE)
        os.pwrite(out, core.raw_notes, notes)
        for first in (layout.bitmaps, layout.bitmaps + layout.bitmap_blocks * PAGE_SIZE):
            for each in layout.frames:
                _set_bits(out, first, each.start // PAGE_SIZE, each.end // PAGE_SIZE)


def _names(core: Vmcore, bits: int) -> bytes:
    """struct new_utsname: the dead kernel's own, where it is found.

    libkdumpfile, which drgn 0.3.0 reads by, takes the machine's name only where system, release and
    version are there.
    """
    info, machine = core.notes.vmcoreinfo, b"x86_64" if bits == 64 else b"i686"
    try:
        at = int(info["SYMBOL(init_uts_ns)"], 16) + int(info["OFFSET(uts_namespace.name)"])
        said = memory_of(core, find_root(core)).read(at, 6 * 65)
        names = [said[n : n + 65].split(b"\0", 1)[0][:64] for n in range(0, 6 * 65, 65)]
        if names[0] and names[2] and names[3] and names[4] == machine:
            return b"".join(each.ljust(65, b"\0") for each in names)
    except (LookupError, ValueError, CoreError):
        pass
    release = info.get("OSRELEASE", "").encode("latin-1", "replace")[:64] or b"(none)"
    return b"".join(
        each.ljust(65, b"\0") for each in (b"Linux", b"(none)", release, b"#0", machine, b"")
    )


def _vmcoreinfo(notes: bytes) -> tuple[int, int]:
    """Where its text lies in the notes, and how long it is; nothing where there is none."""
    at = notes.find(_VMCOREINFO)
    if at < 12:
        return 0, 0
    name, size = struct.unpack_from("<II", notes, at - 12)
    return (at + 12, size) if name == len(_VMCOREINFO) and at + 12 + size <= len(notes) else (0, 0)


def _set_bits(out: int, first: int, start: int, end: int) -> None:
    """Bits [start, end) of a bitmap that begins at `first`, a megabyte of it at a time."""
    while start < end:
        stop = min(end, (start | 0x7F_FFFF) + 1)
        at, last = start // 8, -(-stop // 8)
        had = os.pread(out, last - at, first + at).ljust(last - at, b"\0")
        bits = int.from_bytes(had, "little") | ((1 << stop - start) - 1) << start % 8
        os.pwrite(out, bits.to_bytes(last - at, "little"), first + at)
        start = stop


def _zero_page(part: saving.Part, layout: _Layout, pack: Pack) -> int:
    data = pack(_ZERO)
    with told(part.path):
        os.pwrite(part.out, data, layout.pages)
    return layout.pages + len(data)


class _Writer:
    """Reads pages, and writes them packed with their descriptors."""

    def __init__(
        self, core: Vmcore, part: saving.Part, layout: _Layout, pack: Pack, flag: int
    ) -> None:
        self._core, self._part, self._layout = core, part, layout
        self._pack, self._flag = pack, flag
        self._zero = _DESCRIPTOR.pack(layout.pages, len(pack(_ZERO)), flag, 0)

    def write(self, pages: int, end: int, progress: Progress) -> int:
        """All pages but the first `pages`, from `end` on; where the file ends then."""
        out, layout = self._part.out, self._layout
        started = noted = time.monotonic()
        sent = end
        for extent in _behind(layout.frames, pages):
            data = self._core.memory(extent)
            rows, body = self._packed(data, end)
            with told(self._part.path):
                saving.write(out, memoryview(body), end)
                at = layout.descriptors + pages * _DESCRIPTOR.size
                saving.write(out, memoryview(rows), at)
                pages += len(data) // PAGE_SIZE
                end += len(body)
                now = time.monotonic()
                if now - noted > saving.JOURNAL_SECONDS:
                    os.fdatasync(out)
                    self._part.note(pages=pages, end=end)
                    noted = now
                if end - sent >= saving.SENT:
                    saving.send(out, sent, end)
                    sent = end
            progress(pages * PAGE_SIZE, layout.count * PAGE_SIZE, now - started)
        return end

    def _packed(self, data: bytes, end: int) -> tuple[bytearray, bytearray]:
        """Descriptors, and what they lead to, from `end` on."""
        rows, body = bytearray(), bytearray()
        for at in range(0, len(data), PAGE_SIZE):
            page = data[at : at + PAGE_SIZE]
            if page == _ZERO:
                rows += self._zero
                continue
            small = self._pack(page)
            flag = self._flag
            if len(small) >= PAGE_SIZE:  # it was no smaller: as it is
                small, flag = page, 0
            rows += _DESCRIPTOR.pack(end + len(body), len(small), flag, 0)
            body += small
        return rows, body


def _behind(frames: tuple[Extent, ...], pages: int) -> Iterator[Extent]:
    """Memory in stretches that are read at once, without the first `pages`."""
    for each in frames:
        skipped = min(pages, each.size // PAGE_SIZE)
        pages -= skipped
        for start in range(each.start + skipped * PAGE_SIZE, each.end, saving.CHUNK):
            yield Extent(start, min(start + saving.CHUNK, each.end))
