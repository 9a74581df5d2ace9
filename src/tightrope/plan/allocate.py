"""Frames for everything that is not a destination: sources, the list, the control page, the tables.

Rules: destinations come first, because the free frames are what is left; everything else is taken
from one pool that holds no destination, in the order sources, list, control page, tables.  Where
the control page has to be mapped at its own address, as Linux has it since 6.14, it is taken before
the pool is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import PlanError
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent, Phys, RegionKind, subtract
from tightrope.model import ZERO_FRAME, Backup, Host, Named, Segment, XenInterface
from tightrope.model.modes import MODES
from tightrope.plan import xen
from tightrope.plan.backup import LOW_MEMORY, within
from tightrope.plan.frames import FramePool
from tightrope.plan.page_list import IND_DONE, chained, list_length, words
from tightrope.plan.placement import crash_ram, free_ram, whole_pages
from tightrope.plan.request import Request
from tightrope.x86.paging import FORMATS
from tightrope.x86.tables import tables_bound

Pool = FramePool | xen.ScatteredPool


@dataclass(frozen=True, kw_only=True, slots=True)
class Frames:
    """What was taken; arrays of frame numbers."""

    destinations: NDArray[np.int64]
    sources: NDArray[np.int64]
    copied: NDArray[np.int64]
    """The sources that are nobody's destination."""
    page_list: NDArray[np.int64]
    head: int
    list_pages: dict[int, NDArray[np.unsignedinteger]]
    control_page: Phys
    pool: Pool


def allocate(host: Host, request: Request, segments: Sequence[Segment]) -> Frames:
    """Frames for the copy, the list and the control page.  `host` is as the code sees it that
    walks.

    Raises PlanError where there are not enough.
    """
    free = crash_ram(host) if request.crash else free_ram(host)
    unused = subtract(free, [segment.destination for segment in segments])
    per_segment = [
        np.arange(each.destination.pages.start, each.destination.pages.stop, dtype=np.int64)
        for each in segments
    ]
    destinations = np.concatenate(per_segment)
    control_page: Phys | None = None
    sources = destinations.copy()
    pool: Pool
    if request.xen and not request.crash:
        pool = xen.ScatteredPool(host, request.xen, destinations, request.scatter)
        away = np.ones(len(destinations), np.bool_)
        if request.xen is XenInterface.V2:
            sources[:] = ZERO_FRAME
            away = xen.pages_with_data(segments)
    else:
        if host.relocation is None and not request.xen:
            control_page = _mapped_control_page(host, unused, request)
            unused = subtract(unused, [Extent.sized(control_page, PAGE_SIZE)])
        pool = _pool(host, unused, request)
        away = ~_inside(destinations, free)
    sources[away] = pool.take(int(away.sum()), "the copy")
    starts = np.cumsum([0, *(len(frames) for frames in per_segment)])
    runs = [
        (int(frames[0]), sources[at : at + len(frames)])
        for at, frames in zip(starts, per_segment, strict=False)
    ]
    page_list, head, list_pages = _list(host, request, runs, pool)
    if control_page is None:
        control_page = pool.control_page()
    return Frames(
        destinations=destinations,
        sources=sources,
        copied=sources[away],
        page_list=page_list,
        head=head,
        list_pages=list_pages,
        control_page=control_page,
        pool=pool,
    )


def _list(
    host: Host,
    request: Request,
    runs: Sequence[tuple[int, NDArray[np.int64]]],
    pool: Pool,
) -> tuple[NDArray[np.int64], int, dict[int, NDArray[np.unsignedinteger]]]:
    """The frames of the list, its head word and its pages.

    A crash image lies in its place from the day it was loaded: its list is just IND_DONE, in the
    head or, for v2, in a page of its own.
    """
    per_page = PAGE_SIZE // (8 if host.paging.long_mode else 4)
    if request.crash:
        runs = ()
    if request.crash and request.xen is not XenInterface.V2:
        return pool.take(0, "the page list"), IND_DONE, {}
    pages = sum(len(sources) for _, sources in runs)
    length = list_length(len(runs), pages, per_page=per_page)
    frames = pool.take(length, "the page list")
    return frames, *chained(words(runs), frames, per_page=per_page)


