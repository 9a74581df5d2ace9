"""A bit that was wrong already when the plan was made: memory and plan agree on it.

Rules: as `in_memory`; the addresses of a plan stay, so the tables and the call are those of the
sound one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import numpy as np
from numpy.typing import NDArray

from tightrope.deeds.flips.in_memory import nothing
from tightrope.deeds.flips.subjects import Broken, flipped
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE
from tightrope.model import Handover, Segment, SegmentRole
from tightrope.plan import page_list as lists

Flip = Callable[[Handover, Random], Broken]
FRAME_BITS = 20
"""Of a frame number: 4 GiB."""


def segment(role: SegmentRole) -> Flip:
    """A byte of the segment of a role, wrong in the plan, in its source and in its destination."""

    def flip(handover: Handover, random: Random) -> Broken:
        full = [each for each in handover.intent.segments if each.role is role and len(each.data)]
        if not full:
            raise nothing(role.value)
        old = random.choice(full)
        at, bit = random.randrange(len(old.data)), random.randrange(8)
        new = replace(old, data=flipped(bytes(old.data), at, bit))

        def edited(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
            return tuple(new if each is old else each for each in segments)

        intent = replace(handover.intent, segments=edited(handover.intent.segments))
        return Broken(
            handover=replace(handover, intent=intent, segments=edited(handover.segments)),
            says=f"bit {bit} of byte {at:#x} of the {old.name}",
        )

    return flip


def page_list(handover: Handover, random: Random) -> Broken:
    """A frame number, wrong in the plan's arrays and in the list that was made of them."""
    plan = handover.plan
    if not plan.list_pages or plan.crash:
        raise nothing("page list")
    counts = [len(each.destination.pages) for each in plan.segments]
    starts = np.cumsum([0, *counts[:-1]])
    destinations, sources = plan.destinations.copy(), plan.sources.copy()
    number, bit = random.randrange(len(counts)), random.randrange(FRAME_BITS)
    first, count = int(starts[number]), counts[number]
    name = plan.segments[number].name
    if random.random() < 0.5:
        moved = int(destinations[first]) ^ 1 << bit
        destinations[first : first + count] = np.arange(moved, moved + count)
        says = f"bit {bit} of the frame that the {name} goes to"
    else:
        at = first + random.randrange(count)
        if sources[at] < 0:
            raise nothing("source of that page")
        sources[at] ^= 1 << bit
        says = f"bit {bit} of the frame that page {at - first} of the {name} comes from"
    runs: list[tuple[int, NDArray[np.int64]]] = [
        (int(destinations[start]), sources[start : start + many])
        for start, many in zip(starts.tolist(), counts, strict=True)
    ]
    frames = np.array([frame >> PAGE_SHIFT for frame in plan.list_pages], np.int64)
    _, pages = lists.chained(lists.words(runs), frames, per_page=PAGE_SIZE // plan.word)
    intent = replace(plan, destinations=destinations, sources=sources, list_pages=pages)
    return Broken(
        handover=replace(
            handover,
            intent=intent,
            page_list={frame: words.tobytes() for frame, words in pages.items()},
        ),
        says=says,
    )
