"""Composing a plan: the entry, the destinations, frames for the rest, and who calls V.

Rules: this file decides the order of decisions, and refuses what cannot be asked whatever the image
is.  The way in comes first (`entering`), because it says what is laid; then the destinations
(`place`, or `taken` of another loader's), because the free frames are what is left (`allocate`);
who calls V comes last, because it is told of all of these.  Bad combinations raise PlanError with
the limit that was broken.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tightrope.errors import PlanError
from tightrope.model import (
    Bare,
    Host,
    Image,
    Inputs,
    Plan,
    Protocol,
    Through,
    XenInterface,
    called_at,
)
from tightrope.plan import taken, xen
from tightrope.plan.allocate import allocate, extents, own, reach, table_frames, whole
from tightrope.plan.entering import Way, laid_for, way_in
from tightrope.plan.place import place
from tightrope.plan.request import Request


def prepare(image: Image, host: Host, request: Request) -> Plan:
    """The plan.  Raises PlanError; nothing is read or written but the arguments."""
    _refuse(host, request)
    walked = xen.as_walked(host, request.xen)
    if request.loaded is not None:
        request = replace(request, protocol=taken.protocol(image, walked, request.loaded))
    image, way = _way(image, host, walked, request)
    request = _carried(image, request)
    if request.loaded is None:
        placed = place(image, host, walked, request, way)
    else:
        placed = taken.take(image, request.loaded, way.entry)
        request = taken.told(placed, request)
    inputs = Inputs(
        command_line=request.command_line, initrd=request.initrd, modules=request.modules
    )
    frames = allocate(walked, request, placed.segments)
    needed = reach(walked, placed.segments, placed.backup)
    identity = (*own(frames), *needed)
    memory = whole(walked) if request.whole_memory else ()
    tables = table_frames(walked, identity, frames, memory)
    identity = (*identity, *memory)
    through: Through = Bare()
    if request.xen:
        through = xen.through(
            host,
            request.xen,
            request.crashed if request.crash else None,
            control_page=frames.control_page,
            tables=tables,
            segments=placed.segments,
            reach=needed,
            legacy=way.entry.bits == 32,
        )
    return Plan(
        image=image,
        host=host,
        paging=walked.paging,
        through=through,
        segments=placed.segments,
        destinations=frames.destinations,
        sources=frames.sources,
        head=frames.head,
        list_pages=frames.list_pages,
        control_page=frames.control_page,
        relocation=called_at(through, host, frames.control_page),
        spare=extents(np.sort(tables)),
        identity=identity,
        entry=placed.entry,
        stub=way.stub,
        protocol=way.entry.protocol,
        kernel_entry=placed.kernel_entry,
        entry_bits=way.entry.bits,
        arguments=placed.arguments,
        command_line=placed.command_line,
        inputs=inputs,
        crash=request.crash,
        backup=placed.backup,
        loaded=request.loaded,
    )


def _refuse(host: Host, request: Request) -> None:
    """Raise PlanError for what cannot be asked, whatever the image is."""
    if host.xen is not None and request.xen is None:
        raise PlanError(
            "the host is a hypervisor: say how dom0 asks for the jump, --xen v1 or --xen v2",
            source=host.source,
            field="xen",
        )
    if request.backup and not request.crash:
        raise PlanError(
            "only a crash kexec saves low memory", source="command line", field="backup"
        )
    if request.loaded is not None and (request.xen or request.modules):
        raise PlanError("takes no modules, and no hypervisor", source=request.loaded.source)
    if request.scatter is not None and request.scatter < 0:
        raise PlanError(
            f"{request.scatter} is not a seed: they are whole numbers from 0 up",
            source="command line",
            field="scatter",
            limit=0,
        )


def _way(image: Image, host: Host, walked: Host, request: Request) -> tuple[Image, Way]:
    """The way into the image, and the image as it is laid for that."""
    wanted = request.protocol
    if request.xen:
        bits = xen.hypervisor(host, request.xen).dom0.bits
        if wanted is None and request.xen is XenInterface.V2 and bits == 32:
            wanted = Protocol.LINUX_32  # a 32-bit kexec-tools loads for EM_386
    image = laid_for(image, wanted)
    way = way_in(image, walked, wanted)
    return image, xen.exit_through(way) if request.xen is XenInterface.V2 else way


def _carried(image: Image, request: Request) -> Request:
    """The request with what the image carries where it asks for nothing of its own."""
    if request.initrd is None and image.initrd is not None:
        request = replace(request, initrd=image.initrd, initrd_source=image.source)
    if not request.command_line and image.command_line is not None:
        request = replace(request, command_line=image.command_line)
    return request
