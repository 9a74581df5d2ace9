"""What has been seen may run unseen: a loader's program that goes round and round, at full speed.

A purgatory digests all that was loaded, with tens of instructions for each byte of a hundred
megabytes.  None of them is new after the first few thousand.  So the engine runs without a hook,
behind a fence:

    fetches   only instructions that this walk has executed already, and that are plain: arithmetic, moves,
              branches.  At any other address the engine stops before the instruction, and is
              watched again
    reads     what the tables map; each page is asked for once, and recorded
    writes    only into pages that were written already, or that low memory is saved in, and that hold no
              instruction

    seen ----------------- SETTLED without a new one ---> unseen ---- a new one, or the fence ---> seen ...

It is the same CPU on the same memory: nothing is put in the place of what the code does, and
nothing has to be believed of it (docs/proof.md, "What has been seen").

Rules: this file knows no engine; what it decides with is what the watch has recorded.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent, Virt
from tightrope.model import Stretch
from tightrope.observe.decode import Kind, Operation
from tightrope.observe.known_code import KnownCode
from tightrope.observe.settled import SETTLED
from tightrope.observe.watch import Watch
from tightrope.x86.walk import Access, Refused

PLAIN = (Kind.PLAIN, Kind.INDIRECT)
"""What changes nothing but registers, memory and where the CPU goes on."""
TURNS = 3
"""Turns of a loop that have to be alike."""


class Fence:
    """What a stretch that nobody watches may touch, and what it did."""

    def __init__(self, watch: Watch, code: KnownCode) -> None:
        self._mmu, self._step = watch.mmu, watch.steps.step
        self._program = watch.settled.program
        self._watch = watch
        self._code = code
        self._rip = watch.settled.rip
        self._fetched = {rip & -PAGE_SIZE for rip in watch.operations if rip in self._program}
        stores = np.array(watch.stores, np.int64).reshape(-1, 4)
        self._written = frozenset((stores[:, 2] >> PAGE_SHIFT).tolist()) | watch.settled.saves
        self._read: dict[int, None] = {}
        self._wrote: dict[int, None] = {}
        self.asked = 0
        """How many pages it asked for: a sign that it gets on."""

    @property
    def exits(self) -> list[int]:
        """Every address of its pages that no plain instruction, known from this walk, begins at."""
        known = {rip for rip, each in self._watch.operations.items() if _plain(each)}
        return [
            address
            for page in self._fetched
            for address in range(page, page + PAGE_SIZE)
            if address not in known
        ]

    def translation(self, page: int, access: Access) -> int | None:
        """The answer for a page; None ends the stretch before the instruction that asks."""
        if access is Access.FETCH and page not in self._fetched:
            return None
        got = self._mmu.translate(page, access, instruction=self._watch.index, step=self._step)
        if isinstance(got, Refused):
            return None
        frame = got >> PAGE_SHIFT
        if access is Access.WRITE:
            if frame not in self._written or frame in self._code.frames:
                return None
            self._wrote[frame] = None
        elif access is Access.READ:
            self._read[frame] = None
        self.asked += 1
        return got

    def stretch(self) -> Stretch:
        """What came of it."""
        reads = np.array(list(self._read), np.int64)
        return Stretch(
            instruction=self._watch.index,
            step=self._step,
            rip=Virt(self._rip),
            reads=reads,
            writes=np.array(list(self._wrote), np.int64),
            instructions=self._instructions(reads),
        )

    def _instructions(self, reads: NDArray[np.int64]) -> int:
        """By the last turn of the loop that was watched: its instructions for the bytes that it
        took in."""
        trace = np.array(self._watch.trace[-SETTLED:], np.uint64)
        loads = np.array(self._watch.loads, np.int64).reshape(-1, 4)
        mine = Extent(self._program.start >> PAGE_SHIFT, self._program.end >> PAGE_SHIFT)

        def taken(count: int) -> int:
            rows = loads[loads[:, 0] > self._watch.index - count]
            frames = rows[:, 2] >> PAGE_SHIFT
            return int(rows[(frames < mine.start) | (frames >= mine.end), 3].sum())

        turn = next((each for each in _turns(trace) if taken(each)), len(trace))
        outside = reads[(reads < mine.start) | (reads >= mine.end)]
        count = len(outside) * PAGE_SIZE - _done(loads, outside)
        return turn * count // max(taken(turn), 1)


def _done(loads: NDArray[np.int64], outside: NDArray[np.int64]) -> int:
    """Bytes of the first page that were taken in before the stretch began."""
    if not len(outside):
        return 0
    rows = loads[loads[:, 2] >> PAGE_SHIFT == outside[0]]
    return int(rows[-1, 2] + rows[-1, 3]) % PAGE_SIZE if len(rows) else 0


def _turns(trace: NDArray[np.uint64]) -> list[int]:
    """How many instructions a turn of the loop has, by a trace that ends in it; the shortest
    first."""
    again = len(trace) - 1 - np.nonzero(trace[:-1] == trace[-1])[0][::-1]
    return [
        int(each)
        for each in again
        if TURNS * each <= len(trace)
        and all(
            np.array_equal(trace[-each:], trace[-(turn + 1) * each : -turn * each])
            for turn in range(1, TURNS)
        )
    ]


def _plain(each: Operation) -> bool:
    return each.kind in PLAIN
