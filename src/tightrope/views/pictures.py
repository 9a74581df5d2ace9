"""What an engineer would draw: the memory of both kernels to scale, and what lies where.

Rules: the patches are the plan's and the handover's own extents, merged where they touch.  A lens
is a part of the addresses where small things lie close together; there are few, so that all are
looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import PAGE_SIZE, Extent, RegionKind, align_down, align_up, union
from tightrope.model import ZERO_FRAME, Handover, Host, Intent
from tightrope.model.handover import Tables
from tightrope.model.sheet import Ink, Lane, Map, Patch, Window
from tightrope.views import words

LENSES = 3
"""At most."""
NEAR = 32 << 20
"""Bytes between two things that one lens shows."""
MARGIN = 16
"""A lens is wider than what it shows by this share on each side."""


def memory_map(host: Host, intent: Intent, built: Handover | None = None) -> Map:
    """Physical memory: what is there, what the old kernel has, what waits, where all of it goes."""
    lanes = [
        Lane("memory", tuple(_regions(host))),
        Lane("old kernel", tuple(_old(host, built))),
        Lane("waiting", tuple(_waiting(intent))),
        Lane("walk", tuple(_walk(intent, built))),
        Lane("new kernel", tuple(_new(intent))),
    ]
    lanes = [each for each in lanes if each.patches]
    small = [Extent(patch.start, patch.end) for each in lanes[1:] for patch in each.patches]
    end = max(patch.end for each in lanes for patch in each.patches)
    whole = _window(0, end)
    return Map(lanes=tuple(lanes), whole=whole, lenses=tuple(lenses(small, whole)))


def lenses(things: Iterable[Extent], whole: Window) -> Iterator[Window]:
    """Where things lie close together, in the order of their addresses."""
    groups: list[list[Extent]] = []
    for each in union(things):
        if groups and each.start - groups[-1][-1].end < NEAR:
            groups[-1].append(each)
        else:
            groups.append([each])
    # A group that the whole map shows well needs no lens; of the others, those with most to show.
    span = whole.end - whole.start
    hard = [each for each in groups if (each[-1].end - each[0].start) * 4 < span]
    hard.sort(key=len, reverse=True)
    for group in sorted(hard[:LENSES], key=lambda each: each[0].start):
        start, end = group[0].start, group[-1].end
        margin = max((end - start) // MARGIN, PAGE_SIZE)
        yield _window(
            max(align_down(start - margin, PAGE_SIZE), whole.start),
            align_up(end + margin, PAGE_SIZE),
        )


def _window(start: int, end: int) -> Window:
    return Window(start, end, words.size(end - start))


def _regions(host: Host) -> Iterator[Patch]:
    for region in host.memory:
        ram = region.kind is RegionKind.RAM
        ink = Ink.RAM if ram else Ink.RESERVED
        yield Patch(region.extent.start, region.extent.end, ink, region.kind.value)


def _old(host: Host, built: Handover | None) -> Iterator[Patch]:
    text = Extent.sized(host.text.phys, host.text.size)
    patches = [_patch(text, Ink.OLD, "the old kernel's image")]
    patches += [_patch(each.extent, Ink.OLD, each.what) for each in host.busy]
    if host.crash_region is not None:
        patches.append(_patch(host.crash_region, Ink.CRASH, "the crash region"))
    if built is not None:
        frames = np.fromiter(built.world.tables, np.int64) // PAGE_SIZE
        patches += (_patch(each, Ink.TABLE, "the current page tables") for each in _runs(frames))
    yield from sorted(patches, key=lambda each: each.start)


def _waiting(intent: Intent) -> Iterator[Patch]:
    """The source pages of what is not in place already."""
    moved = intent.sources[(intent.sources != intent.destinations) & (intent.sources != ZERO_FRAME)]
    for each in _runs(moved):
        yield _patch(each, Ink.SOURCE, "pages of the new kernel, before they are copied")


def _walk(intent: Intent, built: Handover | None) -> Iterator[Patch]:
    control = Extent.sized(intent.control_page, PAGE_SIZE)
    patches = [_patch(control, Ink.CONTROL, "P, the control page")]
    if built is not None:
        patches += _tree(built.page_table_a, Ink.TABLE_A)
        if built.page_table_b is not None and built.page_table_b.root != built.page_table_a.root:
            patches += _tree(built.page_table_b, Ink.TABLE_B)
    yield from sorted(patches, key=lambda each: each.start)


def _tree(tables: Tables, ink: Ink) -> list[Patch]:
    frames = np.fromiter(tables.pages, np.int64) // PAGE_SIZE
    return [_patch(each, ink, ink.value) for each in _runs(frames)]


def _new(intent: Intent) -> Iterator[Patch]:
    for each in sorted(intent.segments, key=lambda each: each.destination.start):
        yield _patch(each.destination, Ink.NEW, f"{each.name}: {each.why}")


def _patch(extent: Extent, ink: Ink, label: str) -> Patch:
    return Patch(extent.start, extent.end, ink, label)


def _runs(frames: NDArray[np.int64]) -> list[Extent]:
    """Frame numbers as extents of bytes, merged where they adjoin."""
    ordered = np.unique(frames)
    if not len(ordered):
        return []
    cuts = np.nonzero(np.diff(ordered) != 1)[0]
    firsts = ordered[np.concatenate([[0], cuts + 1])]
    lasts = ordered[np.concatenate([cuts, [len(ordered) - 1]])]
    return [
        Extent(first * PAGE_SIZE, (last + 1) * PAGE_SIZE)
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
    ]
