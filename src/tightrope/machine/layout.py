"""A handover's bytes, laid into physical memory.

Rules: the old kernel's world and the handover's pieces go where they say; each segment goes into
its source frames, page by page as the plan has them.  Destinations that a copy has to fill are
poisoned first (xv6's habit), so that a page nobody copied cannot pass for zeros.  What a crash
kexec is to back up is filled with words that say where they are, and what is in that place later
can be compared.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent, align_up
from tightrope.model import ZERO_FRAME, Handover, Segment
from tightrope.observe.physical import Ram

POISON = 0x5A
BACKED_UP = np.uint32(0x6B61_4C6F)
"""Makes the words of low memory something that no address is."""

LARGE, PIECE = 64 << 20, 1 << 20
"""Bytes of a segment from which on it is looked through for zeros, and in which pieces."""


class Destinations(Enum):
    """What a copy finds where it is going to write."""

    POISONED = auto()
    """Bytes that are no new kernel's."""
    KEPT = auto()
    """What was there: a real old kernel still lives in it."""


def lay(handover: Handover, ram: Ram, before: Destinations = Destinations.POISONED) -> None:
    """Put everything into `ram`.  Raises MachineError for a piece outside it.

    `before` is what the copy finds in its destinations.
    """
    at = 0
    ram.laid += 1
    plan = handover.intent
    for each in plan.backup if before is Destinations.POISONED else ():
        words = np.arange(each.source.start, each.source.end, 4, dtype="<u4") ^ BACKED_UP
        ram.write(each.source.start, words.tobytes())
    for segment in handover.segments:
        pages = len(segment.destination.pages)
        lay_segment(
            segment,
            plan.destinations[at : at + pages],
            plan.sources[at : at + pages],
            ram,
            before,
        )
        at += pages
    for piece in (*handover.world.pieces, *handover.static, *handover.pieces):
        ram.write(piece.phys, piece.data)


def lay_segment(
    segment: Segment,
    destinations: NDArray[np.int64],
    sources: NDArray[np.int64],
    ram: Ram,
    before: Destinations = Destinations.POISONED,
) -> None:
    """One segment into its source frames: its data, then zeros, run by run of adjacent frames."""
    data = memoryview(segment.data)
    moved = destinations[sources != destinations]
    # What is cleared has no source; its data has ended by then.
    sources = sources[sources != ZERO_FRAME]
    for first, last in _runs(sources):
        start, end = int(sources[first]) << PAGE_SHIFT, int(sources[last - 1]) + 1 << PAGE_SHIFT
        part = data[first * PAGE_SIZE : last * PAGE_SIZE]
        behind = start + len(part)
        filled = align_up(behind, PAGE_SIZE)
        if len(part):
            _write(ram, start, part)
        if behind < filled:
            # Not given back: the next write would have to take the page anew.
            ram.write(behind, bytes(filled - behind))
        if filled < end:
            ram.zero(Extent(filled, end))
    for first, last in _runs(moved) if before is Destinations.POISONED else ():
        ram.write(int(moved[first]) << PAGE_SHIFT, bytes([POISON]) * ((last - first) * PAGE_SIZE))


def _write(ram: Ram, start: int, data: memoryview) -> None:
    """Put a segment's bytes; zeros, as a sparse file has them, take no memory."""
    if len(data) < LARGE:
        ram.write(start, data)
        return
    for at in range(0, len(data), PIECE):
        piece = data[at : at + PIECE]
        if len(piece) == PIECE and not np.frombuffer(piece, np.uint64).any():
            ram.zero(Extent.sized(start + at, PIECE))
        else:
            ram.write(start + at, piece)


def _runs(frames: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """[first, last) of the indices of adjacent frames."""
    if len(frames) == 1:
        return iter([(0, 1)])
    cuts = (frames[1:] - frames[:-1] != 1).nonzero()[0] + 1
    return pairwise([0, *cuts.tolist(), len(frames)] if len(frames) else [])
