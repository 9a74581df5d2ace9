"""Pseudo-physical to machine and back: the one place where the two kinds of address meet.

    dom0's frame       0    1    2    3    4   ...        what Linux calls physical
                       |    |         |    |
    machine frame    0x9f 0x13ac12  0x4b 0x77d1           what the CPU calls physical; frame 2 is a hole

Rules: frames are numbers (address >> 12) in int64 arrays; `HOLE` stands for none.  A translation is
asked for by kind and answered by kind, and one that does not exist raises: nothing is guessed.
Whole arrays are translated at once.

May import: errors, memory
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import HostError
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent, Machine, Phys, PseudoPhys

Frames = NDArray[np.int64]
HOLE = -1
LISTED = 1 << 22
"""Machine frames that may be listed one by one: 16 GiB of memory, 32 MiB of numbers."""


@dataclass(frozen=True, eq=False)
class P2m:
    """A domain's table: element n is the machine frame of its frame n, or HOLE.

    Raises HostError for a machine frame that two frames share, or one that is negative and no hole;
    `source` names the description.
    """

    frames: Frames
    source: str = "p2m"

    def __post_init__(self) -> None:
        frames = self.frames
        wrong = np.nonzero(frames < HOLE)[0]
        if len(wrong):
            raise HostError(
                f"frame {int(wrong[0]):#x} has {int(frames[wrong[0]])}, which is not a frame",
                source=self.source,
                field="p2m",
            )
        owned = np.nonzero(frames >= 0)[0]
        ordered = np.sort(frames[owned])
        if not (ordered[1:] == ordered[:-1]).any():
            return
        order = owned[np.argsort(frames[owned], kind="stable")]
        same = np.nonzero(frames[order[1:]] == frames[order[:-1]])[0]
        one, other = int(order[same[0]]), int(order[same[0] + 1])
        raise HostError(
            f"machine frame {int(frames[one]):#x} belongs to the pseudo-physical frames"
            f" {one:#x} and {other:#x}",
            source=self.source,
            field="p2m",
        )

    @cached_property
    def _by_machine(self) -> tuple[Frames, Frames]:
        """The machine frames in order, and the domain's frame of each."""
        owned = np.nonzero(self.frames >= 0)[0].astype(np.int64)
        order = np.argsort(self.frames[owned], kind="stable")
        return self.frames[owned][order], owned[order]

    @property
    def owned(self) -> Frames:
        """The machine frames that the domain has, in ascending order."""
        return self._by_machine[0]

    def to_machine(self, frames: Frames) -> Frames:
        """The machine frame of each pseudo-physical one; HOLE where there is none."""
        inside = (frames >= 0) & (frames < len(self.frames))
        out = np.full(len(frames), HOLE, np.int64)
        out[inside] = self.frames[frames[inside]]
        return out

    def to_pseudo(self, frames: Frames) -> Frames:
        """The pseudo-physical frame of each machine one; HOLE where it is not the domain's."""
        machine, pseudo = self._by_machine
        out = np.full(len(frames), HOLE, np.int64)
        if len(machine):
            at = np.minimum(np.searchsorted(machine, frames), len(machine) - 1)
            mine = machine[at] == frames
            out[mine] = pseudo[at[mine]]
        return out

    def machine(self, address: PseudoPhys, what: str = "an address") -> Machine:
        """The machine address of one byte.  Raises HostError, naming `what`, in a hole."""
        [frame] = self.to_machine(np.array([address >> PAGE_SHIFT], np.int64)).tolist()
        if frame == HOLE:
            raise HostError(
                f"pseudo-physical {address:#x} is a hole, and {what} lies there",
                source=self.source,
                field="p2m",
            )
        return Machine(Phys(frame << PAGE_SHIFT | address % PAGE_SIZE))

    def pseudo(self, address: Machine) -> PseudoPhys | None:
        """Where the domain has a machine address; None where it is not the domain's."""
        [frame] = self.to_pseudo(np.array([address >> PAGE_SHIFT], np.int64)).tolist()
        return None if frame == HOLE else PseudoPhys(frame << PAGE_SHIFT | address % PAGE_SIZE)


