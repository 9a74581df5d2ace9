"""Mappings that go on where the one before them ends, as one range each.

    pages     [v0->p0 rw][v1->p1 rw][v2->p2 ro]        p1 = p0 + size of the first
    runs      [v0 ............... rw][v2 ... ro]

Rules: whole arrays, sorted by linear address; a run says nothing of page sizes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.x86.sweep import U64


@dataclass(frozen=True, slots=True)
class Runs:
    """One element a run; `last` is the last linear address, so that 2**64 need not fit."""

    virt: U64
    last: U64
    phys: U64
    rights: NDArray[np.uint8]


def runs(virt: U64, phys: U64, size: U64, rights: NDArray[np.uint8]) -> Runs:
    """Mappings sorted by `virt`, sizes in bytes; `rights` are the caller's own bits."""
    if not len(virt):
        return Runs(virt, virt, phys, rights)
    breaks = (
        (virt[1:] != virt[:-1] + size[:-1])
        | (phys[1:] != phys[:-1] + size[:-1])
        | (rights[1:] != rights[:-1])
    )
    cuts = np.nonzero(breaks)[0]
    first = np.concatenate([[0], cuts + 1])
    final = np.concatenate([cuts, [len(virt) - 1]])
    last = virt[final] + (size[final] - np.uint64(1))
    return Runs(virt[first], last, phys[first], rights[first])
