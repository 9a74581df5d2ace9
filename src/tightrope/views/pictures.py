"""What an engineer would draw: the memory of both kernels to scale, and what lies where.

Rules: the patches are the plan's and the handover's own extents, merged where they touch.  A lens
is a part of the addresses where small things lie close together; there are few, so that all are
looked at.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import PAGE_SIZE, Extent, RegionKind, align_down, align_up, union
from tightrope.model import ZERO_FRAME, Handover, Host, Intent
from tightrope.model.handover import Tables
from tightrope.model.sheet import Ink, Lane, Map, Patch, Window
from tightrope.views import words

MOVING = ("waiting", "walk", "new kernel")
"""The lanes of the handover: what lies still needs no lens."""
LENSES = 3
"""At most, and one for the pages of the walk."""
NEAR = 32 << 20
"""Bytes between two things that one lens shows."""
CLOSE = 1 << 20
"""Bytes between two pages of the walk that are shown together."""
ZOOM = 32
"""How many times larger the pages of the walk have to be in a lens of their own."""
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
    end = max(patch.end for each in lanes for patch in each.patches)
    whole = _window(0, end)
    moving = _extents(each for each in lanes if each.name in MOVING)
    small = [*_extents(lanes[1:])]
    walk = [*_extents(each for each in lanes if each.name == "walk")]
    return Map(lanes=tuple(lanes), whole=whole, lenses=tuple(lenses(small, [*moving], walk, whole)))


def _extents(lanes: Iterable[Lane]) -> Iterator[Extent]:
    return (Extent(patch.start, patch.end) for each in lanes for patch in each.patches)


def lenses(
    things: Iterable[Extent], moving: Sequence[Extent], walk: Sequence[Extent], whole: Window
) -> Iterator[Window]:
    """Where things lie close together and something of the handover among them, in the order of
    their addresses; and the pages of the walk, where they would be too small to tell apart.
    """
    # A group that the whole map shows well needs no lens; of the others, those with most to show.
    span = whole.end - whole.start
    hard = [each for each in _groups(things, NEAR) if (each.end - each.start) * 4 < span]
    told = [each for each in hard if any(each.overlaps(one) for one in moving)]
    told.sort(key=lambda each: sum(each.overlaps(one) for one in moving), reverse=True)
    shown = [_lens(each, whole) for each in told[:LENSES]]
    for each in _groups(walk, CLOSE)[:1]:
        lens = _lens(each, whole)
        if not any(
            (one.end - one.start) < ZOOM * (lens.end - lens.start)
            for one in shown
            if one.start <= lens.start < one.end
        ):
            shown.append(lens)
    yield from sorted(shown, key=lambda each: (each.start, -each.end))


def _groups(things: Iterable[Extent], near: int) -> list[Extent]:
    """Extents of what lies less than `near` bytes apart."""
    out: list[Extent] = []
    for each in union(things):
        if out and each.start - out[-1].end < near:
            out[-1] = Extent(out[-1].start, each.end)
        else:
            out.append(each)
    return out


def _lens(group: Extent, whole: Window) -> Window:
    """A window a little wider than what it shows."""
    margin = max((group.end - group.start) // MARGIN, PAGE_SIZE)
    return _window(
        max(align_down(group.start - margin, PAGE_SIZE), whole.start),
        min(align_up(group.end + margin, PAGE_SIZE), whole.end),
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
