"""Reading memory as the new kernel will: strings, lists, and what it makes of all of it.

Rules: what cannot be read is `Garbled`, with the reason as text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tightrope.memory import Extent, union
from tightrope.model import Memory

MOST = 1 << 16
"""Bytes of a string, and elements of a list, that are read before it is taken for endless."""
RAM = 1
"""The type of memory that may be used, in E820, Multiboot and PVH alike."""


class Garbled(Exception):
    """What lies there is not what a kernel could read; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a memory map: an extent and its type, a number of E820's."""

    extent: Extent
    type: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the new kernel makes of it."""

    line: bytes
    modules: tuple[Extent, ...]
    """The very bytes of the initrd, or of each module."""
    rows: tuple[Row, ...]

    @property
    def ram(self) -> tuple[Extent, ...]:
        """What it takes for its RAM, sorted and merged."""
        return of_type(self.rows, RAM)


def of_type(rows: Iterable[Row], kind: int) -> tuple[Extent, ...]:
    """The extents of one type, sorted and merged."""
    return union(row.extent for row in rows if row.type == kind)


def string(memory: Memory, at: int) -> bytes:
    """The bytes up to a zero.  Raises Garbled for one that does not end, MachineError outside
    memory."""
    out = b""
    while len(out) < MOST:
        page_end = (at + len(out) | 0xFFF) + 1
        data = bytes(memory.read(Extent(at + len(out), page_end)))
        text, zero, _ = data.partition(b"\0")
        out += text
        if zero:
            return out
    raise Garbled(f"the string at {at:#x} does not end")
