"""Page tables in memory of our own, and mapping a whole extent at once.

Rules: `TableStore` is what the builder of `x86.paging` writes into; it holds whole 4 KiB tables as
numpy rows.  A mapping of many pages is one array assignment per table, never one call per page.
This file knows the builder, not the walker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import Extent, Phys
from tightrope.x86.paging import PRESENT, Format, Rights, leaf_bits, table_at

Entries = NDArray[np.unsignedinteger]


class TableStore:
    """Tables by frame address.  Frames come from `frames`, in order; RuntimeError when they run
    out."""

    def __init__(self, fmt: Format, frames: Callable[[], int]) -> None:
        self.format = fmt
        self._frames = frames
        self._dtype = np.dtype(f"<u{fmt.entry_size}")
        self._tables: dict[int, Entries] = {}
        self.root = Phys(self.new_table())

    def new_table(self) -> int:
        """A zeroed table: its physical address."""
        frame = self._frames()
        self._tables[frame] = np.zeros(self.format.entries, dtype=self._dtype)
        return frame

    def entry(self, table: int, index: int) -> int:
        """See `TableMemory`.  Raises KeyError for a frame that is not a table of this store."""
        return int(self._tables[table][index])

    def set_entry(self, table: int, index: int, value: int) -> None:
        """See `TableMemory`."""
        self._tables[table][index] = value

    def pages(self) -> dict[int, memoryview]:
        """Frame address -> 4096 bytes, read-only views."""
        return {frame: memoryview(rows.tobytes()) for frame, rows in self._tables.items()}

    def map_extent(
        self,
        virt: int,
        physical: Extent,
        rights: Rights,
        *,
        page_sizes: Sequence[int],
    ) -> None:
        """Map the pages of `physical` at linear `virt` on, each as large as fits wholly inside.

        `page_sizes` in bytes, largest first, the smallest 4096.  What is mapped already stays as it
        is when it says the same in pages of the same size, else ValueError.  ValueError too when
        `virt` or the extent is not page aligned, or an address does not fit the format.
        """
        fmt = self.format
        levels = [(size, fmt.level_of(size)) for size in page_sizes]
        at, end = physical.start, physical.end
        shift = virt - physical.start
        self._check_fit(virt, physical)
        while at < end:
            size, level = next(
                (size, level)
                for size, level in levels
                if at % size == 0 and (at + shift) % size == 0 and end - at >= size
            )
            table = table_at(self, fmt, self.root, at + shift, level, rights, self.new_table)
            first = fmt.index(at + shift, level)
            count = min(fmt.entries - first, (end - at) // size)
            leaf = at | leaf_bits(fmt, level, rights)
            values = np.arange(leaf, leaf + count * size, size, dtype=np.uint64)
            entries = values.astype(self._dtype, copy=False)
            row = self._tables[table][first : first + count]
            if row.any():
                present = row & np.asarray(PRESENT, row.dtype) != 0
                if (row[present] != entries[present]).any():
                    raise ValueError(f"map_extent: {at + shift:#x} is mapped otherwise already")
            row[:] = entries
            at += count * size

    def map_frames(self, virt: int, frames: NDArray[np.int64], rights: Rights) -> None:
        """Map 4 KiB pages at linear `virt` on, each to a frame of its own, in any order.

        What is mapped already is replaced.  ValueError as for `map_extent`.
        """
        fmt = self.format
        for frame in (frames.min(), frames.max()) if len(frames) else ():
            self._check_fit(virt, Extent.sized(int(frame) << 12, 4096))
        self._check_fit(virt, Extent.sized(0, len(frames) * 4096))
        values = frames.astype(np.uint64) << np.uint64(12)
        values |= np.uint64(leaf_bits(fmt, fmt.leaf, rights))
        entries = values.astype(self._dtype)
        at = 0
        while at < len(entries):
            here = virt + at * 4096
            table = table_at(self, fmt, self.root, here, fmt.leaf, rights, self.new_table)
            first = fmt.index(here, fmt.leaf)
            part = entries[at : at + fmt.entries - first]
            self._tables[table][first : first + len(part)] = part
            at += len(part)

    def _check_fit(self, virt: int, physical: Extent) -> None:
        """Nothing is truncated in silence: neither a frame address nor a linear one."""
        fmt = self.format
        if (virt | physical.start | physical.end) & 0xFFF:
            raise ValueError(f"map_extent: {virt:#x} or {physical} is not page aligned")
        if physical.size and (physical.end - 1) & ~(fmt.address.mask | 0xFFF):
            raise ValueError(f"map_extent: {physical} does not fit {fmt.name}'s entries")
        # The lower half or the upper one, which is sign-extended; of 32 bits there is one piece.
        wide = fmt.virtual_bits > 32
        half = 1 << fmt.virtual_bits - wide
        first = (1 << 64) - half if wide and virt >= half else 0
        if not first <= virt <= virt + physical.size <= first + half:
            raise ValueError(f"map_extent: {virt:#x} + {physical.size:#x} is not in one half")


def tables_bound(fmt: Format, extents: Sequence[Extent], leaf: int | None = None) -> int:
    """How many tables an identity map of these extents needs at the most, its root included.

    `leaf` is the level of the smallest pages, 4 KiB ones where it is None.
    """
    total = 1
    for above in range(fmt.leaf if leaf is None else leaf):
        shift = fmt.levels[above].index.lo
        last = -1
        for extent in sorted(extents):
            first = max(extent.start >> shift, last + 1)
            final = (extent.end - 1) >> shift
            if final >= first:
                total += final - first + 1
                last = final
    return total
