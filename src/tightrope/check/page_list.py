"""The page list, read back from memory and followed as Linux follows it.

Rules: this is the other door: it knows the four flags and their order (kernel/kexec_core.c,
relocate_kernel_64.S) and nothing of the planner.  Whole pages of words are handled as arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from tightrope.model import Buffer

T = TypeVar("T", bound=np.generic)

DESTINATION, INDIRECTION, DONE, SOURCE, ZERO = 1, 2, 4, 8, 16
PAGE = 4096


_FLAGS = np.uint64(31)


def _kinds(*asked: int) -> NDArray[np.uint8]:
    """What a word is, by its flags: the first that is asked of those it has, 0 for none."""
    found = [next((flag for flag in asked if low & flag), 0) for low in range(32)]
    return np.array(found, np.uint8)


_LINUXS = _kinds(DESTINATION, INDIRECTION, DONE, SOURCE)
_XENS = _kinds(DESTINATION, INDIRECTION, DONE, SOURCE, ZERO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """What a list asks for, in order: frame numbers, one element per IND_SOURCE.

    A page that is cleared (Xen's IND_ZERO) has the source -1.
    `problem` says why following it ended early; None when IND_DONE was found.
    """

    destinations: NDArray[np.int64]
    sources: NDArray[np.int64]
    pages: tuple[int, ...]
    problem: str | None


def follow(head: int, pages: Mapping[int, Buffer], *, word: int = 8, zeros: bool = False) -> Copies:
    """Follow a list from its first word; `pages` is memory: page address -> 4096 bytes.

    `word` is how many bytes a word of the list has: 8, or 4 on a 32-bit kernel.  With `zeros` the
    list is Xen's, which has a fifth flag; Linux skips such a word.
    """
    kinds = _XENS if zeros else _LINUXS
    parts: list[NDArray[np.uint64]] = []
    sorts: list[NDArray[np.uint8]] = []
    seen: dict[int, None] = {}
    words = np.array([head], np.uint64)
    problem: str | None = None
    if kinds[head & 31] == INDIRECTION and (raw := pages.get(head & -PAGE)) is not None:
        # As most lists begin; what follows says the same of a word in the middle of one.
        seen[head & -PAGE] = None
        words = np.frombuffer(raw, f"<u{word}").astype(np.uint64, copy=False)
    while True:
        kind = kinds[words & _FLAGS]
        ends = ((kind == INDIRECTION) | (kind == DONE)).nonzero()[0]
        if not len(ends):
            parts.append(words)
            sorts.append(kind)
            problem = "a page of the list has neither IND_INDIRECTION nor IND_DONE"
            break
        end = int(ends[0])
        parts.append(words[:end])
        sorts.append(kind[:end])
        if kind[end] == DONE:
            break
        at = int(words[end]) & ~(PAGE - 1)
        if at in seen:
            problem = f"the list comes back to its page {at:#x}"
            break
        raw = pages.get(at)
        if raw is None:
            problem = f"no page of the list lies at {at:#x}"
            break
        seen[at] = None
        words = np.frombuffer(raw, f"<u{word}").astype(np.uint64, copy=False)
    flat, kind = _joined(parts), _joined(sorts)
    frames = (flat >> np.uint64(12)).astype(np.int64)
    source = kind == SOURCE
    if zeros:
        cleared = kind == ZERO
        source |= cleared
        frames[cleared] = -1
    begins, sources = (kind == DESTINATION).nonzero()[0], source.nonzero()[0]
    number = np.arange(len(sources))
    destinations = number
    if len(begins):
        # Each source goes one page behind the one before it, from the last destination on.
        under = begins.searchsorted(sources) - 1
        counted = frames[begins] - sources.searchsorted(begins)
        # A source before any destination would be copied to frame 0 on.
        destinations = number + np.where(under < 0, 0, counted[under])
    return Copies(
        destinations=destinations,
        sources=frames[sources],
        pages=tuple(seen),
        problem=problem,
    )


def _joined(parts: list[NDArray[T]]) -> NDArray[T]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """The exact conditions on a list of copies, as indices into it (reference: the copy
    theorem)."""

    twice: NDArray[np.int64]
    """Copies whose destination was written before."""
    late: NDArray[np.int64]
    """Copies whose source an earlier copy overwrote; a page in place overwrites nothing."""
    strict: NDArray[np.int64]
    """Copies whose source is another copy's destination, whatever the order."""


def order(destinations: NDArray[np.int64], sources: NDArray[np.int64]) -> Order:
    """What is wrong with the order of a list; ten million copies in about a second.

    Where destinations are distinct, `late` is exact: it is empty if and only if every destination
    ends with what its source held before the first copy.
    """
    count = len(destinations)
    # Destinations come in ascending runs, which a stable sort merges in linear time.
    by_frame = np.argsort(destinations, kind="stable")
    frames = destinations[by_frame]
    twice = by_frame[1:][frames[1:] == frames[:-1]]
    where = frames.searchsorted(sources)
    hit = (where < count) & (frames[np.minimum(where, count - 1)] == sources)
    index = (hit & (sources != destinations)).nonzero()[0]
    writer = by_frame[where[index]]
    overwrites = sources[writer] != destinations[writer]
    return Order(twice=np.sort(twice), late=index[(writer < index) & overwrites], strict=index)
