"""Physical memory of a rehearsed machine.

Rules: one anonymous MAP_NORESERVE mapping per RAM extent, so that 6 TiB cost only what is touched;
engines map the same bytes, nobody copies.  What is in no extent is a hole: reads give None.
This file knows no engine and no handover.
"""

from __future__ import annotations

import ctypes
import mmap
from bisect import bisect_right
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import MachineError
from tightrope.memory import NUMBER, PAGE_SHIFT, PAGE_SIZE, Extent, MemoryMap, union
from tightrope.model import Buffer, Named

MAP_NORESERVE = 0x4000
"""Linux x86 asm/mman.h; Python's mmap module names it from 3.13 on."""


PAGEMAP = "/proc/self/pagemap"
IN_USE = 3 << 62
"""Bits 63 and 62 of a pagemap entry: present, swapped (Linux
Documentation/admin-guide/mm/pagemap.rst)."""
QUICKER = 16 * PAGE_SIZE
"""Bytes that are read in less time than it takes to ask whether they hold something."""


def backed(memory: MemoryMap, firmware: Iterable[Named]) -> tuple[Extent, ...]:
    """The pages that hold something: RAM, ACPI, and the firmware areas that the host lists."""
    named = [each.extent for each in firmware]
    return union(each.page_aligned() for each in (*memory.readable, *named))


class Ram:
    """The bytes of some extents of whole pages.  Raises MachineError when the machine has too
    little."""

    laid = 0
    """How many handovers were laid into it; what an earlier one left is not the last one's."""

    def __init__(self, extents: tuple[Extent, ...]) -> None:
        self._index(extents)
        self._maps: list[mmap.mmap] = []
        self._views: list[memoryview] = []
        for extent in extents:
            try:
                block = mmap.mmap(
                    -1,
                    extent.size,
                    flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE,
                )
            except (OSError, ValueError, OverflowError) as err:
                raise MachineError(f"no address space for {extent} of RAM: {err}") from err
            self._maps.append(block)
            self._views.append(memoryview(block))

    def _index(self, extents: tuple[Extent, ...]) -> None:
        """Where each extent begins and ends, for those who look an address up."""
        self.extents = extents
        self._starts = [each.start for each in extents]
        self._ends = [each.end for each in extents]

    def address_in_process(self, number: int) -> int:
        """Where extent `number` lies in this process, for an engine to map."""
        return ctypes.addressof(ctypes.c_char.from_buffer(self._maps[number]))

    def view(self, phys: int, size: int) -> memoryview | None:
        """`size` writable bytes at a physical address, or None where they are not all in one
        extent."""
        at = bisect_right(self._starts, phys) - 1
        if at < 0 or phys + size > self._ends[at]:
            return None
        start = phys - self._starts[at]
        return self._views[at][start : start + size]

    def holds(self, first: int, end: int) -> bool:
        """Whether all bytes between two physical addresses are memory of one extent."""
        at = bisect_right(self._starts, first) - 1
        return at >= 0 and end <= self._ends[at]

    def together(self, pages: NDArray[np.int64]) -> int:
        """How many pages, of those one after the other in `pages`, are memory of one extent."""
        at = bisect_right(self._starts, int(pages[0])) - 1 if len(pages) else -1
        if at < 0:
            return 0
        good = (pages >= self._starts[at]) & (pages + PAGE_SIZE <= self._ends[at])
        return len(good) if good.all() else int(np.argmin(good))

    def word(self, phys: int, size: int) -> int | None:
        """A little-endian number, or None in a hole: what a page walk reads."""
        at = bisect_right(self._starts, phys) - 1
        if at < 0 or phys + size > self._ends[at]:
            return None
        value: int = NUMBER[size](self._views[at], phys - self._starts[at])[0]
        return value

    def read(self, extent: Extent) -> memoryview:
        """See `model.Memory`."""
        view = self.view(extent.start, extent.size)
        if view is None:
            raise MachineError(f"{extent} is not memory of this machine")
        return view.toreadonly()

    def write(self, phys: int, data: Buffer) -> None:
        """Put bytes.  Raises MachineError in a hole."""
        at = bisect_right(self._starts, phys) - 1
        size = len(data)
        if at < 0 or phys + size > self._ends[at]:
            raise MachineError(f"{Extent.sized(phys, size)} is not memory of this machine")
        start = phys - self._starts[at]
        self._views[at][start : start + size] = data

    def written(self) -> frozenset[int] | None:
        """See `model.Memory`."""
        return self.in_use() if self.laid < 2 else None

    def in_use(self) -> frozenset[int]:
        """Numbers of the frames that hold something; all others read as zeros (proc(5), pagemap).

        Without a pagemap to look at, every frame is named.
        """
        out: set[int] = set()
        for number, extent in enumerate(self.extents):
            used = self._used(number, 0, extent.size // PAGE_SIZE)
            out.update((used + extent.start // PAGE_SIZE).tolist())
        return frozenset(out)

    def held(self, extent: Extent) -> tuple[Extent, ...]:
        """See `model.Memory`."""
        at = bisect_right(self._starts, extent.start) - 1
        if extent.size <= QUICKER or at < 0 or extent.end > self._ends[at]:
            return (extent,)
        first = (extent.start - self._starts[at]) // PAGE_SIZE
        frames = self._used(at, first, len(extent.pages)) + self._starts[at] // PAGE_SIZE
        cuts = np.nonzero(np.diff(frames) != 1)[0] + 1
        runs = np.split(frames, cuts) if len(frames) else []
        return tuple(
            Extent(
                max(extent.start, int(run[0]) << PAGE_SHIFT),
                min(extent.end, int(run[-1]) + 1 << PAGE_SHIFT),
            )
            for run in runs
        )

    def _used(self, number: int, first: int, count: int) -> NDArray[np.intp]:
        """Which of `count` pages of an extent hold something, from its page `first` on."""
        try:
            with open(PAGEMAP, "rb", buffering=0) as pagemap:
                pagemap.seek(8 * (self.address_in_process(number) // PAGE_SIZE + first))
                entries = np.frombuffer(pagemap.read(8 * count), "<u8")
        except OSError:
            entries = np.full(count, IN_USE, np.uint64)
        return np.nonzero(entries & np.uint64(IN_USE))[0] + first

    def clear(self) -> None:
        """Make all of it read as zeros, giving back what it held."""
        self.laid = 0
        for extent in self.extents:
            self.zero(extent)

    def zero(self, extent: Extent) -> None:
        """Make whole pages read as zeros, giving back what they held."""
        at = bisect_right(self._starts, extent.start) - 1
        if at < 0 or not self.extents[at].covers(extent) or extent.start % PAGE_SIZE:
            raise MachineError(f"{extent} is not whole pages of this machine")
        if extent.size:
            start = extent.start - self._starts[at]
            self._give_back(at, start, extent.size)

    def _give_back(self, number: int, start: int, size: int) -> None:
        """Make bytes of one extent read as zeros, `start` bytes from its beginning."""
        self._maps[number].madvise(mmap.MADV_DONTNEED, start, size)
