"""The dead kernel's memory outside of what a crash may write, before its crash kernel and after.

    the walk is over       |  every page outside that holds something: its digest
    the crash kernel runs  |
    it is over             |  every page outside that holds something: the same, and no other one

A dump is the dead kernel's memory, so one byte that a crash kernel wrote there is one that lies.
What the walk itself wrote is rule `crash-region-only`'s.

Rules: pages that nobody has written are zeros, and are only looked at where somebody has since.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tightrope.memory import PAGE_SIZE, Extent, subtract, union
from tightrope.model import Host, Memory
from tightrope.model.crash_boot import Kept
from tightrope.vmcore.planned import may_write

_ZEROS = bytes(PAGE_SIZE)
_RUN = 256
"""Pages that are read at once."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Before:
    """The pages outside that held something, by frame, as digests."""

    outside: tuple[Extent, ...]
    pages: Mapping[int, bytes]


def before(memory: Memory, host: Host) -> Before | None:
    """What has to be the same afterwards; None where the memory does not say what was written."""
    whole = (
        Extent(-(-each.start // PAGE_SIZE) * PAGE_SIZE, each.end & -PAGE_SIZE)
        for each in host.memory.ram
        if each.end & -PAGE_SIZE > each.start
    )
    outside = subtract([each for each in whole if each.size > 0], may_write(host))
    if memory.written() is None:
        return None
    pages = {
        start // PAGE_SIZE: _digest(page)
        for start, page in _written(memory, outside)
        if page != _ZEROS
    }
    return Before(outside=outside, pages=pages)


def after(memory: Memory, was: Before) -> Kept:
    """The memory then, held against what it was."""
    left, changed = dict(was.pages), []
    for start, page in _written(memory, was.outside):
        old = left.pop(start // PAGE_SIZE, None)
        if page != _ZEROS if old is None else old != _digest(page):
            changed.append(Extent.sized(start, PAGE_SIZE))
    # A page that held something and is no longer there is zeros now.
    changed += [Extent.sized(frame * PAGE_SIZE, PAGE_SIZE) for frame in left]
    return Kept(
        size=sum(each.size for each in was.outside),
        held=len(was.pages) * PAGE_SIZE,
        changed=union(changed),
    )


def _written(
    memory: Memory, outside: tuple[Extent, ...]
) -> Iterator[tuple[int, bytes | memoryview]]:
    """(address, page) of each page outside that somebody has written."""
    frames = sorted(memory.written() or ())
    for extent in outside:
        first = bisect_left(frames, extent.start // PAGE_SIZE)
        end = bisect_left(frames, extent.end // PAGE_SIZE)
        at = first
        while at < end:
            run = 1
            while run < _RUN and at + run < end and frames[at + run] == frames[at] + run:
                run += 1
            start = frames[at] * PAGE_SIZE
            data = memory.read(Extent.sized(start, run * PAGE_SIZE))
            for offset in range(0, run * PAGE_SIZE, PAGE_SIZE):
                yield start + offset, data[offset : offset + PAGE_SIZE]
            at += run


def _digest(page: bytes | memoryview) -> bytes:
    return hashlib.blake2b(page, digest_size=16).digest()
