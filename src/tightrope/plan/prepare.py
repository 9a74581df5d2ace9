"""Composing a plan: the destinations, frames for the rest, and who calls V.

Rules: this file decides the order of decisions.  The destinations come first (`destinations`),
because the free frames are what is left (`allocate`); who calls V comes last, because it is told of
all of these.  Bad combinations raise PlanError with the limit that was broken.
"""

from __future__ import annotations

import numpy as np

from tightrope.model import Bare, Host, Image, Inputs, Plan, Through, called_at
from tightrope.plan import xen
from tightrope.plan.allocate import allocate, extents, own, reach, table_frames, whole
from tightrope.plan.destinations import destinations
from tightrope.plan.request import Request


def prepare(image: Image, host: Host, request: Request) -> Plan:
    """The plan.  Raises PlanError; nothing is read or written but the arguments."""
    found = destinations(image, host, request)
    image, walked, request, way, placed = (
        found.image,
        found.walked,
        found.request,
        found.way,
        found.placed,
    )
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
