"""Pages of many turns: an address a turn, with the lowest and the highest of them.

Rules: a column is made once for a term and shared by all copies that name it; what is true of its
bounds is not asked of each page.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import PAGE_SIZE

if TYPE_CHECKING:
    from tightrope.observe.physical import Ram

Places = NDArray[np.int64]
"""Addresses of whole pages."""


@dataclass(frozen=True, slots=True)
class Column:
    """Pages, turn by turn, all of them between `low` and `high`."""

    at: Places
    low: int
    high: int

    def moved(self, by: int) -> Column:
        """Each so many bytes further; the same column where that is nowhere."""
        return Column(self.at + by, self.low + by, self.high + by) if by else self

    def together(self, ram: Ram) -> Column:
        """As far as they are memory of one extent."""
        if ram.holds(self.low, self.high + PAGE_SIZE):
            return self
        return column(self.at[: ram.together(self.at)])


def column(at: Places) -> Column:
    """Pages with their bounds."""
    return Column(at, int(at.min()), int(at.max())) if len(at) else Column(at, 0, 0)
