"""What of the old kernel is not what it was, and what wrote it.

Rules: two things may differ and are left out: destinations, which the copy is there to overwrite,
and the control page, which is the walk's own where V is in the direct map.  What the handover laid
over the old kernel before the walk belongs to step 0; for the rest the machine's stores and copies
say when.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import PAGE_SIZE, Phys
from tightrope.model import Handover, Piece, Run, Step


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A piece of the old kernel of which `count` bytes differ, the first of them at `first`."""

    piece: Piece
    first: Phys
    count: int
    step: Step
    instruction: int
    """What wrote the first of them last; -1 where it was not seen, or happened before the walk."""


def changes(handover: Handover, run: Run) -> Iterator[Change]:
    """Every piece of the old kernel that differs after the run."""
    for piece in handover.world.pieces:
        now = run.memory.read(piece.extent)
        # As bytes: memoryview's own == looks at one element after the other.
        if bytes(now) == bytes(piece.data) or piece.phys == handover.intent.control_page:
            continue
        frames = np.arange(piece.extent.pages.start, piece.extent.pages.stop)
        if np.isin(frames, handover.intent.destinations).all():
            continue
        a, b = np.frombuffer(now, np.uint8), np.frombuffer(piece.data, np.uint8)
        differ = (a != b).nonzero()[0]
        first = Phys(piece.phys + int(differ[0]))
        if any(first & -PAGE_SIZE == laid.phys & -PAGE_SIZE for laid in handover.pieces):
            instruction, step = -1, Step.PREPARE
        else:
            instruction, step = _written(run, first)
        yield Change(
            piece=piece, first=first, count=len(differ), step=step, instruction=instruction
        )


def _written(run: Run, phys: int) -> tuple[int, Step]:
    """The last instruction that wrote a byte, and its step; -1 where no machine saw it."""
    last = -1
    for rows, column in ((run.stores, 2), (run.copies, 1)):
        at = rows[:, column]
        hit = rows[(at <= phys) & (phys < at + rows[:, 3])]
        if len(hit):
            last = max(last, int(hit[-1][0]))
    if last < 0:
        return -1, Step.COPY
    return last, Step(steps_of(run, np.array([last]))[0])


def steps_of(run: Run, instructions: NDArray[np.int64]) -> NDArray[np.int64]:
    """The step of the walk that each instruction belongs to, by its index."""
    starts = np.array([index for index, _ in run.step_starts], np.int64)
    steps = np.array([step for _, step in run.step_starts], np.int64)
    return steps[np.maximum(starts.searchsorted(instructions, side="right") - 1, 0)]
