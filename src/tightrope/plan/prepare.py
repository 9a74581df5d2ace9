"""Composing a plan: place the segments, choose the frames, write the list.

Rules: this file decides the order of decisions and nothing else.  Destinations come first, because
the free frames are what is left; then sources, list, control page and table frames, all from one
pool that holds no destination.  Bad combinations raise PlanError with the limit that was broken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import PlanError
from tightrope.memory import (
    PAGE_SHIFT,
    PAGE_SIZE,
    Extent,
    Phys,
    RegionKind,
    Virt,
    subtract,
)
from tightrope.model import (
    ZERO_FRAME,
    Backup,
    Host,
    Image,
    Inputs,
    Named,
    Paging,
    Plan,
    Protocol,
    Segment,
    XenInterface,
)
from tightrope.plan import xen
from tightrope.plan.backup import LOW_MEMORY, back_up, with_routine, within
from tightrope.plan.crash import WORD, core_header, crash_memory_map, with_core_header
from tightrope.plan.entering import Way, filled, way_in
from tightrope.plan.frames import FramePool
from tightrope.plan.handed import New, handed
from tightrope.plan.moved import moved
from tightrope.plan.page_list import IND_DONE, chained, list_length, words
from tightrope.plan.placement import (
    crash_ram,
    free_ram,
    whole_pages,
)
from tightrope.plan.request import Request
from tightrope.plan.room import Room
from tightrope.routines import read as read_routine
from tightrope.x86.paging import FORMATS
from tightrope.x86.tables import tables_bound


def prepare(image: Image, host: Host, request: Request) -> Plan:
    """The plan.  Raises PlanError; nothing is read or written but the arguments."""
    wanted = request.protocol
    if host.xen is not None and request.xen is None:
        raise PlanError(
            "the old kernel is a hypervisor, and nobody asks it (--xen v1 or v2)",
            source=host.source,
            field="xen",
        )
    if request.xen:
        bits = xen.hypervisor(host, request.xen).dom0.bits
        if wanted is None and request.xen is XenInterface.V2 and bits == 32:
            wanted = Protocol.LINUX_32  # a 32-bit kexec-tools loads for EM_386
    described, host = host, xen.as_walked(host, request.xen)
    way = way_in(image, host, wanted)
    if request.xen is XenInterface.V2:
        way = xen.exit_through(way)
    request = _carried(image, request)
    inputs = Inputs(
        command_line=request.command_line, initrd=request.initrd, modules=request.modules
    )
    if request.backup and not request.crash:
        raise PlanError(
            "only a crash kexec saves low memory", source="command line", field="backup"
        )
    if request.scatter is not None and request.scatter < 0:
        raise PlanError(
            f"{request.scatter} is no seed: they are whole numbers from 0 up",
            source="command line",
            field="scatter",
            limit=0,
        )
    protocol = way.entry.protocol
    room = Room(host, image, below_4g=way.below_4g, fixed=way.fixed, crash=request.crash)
    load = room.kernel()
    base = Phys(image.pref_address if image.pref_address in load else load.start)
    segments = _kernel(image, base)
    memory = host.memory
    backup: tuple[Backup, ...] = ()
    # Whoever has no command line cannot be told where a core header lies.
    if request.crash and protocol is not Protocol.FLAT:
        kept, backup = back_up(host, request.backup, room)
        header = core_header(described, backup)
        place = room.small("core header", len(header))
        segments.append(Segment(name="core header", destination=place, data=header, why=WORD))
        segments += kept
        line = with_core_header(request.command_line, place)
        request = replace(request, command_line=line)
        memory = crash_memory_map(host, [place, *(each.destination for each in kept)])
    new = New(image=image, base=base, memory=memory, host=host)
    given = handed(new, protocol, request, room)
    stub_at = room.small("entry stub", PAGE_SIZE)
    kernel_entry = Phys(base + way.entry.offset)
    page, leads_to = read_routine(way.stub).data, kernel_entry
    if backup:
        page, leads_to = with_routine(
            page, way.entry.bits, Phys(stub_at.start), backup, kernel_entry, host.source
        )
    stub = Segment(
        name="entry stub",
        destination=stub_at,
        data=filled(way, page, leads_to, given.registers),
        why="where a purgatory would be",
    )
    return _allocate(
        image,
        host,
        request,
        (*segments, *given.segments, stub),
        way=way,
        entry=Phys(stub_at.start),
        kernel_entry=kernel_entry,
        arguments=given.registers,
        backup=backup,
        inputs=inputs,
        described=described,
    )


def _carried(image: Image, request: Request) -> Request:
    """The request with what the image carries where it asks for nothing of its own."""
    if request.initrd is None and image.initrd is not None:
        request = replace(request, initrd=image.initrd, initrd_source=image.source)
    if not request.command_line and image.command_line is not None:
        request = replace(request, command_line=image.command_line)
    return request


def _kernel(image: Image, base: Phys) -> list[Segment]:
    """One segment for each part, whole pages; a part that begins inside a page has zeros before it."""
    parts = moved(image, base - image.pref_address)
    why = f"init_size {image.init_size:#x} from " + (
        "pref_address" if base == image.pref_address else "the first place that fits"
    )
    segments = []
    for number, part in enumerate(parts, 1):
        extent = Extent.sized(base + part.offset, part.size)
        destination = extent.page_aligned()
        before = extent.start - destination.start
        segments.append(
            Segment(
                name="kernel" if number == 1 else f"kernel part {number}",
                destination=destination,
                data=bytes(before) + part.data if before else part.data,
                why=why,
            )
        )
    return segments


def _allocate(
    image: Image,
    host: Host,
    request: Request,
    segments: tuple[Segment, ...],
    *,
    way: Way,
    entry: Phys,
    kernel_entry: Phys,
    arguments: Mapping[str, int],
    backup: tuple[Backup, ...],
    inputs: Inputs,
    described: Host,
) -> Plan:
    """Frames for everything that is not a destination, and the list.

    `host` is `described` as the code sees it that walks.
    """
    free = crash_ram(host) if request.crash else free_ram(host)
    fmt = FORMATS[host.paging]
    unused = subtract(free, [segment.destination for segment in segments])
    control_page = _mapped_control_page(host, unused, request)
    if control_page is not None:
        unused = subtract(unused, [Extent.sized(control_page, PAGE_SIZE)])
    pool: FramePool | xen.ScatteredPool = _pool(host, unused, request)
    per_segment = [
        np.arange(each.destination.pages.start, each.destination.pages.stop, dtype=np.int64)
        for each in segments
    ]
    destinations = np.concatenate(per_segment)
    moved = ~_inside(destinations, free)
    sources = destinations.copy()
    if request.xen and not request.crash:
        pool = xen.ScatteredPool(host, request.xen, destinations, request.scatter)
        moved[:] = True
        if request.xen is XenInterface.V2:
            sources[:] = ZERO_FRAME
            moved = xen.pages_with_data(segments)
    sources[moved] = pool.take(int(moved.sum()), "the copy")
    per_page = PAGE_SIZE // (8 if host.paging.long_mode else 4)
    # A crash image lies in its place from the day it was loaded: its list is just IND_DONE.
    length = (
        int(request.xen is XenInterface.V2)
        if request.crash
        else list_length(len(segments), len(destinations), per_page=per_page)
    )
    list_frames = pool.take(length, "the page list")
    if request.xen and isinstance(pool, xen.ScatteredPool):
        control_page = xen.control_page(pool, request.xen)
    elif control_page is None:
        control_page = Phys(int(pool.take(1, "the control page")[0]) << PAGE_SHIFT)
    head = IND_DONE
    list_pages: dict[int, NDArray[np.unsignedinteger]] = {}
    if length and request.crash:
        head, list_pages = chained(words([]), list_frames)
    elif not request.crash:
        starts = np.cumsum([0, *(len(frames) for frames in per_segment)])
        runs = [
            (int(frames[0]), sources[at : at + len(frames)])
            for at, frames in zip(starts, per_segment, strict=False)
        ]
        head, list_pages = chained(words(runs), list_frames, per_page=per_page)
    identity = _identity(host, segments, sources[moved], list_frames, control_page, backup)
    # For every design: both chains of page_table_a, and an identity table, which i386 needs for one.
    tables = 1 + 2 * fmt.leaf + tables_bound(fmt, [each.extent for each in identity])
    if host.paging is Paging.LA57:
        tables += 2 * fmt.leaf  # the identity map has the two tables at its own top
    frames = pool.take(tables, "the page tables")
    reach = max(each.extent.end for each in identity)
    if reach > 1 << fmt.identity_bits:
        raise PlanError(
            f"{reach - 1:#x} has no linear address equal to itself with {fmt.name} paging",
            source=host.source,
            field="memory",
            limit=1 << fmt.identity_bits,
        )
    the_plan = Plan(
        image=image,
        host=described,
        segments=segments,
        destinations=destinations,
        sources=sources,
        head=head,
        list_pages=list_pages,
        control_page=control_page,
        relocation=host.relocation
        if host.relocation is not None
        else Virt(host.direct_map.virt + control_page),
        spare=_extents(np.sort(frames)),
        identity=identity,
        entry=entry,
        protocol=way.entry.protocol,
        kernel_entry=kernel_entry,
        entry_bits=way.entry.bits,
        arguments=arguments,
        command_line=request.command_line,
        inputs=inputs,
        crash=request.crash,
        backup=backup,
    )
    return xen.loaded(the_plan, request.xen, request.crashed, frames) if request.xen else the_plan


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


def _mapped_control_page(host: Host, unused: Sequence[Extent], request: Request) -> Phys | None:
    """The control page where V is in the direct map, and so the direct map has to have it; else None."""
    if host.relocation is not None or request.xen:
        return None
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


def _extents(frames: NDArray[np.int64]) -> tuple[Extent, ...]:
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


def _identity(
    host: Host,
    segments: Sequence[Segment],
    sources: NDArray[np.int64],
    list_frames: NDArray[np.int64],
    control_page: int,
    backup: Sequence[Backup],
) -> tuple[Named, ...]:
    """What page_table_b maps, each with its reason; extents of whole pages."""
    wanted = [Named(extent=Extent.sized(control_page, PAGE_SIZE), what="the control page")]
    wanted += [Named(extent=e, what="the page list") for e in _extents(np.sort(list_frames))]
    wanted += [Named(extent=e, what="sources") for e in _extents(np.sort(sources))]
    wanted += [Named(extent=each.destination, what=each.name) for each in segments]
    low_ram = whole_pages(within(LOW_MEMORY, host.memory.ram))
    wanted += [Named(extent=each, what="low memory, for the decompressor") for each in low_ram]
    wanted += [Named(extent=each.source, what="low memory, for the backup") for each in backup]
    wanted += [
        Named(extent=each.page_aligned(), what="ACPI tables")
        for each in host.memory.of(RegionKind.ACPI, RegionKind.NVS)
    ]
    wanted += [Named(extent=each.extent.page_aligned(), what=each.what) for each in host.firmware]
    return tuple(wanted)
