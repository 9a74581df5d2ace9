"""In which pages of table the entries of a range lie: `PT 1, PD 1 to 3`.

    linear     0 .......... 2 MiB ............. 1 GiB ............. 2 GiB
    entries    [ 4 KiB: PT 1 ][ 2 MiB: PD 1     ][ 2 MiB: PD 2       ]

Rules: the tables of a level are counted from 1 in the order of the linear addresses that they map;
one that maps nothing is not counted, and one that is reached from two places is counted twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.x86.ladder import Ladder


@dataclass(frozen=True, kw_only=True, slots=True)
class Lying:
    """Entries in the tables `first` to `last` of a level."""

    level: str
    """As the manual has it: `PDPT`, `PD`, `PT`."""
    first: int
    last: int

    def __str__(self) -> str:
        """`PD 3`, or `PD 3 to 5`."""
        only = f"{self.level} {self.first}"
        return only if self.first == self.last else f"{only} to {self.last}"


class Entries:
    """Where each entry of a tree lies that maps a page: `virt` sorted, `size` in bytes."""

    def __init__(self, virt: NDArray[np.uint64], size: NDArray[np.uint64], ladder: Ladder) -> None:
        """Number the tables of each level."""
        self._virt, self._names = virt, [rung.name for rung in ladder.rungs]
        self._level = np.zeros(len(virt), np.int64)
        self._number = np.zeros(len(virt), np.int64)
        for at, rung in enumerate(ladder.rungs):
            page = np.uint64(1 << rung.low)
            below = size <= page  # what a table of this level, or one beneath it, maps
            table = virt[below] >> np.uint64(rung.low + rung.slots.bit_length())
            number = np.cumsum(np.concatenate([[True], table[1:] != table[:-1]]))[: len(table)]
            here = size[below] == page
            self._number[size == page] = number[here]
            self._level[size == page] = at

    def within(self, virt: int, size: int) -> tuple[Lying, ...]:
        """Of the pages in [virt, virt + size), by level, the first that is met first."""
        start = np.searchsorted(self._virt, np.uint64(virt))
        end = np.searchsorted(self._virt, np.uint64(virt + size - 1), side="right")
        levels, numbers = self._level[start:end], self._number[start:end]
        met = dict.fromkeys(levels.tolist())
        return tuple(
            Lying(
                level=self._names[at],
                first=int(numbers[levels == at].min()),
                last=int(numbers[levels == at].max()),
            )
            for at in met
        )
