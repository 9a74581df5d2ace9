"""A reader of what Multiboot and PVH kernels are handed, for the tests.

Written from the Multiboot Specification 0.6.96 (3.3), the Multiboot2 Specification 2.0 (3.6) and Xen's
hvm/start_info.h with its own offsets; it shares no number with `tightrope.abi`.

Rules: `read(at, size)` gives the bytes of physical memory; what is there is believed, not judged.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

Reader = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Told:
    """Memory map rows are (start, size, type), modules (start, end, string)."""

    line: str
    modules: list[tuple[int, int, str]]
    memory: list[tuple[int, int, int]]
    lower: int = 0
    upper: int = 0
    loader: str = ""
    load: int = 0
    rsdp: int = 0


def text(read: Reader, at: int) -> str:
    out = b""
    while not out.endswith(b"\0"):
        out += read(at + len(out), 1)
    return out[:-1].decode()


def words(read: Reader, at: int, count: int) -> tuple[int, ...]:
    return struct.unpack(f"<{count}I", read(at, 4 * count))


def multiboot(read: Reader, at: int) -> Told:
    """The structure of Multiboot 1, by the offsets of its table in section 3.3."""
    flags = words(read, at, 1)[0]
    assert flags & ~(1 | 4 | 8 | 1 << 6 | 1 << 9) == 0
    lower, upper = words(read, at + 4, 2)
    (line,) = words(read, at + 16, 1)
    count, table = words(read, at + 20, 2)
    length, rows = words(read, at + 44, 2)
    (loader,) = words(read, at + 64, 1)
    modules = []
    for number in range(count if flags & 8 else 0):
        start, end, string, reserved = words(read, table + 16 * number, 4)
        assert reserved == 0
        modules.append((start, end, text(read, string)))
    memory = []
    row = rows
    while row < rows + length:
        (size,) = words(read, row, 1)
        memory.append(struct.unpack("<QQI", read(row + 4, 20)))
        row += 4 + size
    assert row == rows + length
    return Told(text(read, line), modules, memory, lower, upper, text(read, loader))


def multiboot2(read: Reader, at: int) -> Told:
    """The tags, each once but for modules."""
    total, reserved = words(read, at, 2)
    assert (at % 8, reserved) == (0, 0)
    found: dict[int, list[bytes]] = {}
    where = 8
    while True:
        kind, size = words(read, at + where, 2)
        found.setdefault(kind, []).append(read(at + where + 8, size - 8))
        where += (size + 7) // 8 * 8
        if kind == 0:
            break
    assert where == total
    assert set(found) <= {0, 1, 2, 3, 4, 6, 21}
    modules = [(*struct.unpack_from("<II", body), body[8:-1].decode()) for body in found.get(3, [])]
    assert struct.unpack_from("<II", found[6][0]) == (24, 0)
    memory = [row[:3] for row in struct.iter_unpack("<QQII", found[6][0][8:])]
    lower, upper = struct.unpack("<II", found[4][0])
    (load,) = struct.unpack("<I", found[21][0])
    line, loader = (found[kind][0][:-1].decode() for kind in (1, 2))
    return Told(line, modules, memory, lower, upper, loader, load)


def start_info(read: Reader, at: int) -> Told:
    """hvm_start_info, version 1."""
    magic, version, flags, count = words(read, at, 4)
    assert (magic, version, flags) == (0x336EC578, 1, 0)
    table, line, rsdp, rows = struct.unpack("<QQQQ", read(at + 16, 32))
    rows_count, reserved = words(read, at + 48, 2)
    assert reserved == 0
    modules = []
    for number in range(count):
        start, size, string, zero = struct.unpack("<QQQQ", read(table + 32 * number, 32))
        assert zero == 0
        modules.append((start, start + size, text(read, string)))
    memory = [row[:3] for row in struct.iter_unpack("<QQII", read(rows, 24 * rows_count))]
    return Told(text(read, line), modules, memory, rsdp=rsdp)
