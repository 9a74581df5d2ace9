"""Composing a plan: place the segments, choose the frames, write the list.

Rules: this file decides the order of decisions and nothing else: the entry, the destinations, what the
new kernel is handed, then frames for the rest (`allocate`), and at last who calls V.  Bad combinations raise PlanError with the limit that was broken.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tightrope.errors import PlanError
from tightrope.memory import PAGE_SIZE, Extent, Phys
from tightrope.model import (
    Backup,
    Bare,
    Host,
    Image,
    Inputs,
    Plan,
    Protocol,
    Segment,
    SegmentRole,
    Through,
    XenInterface,
    called_at,
)
from tightrope.plan import xen
from tightrope.plan.allocate import allocate, extents, own, reach, table_frames
from tightrope.plan.backup import back_up, with_routine
from tightrope.plan.crash import WORD, core_header, crash_memory_map, with_core_header
from tightrope.plan.entering import filled, laid_for, way_in
from tightrope.plan.handed import New, handed
from tightrope.plan.moved import moved
from tightrope.plan.request import Request
from tightrope.plan.room import Room
from tightrope.routines import read as read_routine


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
    image = laid_for(image, wanted)
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
        place = room.small(SegmentRole.CORE_HEADER, len(header))
        segments.append(
            Segment(role=SegmentRole.CORE_HEADER, destination=place, data=header, why=WORD)
        )
        segments += kept
        line = with_core_header(request.command_line, place)
        request = replace(request, command_line=line)
        memory = crash_memory_map(host, [place, *(each.destination for each in kept)])
    new = New(image=image, base=base, memory=memory, host=host)
    given = handed(new, protocol, request, room)
    stub_at = room.small(SegmentRole.ENTRY_STUB, PAGE_SIZE)
    kernel_entry = Phys(base + way.entry.offset)
    page, leads_to = read_routine(way.stub).data, kernel_entry
    if backup:
        page, leads_to = with_routine(
            page, way.entry.bits, Phys(stub_at.start), backup, kernel_entry, host.source
        )
    stub = Segment(
        role=SegmentRole.ENTRY_STUB,
        destination=stub_at,
        data=filled(way, page, leads_to, given.registers),
        why="where a purgatory would be",
    )
    segments = [*segments, *given.segments, stub]
    frames = allocate(host, request, segments)
    needed = reach(host, segments, backup)
    identity = (*own(frames), *needed)
    tables = table_frames(host, identity, frames)
    through: Through = Bare()
    if request.xen:
        through = xen.through(
            described,
            request.xen,
            request.crashed if request.crash else None,
            control_page=frames.control_page,
            tables=tables,
            segments=segments,
            reach=needed,
            legacy=way.entry.bits == 32,
        )
    return Plan(
        image=image,
        host=described,
        paging=host.paging,
        through=through,
        segments=tuple(segments),
        destinations=frames.destinations,
        sources=frames.sources,
        head=frames.head,
        list_pages=frames.list_pages,
        control_page=frames.control_page,
        relocation=called_at(through, described, frames.control_page),
        spare=extents(np.sort(tables)),
        identity=identity,
        entry=Phys(stub_at.start),
        stub=way.stub,
        protocol=protocol,
        kernel_entry=kernel_entry,
        entry_bits=way.entry.bits,
        arguments=given.registers,
        command_line=request.command_line,
        inputs=inputs,
        crash=request.crash,
        backup=backup,
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
                role=SegmentRole.KERNEL,
                number=number,
                destination=destination,
                data=bytes(before) + part.data if before else part.data,
                why=why,
            )
        )
    return segments
