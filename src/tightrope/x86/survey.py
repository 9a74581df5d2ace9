"""Everything a tree of page tables maps, as one list.

Rules: where `walk` answers for one address, this answers for all: a check that says "and nothing
else" needs the whole list.  All tables of a level are one array, but for small trees: see `few`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import Extent
from tightrope.x86 import few
from tightrope.x86 import ladder as bits
from tightrope.x86.ladder import Ladder, Rung
from tightrope.x86.sweep import I64, U64, Tables, columns, joined, sweep
from tightrope.x86.walk import Mmu

ReadTable = Callable[[int], bytes | bytearray | memoryview | None]
"""Physical frame address -> its 4096 bytes, or None where no memory answers."""

_CR4_PGE = 0x80
_RW, _US, _XD, _G, _NONE = (np.uint64(each) for each in (bits.RW, bits.US, bits.XD, bits.G, 0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Mappings:
    """One element per present leaf entry, in the order of the linear addresses' tables.

    `virt` is sign-extended to 64 bits; `size` is bytes; `rights` has the bits that every entry on
    the way has, XD turned round, and `entry` is the leaf's; `lost` are table frames that are not in
    memory, which map nothing here.  `reserved` says that an entry has a reserved bit: it is listed
    as if it had not.
    """

    virt: U64
    phys: U64
    size: U64
    rights: U64
    entry: U64
    lost: tuple[int, ...]
    reserved: bool = False
    pge: bool = True
    """CR4.PGE: a page may be global."""

    # Worked out where somebody asks: most ask where a page leads, and no more.

    @property
    def writable(self) -> NDArray[np.bool_]:
        """R/W on the whole way."""
        out: NDArray[np.bool_] = self.rights & _RW != 0
        return out

    @property
    def user(self) -> NDArray[np.bool_]:
        """U/S on the whole way."""
        out: NDArray[np.bool_] = self.rights & _US != 0
        return out

    @property
    def executable(self) -> NDArray[np.bool_]:
        """No XD on the way."""
        out: NDArray[np.bool_] = self.rights & _XD != 0
        return out

    @property
    def is_global(self) -> NDArray[np.bool_]:
        """The leaf's G, where CR4.PGE lets it count."""
        out: NDArray[np.bool_] = self.entry & (_G if self.pge else _NONE) != 0
        return out

    def physical(self) -> tuple[Extent, ...]:
        """What can be reached, as sorted extents of physical addresses."""
        order = np.argsort(self.phys, kind="stable")
        starts = self.phys[order]
        # Pages may overlap, so an extent ends where the furthest page so far does.
        ends = np.maximum.accumulate(starts + self.size[order])
        cuts = np.nonzero(starts[1:] > ends[:-1])[0]
        firsts = starts[np.concatenate([[0], cuts + 1])] if len(starts) else starts
        lasts = ends[np.concatenate([cuts, [len(ends) - 1]])] if len(ends) else ends
        return tuple(
            Extent(start, end) for start, end in zip(firsts.tolist(), lasts.tolist(), strict=True)
        )


def survey(read: ReadTable, mmu: Mmu) -> Mappings:
    """All that the tables at `mmu.cr3` map."""
    ladder = mmu.ladder
    root = mmu.cr3 & ladder.root_mask
    found = few.look(read, ladder, root) or many(read, ladder, root)
    return Mappings(
        virt=found.virt,
        phys=found.phys,
        size=found.size,
        rights=found.rights,
        entry=found.entry,
        lost=tuple(found.lost),
        reserved=bool(found.reserved),
        pge=bool(mmu.cr4 & _CR4_PGE),
    )


def many(read: ReadTable, ladder: Ladder, root: int) -> few.Found:
    """A tree of any size, all tables of a level at once."""
    dtype = np.dtype(f"<u{ladder.entry_size}")
    lost: list[int] = []
    wrong = 0

    def entries(tables: Tables, rung: Rung) -> tuple[I64, I64, U64]:
        nonlocal wrong
        wrong |= (
            tables.above.in_table & int(np.bitwise_or.reduce(tables.entry)) if tables.above else 0
        )
        shift, places = rung.slots.bit_length(), tables.phys.tolist()
        pages = [read(each & ~0xFFF) for each in places]
        rows = [
            np.frombuffer(page, dtype, 1 << shift, at & 0xFFF)
            for page, at in zip(pages, places, strict=True)
            if page is not None
        ]
        words = np.concatenate(rows) if rows else np.zeros(0, dtype)
        present = (words & dtype.type(bits.P)).nonzero()[0]
        number, entry = present >> shift, words[present].astype(np.uint64)
        if len(rows) < len(pages):
            lost.extend(at for at, each in zip(places, pages, strict=True) if each is None)
            there = [n for n, each in enumerate(pages) if each is not None]
            number = np.array(there, np.int64)[number]
        return number, present & rung.slots, entry

    found = list(sweep(entries, ladder, root))
    for each in found:
        wrong |= each.rung.in_page & int(np.bitwise_or.reduce(each.entry))
    rights = joined(each.rights for each in found)
    entry = joined(each.entry for each in found)
    return few.Found(*columns(found, ladder), rights, entry, lost, wrong)
