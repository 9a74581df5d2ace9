"""All pages under a root that has few tables, one table after the other.

Rules: as `x86.sweep`, by `x86.ladder`, with the same answers in the same order: a level's pages
come before those of the level below.  An array costs as much for one entry as for a thousand, and
most tables of a handover have one or two: those are looked at as numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightrope.x86 import ladder as bits
from tightrope.x86.ladder import Ladder, Rung
from tightrope.x86.sweep import U64, page_address

FEW = 16
"""Tables of a level, and entries of a table, that are sooner looked at one by one."""
_ALL = (1 << 64) - 1
_P, _PS, _XD = (np.uint64(each) for each in (bits.P, bits.PS, bits.XD))


class Found(NamedTuple):
    """A whole tree, an element for each page: see `survey.Mappings`, and `sweep.Pages`."""

    virt: U64
    phys: U64
    size: U64
    rights: U64
    entry: U64
    lost: list[int]
    """Tables that are not in memory."""
    reserved: int
    """The reserved bits that any entry has."""


class _Table(NamedTuple):
    at: int
    virt: int
    """The first linear address under it, sign-extended."""
    rights: int
    """The bits that every entry on the way to it has, XD turned round."""


def look(
    read: Callable[[int], bytes | bytearray | memoryview | None], ladder: Ladder, root: int
) -> Found | None:
    """The whole tree; None where a level has more than `FEW` tables.  `root` is masked already."""
    dtype = np.dtype(f"<u{ladder.entry_size}")
    pages = _Pages(ladder)
    lost: list[int] = []
    tables = [_Table(root, 0, _ALL)]
    for rung in ladder.rungs:
        below: list[_Table] = []
        for table in tables:
            page = read(table.at & ~0xFFF)
            if page is None:
                lost.append(table.at)
                continue
            words = np.frombuffer(page, dtype, rung.slots + 1, table.at & 0xFFF)
            slots = words.nonzero()[0]
            if len(slots) > FEW:
                pages.of_many(table, rung, slots, words[slots].astype(np.uint64), below)
            else:
                pages.of_few(table, rung, slots.tolist(), words[slots].tolist(), below)
        if len(below) > FEW:
            return None
        tables = below
    virt, phys, size, rights, entry = pages.columns()
    return Found(virt, phys, size, rights, entry, lost, pages.reserved)


class _Pages:
    """What is found on the way down."""

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder
        self.reserved = 0
        self._rows: list[tuple[int, int, int, int, int]] = []
        self._arrays: list[NDArray[np.uint64]] = []
        """Columns of the rows before: shape (5, pages)."""

    def of_few(
        self,
        table: _Table,
        rung: Rung,
        slots: list[int],
        entries: list[int],
        below: list[_Table],
    ) -> None:
        """A table's entries one by one; what leads to tables is put into `below`."""
        ladder, low = self._ladder, rung.low
        top = rung is ladder.rungs[0]
        sign = ladder.sign_bit if top else 0
        large = rung.page and ladder.large_pages
        for slot, entry in zip(slots, entries, strict=True):
            if not entry & bits.P:
                continue
            virt = table.virt + (slot << low)
            if sign and virt >> sign:
                virt |= _ALL & -(1 << sign)
            rights = table.rights
            if not (top and ladder.pae):  # a PAE PDPTE has no rights (SDM 4.4.1)
                rights &= entry ^ bits.XD
            if low == 12 or (large and entry & bits.PS):
                self.reserved |= entry & rung.in_page
                phys = _page_address(entry, low, ladder)
                self._rows.append((virt, phys, 1 << low, rights, entry))
            else:
                self.reserved |= entry & rung.in_table
                below.append(_Table(entry & ladder.frame_mask, virt, rights))

    def of_many(
        self, table: _Table, rung: Rung, slots: NDArray[np.intp], entry: U64, below: list[_Table]
    ) -> None:
        """The same, all pages at once."""
        leaf = entry & _P != 0
        if rung.low > 12:
            large = rung.page and self._ladder.large_pages
            leaf = leaf & (entry & _PS != 0) if large else np.zeros(len(entry), np.bool_)
            self.of_few(table, rung, slots[~leaf].tolist(), entry[~leaf].tolist(), below)
        slots, entry = slots[leaf], entry[leaf]
        if not len(entry):
            return
        self._settle()
        out = np.empty((5, len(entry)), np.uint64)
        out[0] = np.uint64(table.virt) + (slots << rung.low).view(np.uint64)
        out[1] = page_address(entry, rung, self._ladder)
        out[2] = 1 << rung.low
        out[3] = np.uint64(table.rights) & (entry ^ _XD)
        out[4] = entry
        self._arrays.append(out)
        self.reserved |= rung.in_page & int(np.bitwise_or.reduce(entry))

    def columns(self) -> NDArray[np.uint64]:
        """Everything, shape (5, pages)."""
        if self._rows or not self._arrays:
            self._settle()
        return self._arrays[0] if len(self._arrays) == 1 else np.concatenate(self._arrays, axis=1)

    def _settle(self) -> None:
        self._arrays.append(np.array(self._rows, np.uint64).reshape(-1, 5).T)
        self._rows = []


def _page_address(entry: int, low: int, ladder: Ladder) -> int:
    """As `sweep.page_address`, of one."""
    if ladder.entry_size == 4 and low > 12:
        # PSE-36: bits 20:13 of the entry are bits 39:32 of the address (SDM table 4-4).
        return entry & 0xFFC0_0000 | (entry >> 13 & 0xFF) << 32
    return entry & ladder.frame_mask & -(1 << low)
