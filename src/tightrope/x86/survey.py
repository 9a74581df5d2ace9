"""Everything a tree of page tables maps, read in one sweep.

Rules: like `x86.walk` this reads from the manual's side and shares no constant with the builder.
Where `walk` answers for one address, this answers for all: a check that says "and nothing else"
needs the whole list.  All tables of a level are one array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import Extent
from tightrope.x86.walk import Mmu

ReadTable = Callable[[int], bytes | bytearray | memoryview | None]
"""Physical frame address -> its 4096 bytes, or None where no memory answers."""

_P, _RW, _US, _PS, _G = 0x1, 0x2, 0x4, 0x80, 0x100
_XD, _ALL = np.uint64(1 << 63), np.uint64((1 << 64) - 1)
_CR4_PGE = 0x80

_Levels = tuple[tuple[int, int, bool], ...]
_LONG: _Levels = ((48, 9, False), (39, 9, False), (30, 9, True), (21, 9, True), (12, 9, True))
_PAE: _Levels = ((30, 2, False), (21, 9, True), (12, 9, True))
_LEGACY: _Levels = ((22, 10, True), (12, 10, True))


@dataclass(frozen=True, kw_only=True, slots=True)
class Mappings:
    """One element per present leaf entry, in the order of the linear addresses' tables.

    `virt` is sign-extended to 64 bits; `size` is bytes; `lost` are table frames that are not in
    memory, which map nothing here.
    """

    virt: NDArray[np.uint64]
    phys: NDArray[np.uint64]
    size: NDArray[np.uint64]
    writable: NDArray[np.bool_]
    user: NDArray[np.bool_]
    executable: NDArray[np.bool_]
    is_global: NDArray[np.bool_]
    lost: tuple[int, ...]

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
    """All that the tables at `mmu.cr3` map.  Entries with reserved bits are not told apart here."""
    long_mode = bool(mmu.efer & 0x400)
    wide = long_mode or bool(mmu.cr4 & 0x20)
    levels = _LEGACY if not wide else _PAE if not long_mode else _LONG
    if long_mode and not mmu.cr4 & 0x1000:
        levels = _LONG[1:]
    frame_mask = np.uint64((1 << mmu.physical_bits) - 1 & ~0xFFF if wide else 0xFFFF_F000)
    dtype = np.dtype("<u8" if wide else "<u4")
    large_allowed = wide or bool(mmu.cr4 & 0x10)
    root = mmu.cr3 & (0xFFFF_FFE0 if wide and not long_mode else int(frame_mask))
    # The tables of one level: address, linear base, and the bits that every entry on the way has.  XD
    # is turned round, so that each of the three rights is a bit that all entries must have.
    table = np.array([root], np.uint64)
    base = np.zeros(1, np.uint64)
    allowed = np.full(1, _ALL, np.uint64)
    # The pages: linear address, physical address, size, rights and the entry itself.
    columns: list[tuple[NDArray[np.uint64], ...]] = [(np.zeros(0, np.uint64),) * 5]
    lost: list[int] = []
    for low, bits, page in levels:
        raw = [read(each & ~0xFFF) for each in table.tolist()]
        if None in raw:
            there = np.array([each is not None for each in raw], np.bool_)
            lost += table[~there].tolist()
            table, base, allowed = table[there], base[there], allowed[there]
        rows = [
            np.frombuffer(each, dtype, count=1 << bits, offset=at & 0xFFF)
            for each, at in zip((r for r in raw if r is not None), table.tolist(), strict=True)
        ]
        if not rows:
            break
        entries = np.concatenate(rows)
        present = (entries & dtype.type(_P)).nonzero()[0]
        number, index = present >> bits, present & (1 << bits) - 1
        entry = entries[present].astype(np.uint64)
        virt = base[number] + (index.astype(np.uint64) << np.uint64(low))
        rights = allowed[number]
        if not (wide and not long_mode and low == 30):  # a PAE PDPTE has no rights (SDM 4.4.1)
            rights &= entry ^ _XD
        if low > 12:
            leaf = entry & np.uint64(_PS if page and large_allowed else 0) != 0
            down = ~leaf
            table, base, allowed = entry[down] & frame_mask, virt[down], rights[down]
            entry, virt, rights = entry[leaf], virt[leaf], rights[leaf]
        if not len(entry):
            continue
        size = 1 << low
        if not wide and low == 22:
            high = (entry >> np.uint64(13) & np.uint64(0xFF)) << np.uint64(32)
            phys = (entry & np.uint64(0xFFC0_0000)) | high
        else:
            phys = entry & frame_mask & np.uint64((1 << 64) - size)
        columns.append((virt, phys, np.full(len(entry), size, np.uint64), rights, entry))
    virt, phys, sizes, rights, entry = (np.concatenate(each) for each in zip(*columns, strict=True))
    if long_mode:
        top = np.uint64(56 if mmu.cr4 & 0x1000 else 47)
        negative = (virt >> top & np.uint64(1)).astype(np.bool_)
        virt[negative] |= ~((np.uint64(1) << top) - np.uint64(1))
    return Mappings(
        virt=virt,
        phys=phys,
        size=sizes,
        writable=rights & np.uint64(_RW) != 0,
        user=rights & np.uint64(_US) != 0,
        executable=rights & _XD != 0,
        is_global=entry & np.uint64(_G if mmu.cr4 & _CR4_PGE else 0) != 0,
        lost=tuple(lost),
    )
