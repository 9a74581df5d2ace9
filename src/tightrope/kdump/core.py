"""/proc/vmcore, or an ELF core like it, read with the standard library alone.

    PT_NOTE -> notes       PT_LOAD rows, sorted -> a page by its physical address

Sources: as `vmcore.core`, which reads any core and as arrays; this one reads what a crash kernel
has just made, a few rows, and where numpy is not there.

Rules: any bytes give a `Vmcore` or a CoreError.  A page that is not in one row is not there.
"""

from __future__ import annotations

import os
import stat
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable

from tightrope.abi import elf
from tightrope.errors import CoreError, reason
from tightrope.memory import PAGE_SIZE, Extent, align_down, align_up, union
from tightrope.model.notes import EM_386, EM_X86_64, Notes
from tightrope.vmcore.notes import read_notes

_HEADER = {64: struct.Struct("<16xHHIQQQIHHH"), 32: struct.Struct("<16xHHIIIIIHHH")}
"""type, machine, version, entry, phoff, shoff, flags, ehsize, phentsize, phnum."""
_ROW = {64: struct.Struct("<IIQQQQQQ"), 32: struct.Struct("<IIIIIIII")}
_ROWS_LIMIT = 1 << 16
_NOTES_LIMIT = 16 << 20


class Vmcore:
    """A core that is open: where its memory lies in it, and its notes."""

    def __init__(self, path: str) -> None:
        """Raises CoreError."""
        self.source = path
        try:
            self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as err:
            raise CoreError(reason(err), source=path) from err
        try:
            found = os.fstat(self.descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise CoreError("not a regular file", source=path)
            self.size = found.st_size
            self.machine, self.head, rows = headers(self.read, self.size, path)
            self.notes = self._notes(rows)
        except BaseException:
            self.close()
            raise
        self._loads = _apart((r[4], r[2], r[5]) for r in rows if r[0] == elf.PT_LOAD and r[5])
        self._starts = [start for start, _, _ in self._loads]
        self.linear = tuple((row[3], row[4], row[6]) for row in rows if row[0] == elf.PT_LOAD)
        """(virtual start, physical start, bytes) of each row, as its writer named them."""

    def close(self) -> None:
        """Close the file; calling it again does nothing."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file, fewer at its end.  Raises CoreError."""
        if not 0 <= offset < self.size:
            return b""
        try:
            return os.pread(self.descriptor, min(size, self.size - offset), offset)
        except OSError as err:
            why = err.strerror or str(err)
            raise CoreError(why, source=self.source, offset=offset) from err

    def fill(self, buffer: memoryview, offset: int) -> int:
        """Bytes of the file into a buffer; how many, 0 at its end.  Raises CoreError."""
        try:
            return os.preadv(self.descriptor, [buffer[: max(0, self.size - offset)]], offset)
        except OSError as err:
            why = err.strerror or str(err)
            raise CoreError(why, source=self.source, offset=offset) from err

    def page(self, frame: int) -> bytes | None:
        """The 4096 bytes of a frame, None where one row does not have them all."""
        size, offset = self._from(frame)
        if size < PAGE_SIZE:
            return None
        page = self.read(offset, PAGE_SIZE)
        return page if len(page) == PAGE_SIZE else None

    def frames(self) -> tuple[Extent, ...]:
        """The memory that it has in whole pages, sorted and apart."""
        rows = ((align_up(a, PAGE_SIZE), align_down(a + n, PAGE_SIZE)) for a, _, n in self._loads)
        return union(Extent(start, end) for start, end in rows if start < end)

    def memory(self, extent: Extent) -> bytes:
        """The bytes of whole pages that `frames` has.  Raises CoreError."""
        out = bytearray()
        while len(out) < extent.size:
            at = extent.start + len(out)
            there, offset = self._from(at)
            wanted = min(extent.end - at, align_down(there, PAGE_SIZE))
            data = self.read(offset, wanted)
            if not data or len(data) % PAGE_SIZE:
                raise CoreError(
                    "ends before its memory", source=self.source, offset=offset, limit=self.size
                )
            out += data
        return bytes(out)

    def _from(self, phys: int) -> tuple[int, int]:
        """How many bytes of memory a row has from an address on, and where they lie in the file."""
        at = bisect_right(self._starts, phys) - 1
        if at < 0:
            return 0, 0
        start, offset, size = self._loads[at]
        return max(0, start + size - phys), offset + phys - start

    def _notes(self, rows: list[tuple[int, ...]]) -> Notes:
        parts = []
        for row in rows:
            if row[0] == elf.PT_NOTE and row[5] <= _NOTES_LIMIT and row[2] + row[5] <= self.size:
                raw = self.read(row[2], row[5])
                self.head += raw
                parts.append(memoryview(raw))
        self.raw_notes = b"".join(parts)
        return read_notes(parts, word=8 if self.machine == EM_X86_64 else 4)


def _apart(rows: Iterable[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """(physical start, offset, bytes) of rows that do not overlap but within a page: the kernel's
    text has a row of its own, and lies in a row of memory besides."""
    found: list[tuple[int, int, int]] = []
    end = 0
    for start, offset, size in sorted(rows, key=lambda row: (row[0], -row[2])):
        skipped = max(0, align_down(end, PAGE_SIZE) - start)
        if start + size > end:
            found.append((start + skipped, offset + skipped, size - skipped))
            end = start + size
    return found


def headers(
    read: Callable[[int, int], bytes], size: int, source: str
) -> tuple[int, bytes, list[tuple[int, ...]]]:
    """The machine, the headers' bytes, and rows: (type, flags, offset, virt, phys, file, memory,
    ..).

    `read(offset, size)` gives bytes of the core, fewer at its end; `size` is how many there are.
    Raises CoreError.
    """
    head = read(0, 64)
    bits = {1: 32, 2: 64}.get(head[4] if len(head) == 64 else 0, 0)
    if not bits or head[:4] != b"\x7fELF" or head[5] != 1:
        raise CoreError("no little-endian ELF core", source=source, offset=0)
    kind, machine, _, _, at, _, _, _, step, count = _HEADER[bits].unpack_from(head)
    layout = _ROW[bits]
    if kind != elf.ET_CORE or machine not in (EM_386, EM_X86_64):
        raise CoreError("no core of an x86", source=source, offset=16)
    if step < layout.size or not 0 < count < _ROWS_LIMIT or at > size:
        raise CoreError("has no program headers", source=source, field="e_phnum")
    raw = read(at, step * count)
    if len(raw) < step * count:
        raise CoreError("ends inside its program headers", source=source, offset=at)
    rows = [layout.unpack_from(raw, n * step) for n in range(count)]
    if bits == 32:  # type, offset, virt, phys, file, memory, flags
        rows = [(k, flags, o, v, p, f, m) for k, o, v, p, f, m, flags, _ in rows]
    return machine, head + raw, rows
