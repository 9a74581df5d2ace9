"""All pages under a root that has few tables.

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
"""Tables of a level, and entries of a level, that are sooner looked at one by one."""
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
    pages = _Pages(ladder)
    tables = [_Table(root, 0, _ALL)]
    for rung in ladder.rungs:
        tables = pages.of_level(read, rung, tables)
        if len(tables) > FEW:
            return None
        if not tables:
            break
    virt, phys, size, rights, entry = pages.columns()
    return Found(virt, phys, size, rights, entry, pages.lost, pages.reserved)


class _Pages:
    """What is found on the way down."""

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder
        self._dtype = np.dtype(f"<u{ladder.entry_size}")
        self.lost: list[int] = []
        self.reserved = 0
        self._rows: list[tuple[int, int, int, int, int]] = []
        self._arrays: list[NDArray[np.uint64]] = []
        """Columns of the rows before: shape (5, pages)."""

    def of_level(
        self,
        read: Callable[[int], bytes | bytearray | memoryview | None],
        rung: Rung,
        tables: list[_Table],
    ) -> list[_Table]:
        """The entries of all tables of a level; the tables below them."""
        held, there = [], []
        for table in tables:
            page = read(table.at & ~0xFFF)
            if page is None:
                self.lost.append(table.at)
            else:
                held.append(page)
                there.append(table)
        if not there:
            return []
        if len(there) == 1:
            words = np.frombuffer(held[0], self._dtype, rung.slots + 1, there[0].at & 0xFFF)
        else:  # below the root, where every table is a page
            words = np.frombuffer(b"".join(held), self._dtype)
        places = words.nonzero()[0]
        if len(places) <= FEW:
            return self._few(rung, there, places.tolist(), words[places].tolist())
        return self._many(rung, there, places, words[places].astype(np.uint64))

    def _few(
        self, rung: Rung, tables: list[_Table], places: list[int], entries: list[int]
    ) -> list[_Table]:
        """Entries one by one: a place is an index into all tables of the level."""
        ladder, low, mask = self._ladder, rung.low, rung.slots
        shift = mask.bit_length()
        top = rung is ladder.rungs[0]
        sign = ladder.sign_bit if top else 0
        large = rung.page and ladder.large_pages
        below: list[_Table] = []
        for place, entry in zip(places, entries, strict=True):
            if not entry & bits.P:
                continue
            _, virt, rights = tables[place >> shift]
            virt += (place & mask) << low
            if sign and virt >> sign:
                virt |= _ALL & -(1 << sign)
            if not (top and ladder.pae):  # a PAE PDPTE has no rights (SDM 4.4.1)
                rights &= entry ^ bits.XD
            if low == 12 or (large and entry & bits.PS):
                self.reserved |= entry & rung.in_page
                phys = _page_address(entry, low, ladder)
                self._rows.append((virt, phys, 1 << low, rights, entry))
            else:
                self.reserved |= entry & rung.in_table
                below.append(_Table(entry & ladder.frame_mask, virt, rights))
        return below

    def _many(
        self, rung: Rung, tables: list[_Table], places: NDArray[np.intp], entry: U64
    ) -> list[_Table]:
        """The same, all pages at once."""
        ladder, below = self._ladder, []
        leaf = entry & _P != 0
        if rung.low > 12:
            large = rung.page and ladder.large_pages
            leaf = leaf & (entry & _PS != 0) if large else np.zeros(len(entry), np.bool_)
            lead = ~leaf
            below = self._few(rung, tables, places[lead].tolist(), entry[lead].tolist())
        if not leaf.all():
            places, entry = places[leaf], entry[leaf]
            if not len(entry):
                return below
        virt: U64 | np.uint64 = np.uint64(tables[0].virt)
        rights: U64 | np.uint64 = np.uint64(tables[0].rights)
        if len(tables) > 1:
            number = places >> rung.slots.bit_length()
            places = places & rung.slots
            virt, rights = np.array([each[1:] for each in tables], np.uint64).T[:, number]
        self._settle()
        out = np.empty((5, len(entry)), np.uint64)
        np.add(virt, (places << rung.low).view(np.uint64), out[0])
        out[1] = page_address(entry, rung, ladder)
        out[2] = 1 << rung.low
        np.bitwise_and(rights, entry ^ _XD, out[3])
        out[4] = entry
        self._arrays.append(out)
        self.reserved |= rung.in_page & int(np.bitwise_or.reduce(entry))
        return below

    def columns(self) -> NDArray[np.uint64]:
        """Everything, shape (5, pages)."""
        self._settle()
        if not self._arrays:
            return np.empty((5, 0), np.uint64)
        return self._arrays[0] if len(self._arrays) == 1 else np.concatenate(self._arrays, axis=1)

    def _settle(self) -> None:
        if self._rows:
            self._arrays.append(np.array(self._rows, np.uint64).T)
            self._rows = []


def _page_address(entry: int, low: int, ladder: Ladder) -> int:
    """As `sweep.page_address`, of one."""
    if ladder.entry_size == 4 and low > 12:
        # PSE-36: bits 20:13 of the entry are bits 39:32 of the address (SDM table 4-4).
        return entry & 0xFFC0_0000 | (entry >> 13 & 0xFF) << 32
    return entry & ladder.frame_mask & -(1 << low)
