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

_P, _RW, _US, _A, _PS, _G = 0x1, 0x2, 0x4, 0x20, 0x80, 0x100
_XD = np.uint64(1 << 63)
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
    # The tables of one level: address, linear base, rights so far (writable, user, executable).
    table = np.array([root], np.uint64)
    base = np.zeros(1, np.uint64)
    rights = np.ones((3, 1), np.bool_)
    nothing, never = np.zeros(0, np.uint64), np.zeros(0, np.bool_)
    columns: list[tuple[NDArray[np.generic], ...]] = [
        (nothing, nothing, nothing, never, never, never, never)
    ]
    lost: list[int] = []
    for low, bits, page in levels:
        raw = [read(each & ~0xFFF) for each in table.tolist()]
        there = np.array([each is not None for each in raw], np.bool_)
        if not there.all():
            lost += table[~there].tolist()
            table, base, rights = table[there], base[there], rights[:, there]
        rows = [
            np.frombuffer(each, dtype, count=1 << bits, offset=at & 0xFFF)
            for each, at in zip((r for r in raw if r is not None), table.tolist(), strict=True)
        ]
        if not rows:
            break
        number, index = np.nonzero(np.stack(rows) & dtype.type(_P))
        entry = np.stack(rows)[number, index].astype(np.uint64)
        virt = base[number] + (index.astype(np.uint64) << np.uint64(low))
        w, u, x = rights[:, number]
        if not (wide and not long_mode and low == 30):  # a PAE PDPTE has no rights (SDM 4.4.1)
            w = w & (entry & np.uint64(_RW) != 0)
            u = u & (entry & np.uint64(_US) != 0)
            x = x & (entry & _XD == 0)
        if low == 12:
            leaf = np.ones(len(entry), np.bool_)
        elif page and large_allowed:
            leaf = entry & np.uint64(_PS) != 0
        else:
            leaf = np.zeros(len(entry), np.bool_)
        frame = entry & frame_mask
        size = 1 << low
        if not wide and low == 22:
            high = (entry >> np.uint64(13) & np.uint64(0xFF)) << np.uint64(32)
            large = (entry & np.uint64(0xFFC0_0000)) | high
        else:
            large = frame & np.uint64((1 << 64) - size)
        columns.append(
            (
                virt[leaf],
                large[leaf],
                np.full(int(leaf.sum()), size, np.uint64),
                w[leaf],
                u[leaf],
                x[leaf],
                (entry[leaf] & np.uint64(_G) != 0) & bool(mmu.cr4 & _CR4_PGE),
            )
        )
        down = ~leaf
        table, base, rights = frame[down], virt[down], np.stack([w, u, x])[:, down]
    joined = [np.concatenate(column) for column in zip(*columns, strict=True)]
    if long_mode:
        top = np.uint64(56 if mmu.cr4 & 0x1000 else 47)
        sign = joined[0] >> top & np.uint64(1)
        joined[0] = np.where(
            sign == 1, joined[0] | ~((np.uint64(1) << top) - np.uint64(1)), joined[0]
        )
    return Mappings(
        virt=joined[0],
        phys=joined[1],
        size=joined[2],
        writable=joined[3],
        user=joined[4],
        executable=joined[5],
        is_global=joined[6],
        lost=tuple(lost),
    )
