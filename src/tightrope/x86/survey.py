"""Everything a tree of page tables maps, read in one sweep.

Rules: like `x86.walk` this reads from the manual's side and shares no constant with the builder.
Where `walk` answers for one address, this answers for all: a check that says "and nothing else"
needs the whole list.  One array operation per table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import Extent, union
from tightrope.x86.walk import Mmu

ReadTable = Callable[[int], bytes | bytearray | memoryview | None]
"""Physical frame address -> its 4096 bytes, or None where no memory answers."""

_P, _RW, _US, _A, _PS, _G = 0x1, 0x2, 0x4, 0x20, 0x80, 0x100
_XD = np.uint64(1 << 63)

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
        starts = self.phys.tolist()
        return union(
            Extent.sized(start, size)
            for start, size in zip(starts, self.size.tolist(), strict=True)
        )


def survey(read: ReadTable, mmu: Mmu) -> Mappings:
    """All that the tables at `mmu.cr3` map.  Entries with reserved bits are not told apart here."""
    long_mode = bool(mmu.efer & 0x400)
    wide = long_mode or bool(mmu.cr4 & 0x20)
    levels = _LEGACY if not wide else _PAE if not long_mode else _LONG
    if long_mode and not mmu.cr4 & 0x1000:
        levels = _LONG[1:]
    frame_mask = np.uint64((1 << mmu.physical_bits) - 1 & ~0xFFF if wide else 0xFFFF_F000)
    dtype = "<u8" if wide else "<u4"
    large_allowed = wide or bool(mmu.cr4 & 0x10)
    root = mmu.cr3 & (0xFFFF_FFE0 if wide and not long_mode else int(frame_mask))
    # A frontier element: table address, linear base, rights so far (writable, user, executable).
    frontier = [(root, 0, True, True, True)]
    nothing, never = np.zeros(0, np.uint64), np.zeros(0, np.bool_)
    columns: list[tuple[NDArray[np.generic], ...]] = [
        (nothing, nothing, nothing, never, never, never, never)
    ]
    lost: list[int] = []
    for number, (low, bits, page) in enumerate(levels):
        below: list[tuple[int, int, bool, bool, bool]] = []
        rights = wide and not long_mode and number == 0
        for table, base, writable, user, executable in frontier:
            raw = read(table & ~0xFFF)
            if raw is None:
                lost.append(table)
                continue
            rows = np.frombuffer(raw, dtype=dtype, offset=table & 0xFFF, count=1 << bits)
            index = np.nonzero(rows & rows.dtype.type(_P))[0]
            entry = rows[index].astype(np.uint64)
            virt = np.uint64(base) + (index.astype(np.uint64) << np.uint64(low))
            w = (entry & np.uint64(_RW) != 0) & writable if not rights else entry != 0
            u = (entry & np.uint64(_US) != 0) & user if not rights else entry != 0
            x = (entry & _XD == 0) & executable
            if low == 12:
                leaf = entry != 0
            elif page and large_allowed:
                leaf = entry & np.uint64(_PS) != 0
            else:
                leaf = entry == 0
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
                    entry[leaf] & np.uint64(_G) != 0,
                )
            )
            down = ~leaf
            below += zip(
                frame[down].tolist(),
                virt[down].tolist(),
                w[down].tolist(),
                u[down].tolist(),
                x[down].tolist(),
                strict=True,
            )
        frontier = below
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