def scattered(
    ram: Iterable[Extent],
    count: int,
    *,
    seed: int,
    holes: Iterable[Extent] = (),
    source: str = "p2m",
) -> P2m:
    """The worst p2m there can be: `count` frames in no order, no two neighbours adjacent.

    `ram` are machine extents that the domain may have a part of; `holes` pseudo-physical extents
    without memory.  The machine frames come from all of `ram`, each extent in proportion to its
    size, and no frame has the number of its own machine frame: a raw pseudo-physical address never
    happens to be right.  Raises HostError when there is not enough memory to be that bad.
    """
    pages = [each.pages for each in ram]
    total = sum(map(len, pages))
    if count * 2 > total:
        raise HostError(
            f"{count} frames of dom0 cannot lie apart in {total} machine frames",
            source=source,
            field="dom0.pages",
            limit=total // 2,
        )
    random = np.random.default_rng(seed)
    frames = _drawn(pages, total, count, random)
    for _round in range(64):
        bad = _too_tidy(frames)
        if not len(bad):
            break
        # Swap each with some other one; what is left of the few that are bad vanishes quickly.
        partner = random.integers(0, count, len(bad))
        for one, other in zip(bad.tolist(), partner.tolist(), strict=True):
            frames[one], frames[other] = frames[other], frames[one]
    else:
        raise HostError(f"seed {seed} gives no such p2m", source=source, field="dom0.seed")
    for hole in holes:
        frames[hole.pages.start : hole.pages.stop] = HOLE
    return P2m(frames, source)


def _drawn(pages: Sequence[range], total: int, count: int, random: np.random.Generator) -> Frames:
    """`count` of the `total` frames in `pages`, none twice, in no order.

    Memory is in proportion to `count`: of a machine much larger than the domain not every frame is
    listed.
    """
    if total <= max(LISTED, 4 * count):
        parts = [np.arange(each.start, each.stop, dtype=np.int64) for each in pages]
        return random.permutation(np.concatenate([*parts, np.zeros(0, np.int64)]))[:count]
    # Twice as many as wanted of four times as many or more: those drawn twice leave enough, nearly
    # always.
    some = np.zeros(0, np.int64)
    while len(some) < count:
        some = np.sort(np.concatenate([some, random.integers(0, total, 2 * count)]))
        some = some[np.diff(some, prepend=-1) > 0]
    drawn = random.permutation(some)[:count]
    ends = np.cumsum([len(each) for each in pages])
    which = np.searchsorted(ends, drawn, side="right")
    starts: Frames = np.array([each.stop for each in pages], np.int64) - ends
    found: Frames = drawn + starts[which]
    return found


def from_runs(runs: Iterable[tuple[PseudoPhys, Machine, int]], source: str) -> P2m:
    """A p2m from runs of (pseudo-physical, machine, bytes), all of whole pages.

    Raises HostError where two runs have a pseudo-physical or a machine frame in common.
    """
    listed = [(p >> PAGE_SHIFT, m >> PAGE_SHIFT, size >> PAGE_SHIFT) for p, m, size in runs]
    frames = np.full(max((p + n for p, _m, n in listed), default=0), HOLE, np.int64)
    for pseudo, machine, count in listed:
        taken = np.nonzero(frames[pseudo : pseudo + count] != HOLE)[0]
        if len(taken):
            raise HostError(
                f"pseudo-physical frame {pseudo + int(taken[0]):#x} is given twice",
                source=source,
                field="p2m",
            )
        frames[pseudo : pseudo + count] = np.arange(machine, machine + count, dtype=np.int64)
    return P2m(frames, source)


def _too_tidy(frames: Frames) -> Frames:
    """Frames that follow their neighbour in machine memory too, or that are where they say."""
    adjacent = np.nonzero(np.abs(np.diff(frames)) == 1)[0]
    same = np.nonzero(frames == np.arange(len(frames)))[0]
    return np.union1d(adjacent, same)
