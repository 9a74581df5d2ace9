"""All pages under a root, one level of tables after the other.

    tables of a level    present entries, with the table of each      pages out, tables below
    [t0 t1 t0 t2 ...] -> [e e e | e | e e e | e ...]               ->  [p p ...]   [t3 t4 ...]

Rules: as `x86.walk` does, this reads by `x86.ladder` and shares nothing with the builder.  How a
table's entries are had, and what becomes of a table that is not there, is its caller's:
`x86.survey` reads tables that we built, `vmcore.sweep` those of a kernel that died.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tightrope.x86 import ladder as bits
from tightrope.x86.ladder import Ladder, Rung

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
Wanted = NDArray[np.bool_] | slice
NONE: Wanted = slice(0)
EVERY: Wanted = slice(None)
_ALL, _XD, _PS = np.uint64((1 << 64) - 1), np.uint64(bits.XD), np.uint64(bits.PS)


class Tables(NamedTuple):
    """The tables of one level, an element for each entry that leads to one."""

    phys: U64
    virt: U64
    """The first linear address under the table, not sign-extended."""
    entry: U64
    """What leads to it; for the root its address."""
    above: Rung | None
    """The level of that entry, None for the root."""
    place: Callable[[], U64]
    """Where that entry lies; 0 for the root."""


class Pages(NamedTuple):
    """The pages that one level maps."""

    virt: U64
    phys: U64
    rights: U64
    """The bits that every entry on the way has, XD turned round: set where all are executable."""
    entry: U64
    rung: Rung

    @property
    def size(self) -> int:
        """Bytes of each."""
        return 1 << self.rung.low


Read = Callable[[Tables, Rung], tuple[I64, I64, U64]]
"""The present entries of tables, in their order: number of the table, index into it, value."""


def sweep(read: Read, ladder: Ladder, root: int) -> Iterator[Pages]:
    """Every level's pages, from the top; `root` is masked already."""
    zero, top = np.zeros(1, np.uint64), np.array([root], np.uint64)
    tables, allowed = Tables(top, zero, top, None, lambda: zero), np.full(1, _ALL)
    frame_mask = np.uint64(ladder.frame_mask)
    for rung in ladder.rungs:
        number, index, entry = read(tables, rung)
        virt = tables.virt[number] + (index << rung.low).view(np.uint64)
        rights = allowed[number]
        if not (ladder.pae and rung is ladder.rungs[0]):  # a PAE PDPTE has no rights (SDM 4.4.1)
            rights &= entry ^ _XD
        if rung.low > 12:
            # Where a level has no pages nothing is picked out, and nothing copied.
            leaf, down = NONE, EVERY
            if rung.page and ladder.large_pages:
                leaf = entry & _PS != 0
                down = ~leaf
            lead, place = entry[down], partial(_places, ladder, tables.phys, number, index, down)
            tables = Tables(lead & frame_mask, virt[down], lead, rung, place)
            allowed = rights[down]
            entry, virt, rights = entry[leaf], virt[leaf], rights[leaf]
        if len(entry):
            phys = page_address(entry, rung, ladder)
            yield Pages(virt, phys, rights, entry, rung)
        if not len(tables.phys):
            return


def _places(ladder: Ladder, tables: U64, number: I64, index: I64, wanted: Wanted) -> U64:
    """Where some entries lie."""
    offset = (index[wanted] * ladder.entry_size).view(np.uint64)
    return tables[number[wanted]] + offset


def reserved(entry: U64, rung: Rung, ladder: Ladder) -> NDArray[np.bool_]:
    """Which present entries of a level have reserved bits set."""
    wrong: NDArray[np.bool_] = entry & np.uint64(rung.in_table) != 0
    if rung.in_page != rung.in_table and ladder.large_pages:
        wrong |= (entry & _PS != 0) & (entry & np.uint64(rung.in_page) != 0)
    return wrong


def columns(found: Sequence[Pages], ladder: Ladder) -> tuple[U64, U64, U64]:
    """All pages as arrays: linear address, sign-extended, physical address, bytes."""
    sizes = [np.full(len(each.virt), each.size, np.uint64) for each in found]
    virt = joined(each.virt for each in found)
    return signed(virt, ladder), joined(each.phys for each in found), joined(sizes)


def joined(parts: Iterable[U64]) -> U64:
    """One array of many, maybe of none."""
    return np.concatenate([np.zeros(0, np.uint64), *parts])


def signed(virt: U64, ladder: Ladder) -> U64:
    """Linear addresses, the highest bit filling those above it."""
    if not ladder.sign_bit:
        return virt
    shift = np.int64(63 - ladder.sign_bit)
    return (virt.view(np.int64) << shift >> shift).view(np.uint64)


def page_address(entry: U64, rung: Rung, ladder: Ladder) -> U64:
    """Where the pages are that entries of a level map."""
    if ladder.entry_size == 4 and rung.low > 12:
        # PSE-36: bits 20:13 of the entry are bits 39:32 of the address (SDM table 4-4).
        high = (entry >> np.uint64(13) & np.uint64(0xFF)) << np.uint64(32)
        return (entry & np.uint64(0xFFC0_0000)) | high
    return entry & np.uint64(ladder.frame_mask & -(1 << rung.low))
