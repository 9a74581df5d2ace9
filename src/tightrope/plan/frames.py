"""Handing out the old kernel's free frames.

Rules: a pool only ever gives a frame once.  It starts from extents that are neither busy nor
anybody's destination, so every frame it gives keeps the source rule: a page that is a source is
either its own destination or nobody's.  Frames are numbers (address >> 12) in int64 arrays.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import PlanError
from tightrope.memory import PAGE_SHIFT, Extent, Phys, align_up, union

LARGE_FRAMES = 512
"""Frames of a 2 MiB page: runs that start at a multiple of it cost page_table_b one entry."""


class FramePool:
    """Free frames: the largest extents first, or all of them shuffled when `scatter` is a seed."""

    def __init__(
        self,
        extents: Iterable[Extent],
        *,
        scatter: int | None = None,
        whose: str = "the old kernel",
        where: str = "",
        field: str = "memory",
        source: str = "host",
    ) -> None:
        """`whose` frames these are, `where` they can only lie (" below ..."), and the host's
        `field` that has too few of them, for errors.

        `source` names the host.
        """
        self._whose, self._where, self._field, self._source = whose, where, field, source
        merged = union(extents)
        self._left = sum(extent.size for extent in merged) >> PAGE_SHIFT
        self._runs: list[tuple[int, int]] = []
        rest: list[tuple[int, int]] = []
        for extent in sorted(merged, key=lambda e: -e.size):
            first, end = extent.start >> PAGE_SHIFT, extent.end >> PAGE_SHIFT
            cut = min(align_up(first, LARGE_FRAMES), end)
            self._runs.append((cut, end))
            rest.append((first, cut))
        self._runs = [run for run in (*self._runs, *rest) if run[0] < run[1]]
        self._random = None if scatter is None else np.random.default_rng(scatter)
        self._given: NDArray[np.int64] = np.zeros(0, np.int64)

    def control_page(self) -> Phys:
        """One page, for the code that walks.  Raises PlanError."""
        return Phys(int(self.take(1, "the control page")[0]) << PAGE_SHIFT)

    def take(self, count: int, what: str) -> NDArray[np.int64]:
        """`count` frames for `what`.  Raises PlanError when not so many are free."""
        if count > self._left:
            raise PlanError(
                f"{what} needs {count} free pages, and {self._whose} can give {self._left}"
                f"{self._where}",
                source=self._source,
                field=self._field,
            )
        self._left -= count
        return self._shuffled(count) if self._random is not None else self._in_order(count)

    def _in_order(self, count: int) -> NDArray[np.int64]:
        parts = [np.zeros(0, np.int64)]
        while count:
            first, end = self._runs[0]
            size = min(count, end - first)
            parts.append(np.arange(first, first + size, dtype=np.int64))
            count -= size
            if first + size == end:
                self._runs.pop(0)
            else:
                self._runs[0] = (first + size, end)
        return np.concatenate(parts)

    def _shuffled(self, count: int) -> NDArray[np.int64]:
        """Any free frame with equal chance, as an allocator that has run for months would."""
        assert self._random is not None
        firsts = np.array([first for first, _ in self._runs], np.int64)
        sizes = np.array([end - first for first, end in self._runs], np.int64)
        ends = np.cumsum(sizes)
        total = int(ends[-1]) if len(ends) else 0
        got = np.zeros(0, np.int64)
        while len(got) < count:
            if total <= 4 * (len(self._given) + count):
                # Nearly full: draw from what is left instead of drawing until a hit.
                every = np.concatenate(
                    [np.arange(first, end, dtype=np.int64) for first, end in self._runs]
                )
                left = np.setdiff1d(every, self._given, assume_unique=True)
                got = self._random.permutation(left)[:count]
                break
            draw = self._random.integers(0, total, size=2 * count, dtype=np.int64)
            run = np.searchsorted(ends, draw, side="right")
            frames = firsts[run] + draw - (ends[run] - sizes[run])
            fresh = frames[~np.isin(frames, self._given) & ~np.isin(frames, got)]
            _, order = np.unique(fresh, return_index=True)
            got = np.concatenate([got, fresh[np.sort(order)]])[:count]
        self._given = np.concatenate([self._given, got])
        return got