def table_frames(
    host: Host, identity: Sequence[Named], frames: Frames, memory: Sequence[Named] = ()
) -> NDArray[np.int64]:
    """Frames for the page tables of any contract, as they were given, and a swap page's.

    Both chains of page_table_a, and an identity map of `identity`, which i386 needs for one tree;
    `memory` is mapped in large pages.  Raises PlanError.
    """
    fmt = FORMATS[host.paging]
    count = 1 + 2 * fmt.leaf + tables_bound(fmt, [each.extent for each in identity])
    if memory:
        count += 1 + tables_bound(fmt, [each.extent for each in memory], leaf=fmt.leaf - 1)
    if MODES[host.paging].reads_root:
        count += 2 * fmt.leaf  # the identity map has the two tables at its own top
    taken = frames.pool.take(count, "the page tables")
    reach = max(each.extent.end for each in (*identity, *memory))
    if reach > 1 << fmt.identity_bits:
        raise PlanError(
            f"{reach - 1:#x} has no linear address equal to itself with {fmt.name} paging",
            source=host.source,
            field="memory",
            limit=1 << fmt.identity_bits,
        )
    return taken


def own(frames: Frames) -> tuple[Named, ...]:
    """What the walk itself touches and page_table_b has to map; extents of whole pages."""
    return (
        Named(extent=Extent.sized(frames.control_page, PAGE_SIZE), what="the control page"),
        *(Named(extent=e, what="the page list") for e in extents(np.sort(frames.page_list))),
        *(Named(extent=e, what="sources") for e in extents(np.sort(frames.copied))),
    )


def reach(host: Host, segments: Sequence[Segment], backup: Sequence[Backup]) -> tuple[Named, ...]:
    """What the new kernel touches first and page_table_b has to map, each with its reason."""
    wanted = [Named(extent=each.destination, what=each.name) for each in segments]
    low_ram = whole_pages(within(LOW_MEMORY, host.memory.ram))
    wanted += [Named(extent=each, what="low memory, for the decompressor") for each in low_ram]
    wanted += [
        Named(extent=each.source.page_aligned(), what="low memory, for the backup")
        for each in backup
    ]
    wanted += [
        Named(extent=each.page_aligned(), what="ACPI tables")
        for each in host.memory.of(RegionKind.ACPI, RegionKind.NVS)
    ]
    wanted += [Named(extent=each.extent.page_aligned(), what=each.what) for each in host.firmware]
    return tuple(wanted)


def whole(host: Host) -> tuple[Named, ...]:
    """All memory, in whole pages: what an old Linux maps besides what is needed."""
    return tuple(Named(extent=each, what="memory") for each in whole_pages(host.memory.ram))


def extents(frames: NDArray[np.int64]) -> tuple[Extent, ...]:
    """Sorted frames as extents of physical addresses."""
    if not len(frames):
        return ()
    cuts = np.nonzero(np.diff(frames) != 1)[0] + 1
    firsts = frames[np.concatenate([[0], cuts])]
    lasts = frames[np.concatenate([cuts - 1, [len(frames) - 1]])]
    return tuple(
        Extent(first << PAGE_SHIFT, (last + 1) << PAGE_SHIFT)
        for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True)
    )


def _pool(host: Host, extents: Sequence[Extent], request: Request) -> FramePool:
    whose, where, field = "the old kernel", "", "memory"
    fmt = FORMATS[host.paging]
    reach = 1 << fmt.identity_bits
    if request.crash:
        whose, field = "the crash region", "crash_region"
    elif host.memory.ram[-1].end > reach:
        where = (
            f" below {reach:#x}: above it no linear address equals its own with {fmt.name} paging"
        )
    return FramePool(
        extents,
        scatter=request.scatter,
        whose=whose,
        where=where,
        field=field,
        source=host.source,
    )


def _mapped_control_page(host: Host, unused: Sequence[Extent], request: Request) -> Phys:
    """The control page where V is in the direct map, and so the direct map has to have it."""
    mapped = Extent(0, host.direct_map.size)
    low = _pool(host, subtract([mapped], subtract([mapped], unused)), request)
    what = "the control page, which the direct map has to reach,"
    return Phys(int(low.take(1, what)[0]) << PAGE_SHIFT)


def _inside(frames: NDArray[np.int64], extents: Sequence[Extent]) -> NDArray[np.bool_]:
    """Which frames lie in sorted extents of whole pages."""
    if not extents:
        return np.zeros(len(frames), np.bool_)
    starts = np.array([each.start >> PAGE_SHIFT for each in extents], np.int64)
    ends = np.array([each.end >> PAGE_SHIFT for each in extents], np.int64)
    at = np.searchsorted(starts, frames, side="right") - 1
    return (at >= 0) & (frames < ends[np.maximum(at, 0)])
