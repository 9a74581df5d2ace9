"""Where the new kernel and what it is handed go: the destinations, with their bytes.

Rules: the kernel comes first, because it is the pickiest; then what a crash kernel is handed of the
old one, then what the protocol hands over, and the entry stub last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tightrope.memory import PAGE_SIZE, Extent, Phys
from tightrope.model import Backup, Host, Image, Protocol, Segment, SegmentRole
from tightrope.plan.backup import back_up, with_routine
from tightrope.plan.crash import WORD, core_header, crash_memory_map, with_core_header
from tightrope.plan.entering import Way, filled
from tightrope.plan.handed import New, handed
from tightrope.plan.moved import moved
from tightrope.plan.purgatory import purgatory
from tightrope.plan.request import Request
from tightrope.plan.room import Room
from tightrope.routines import read as read_routine


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """Every destination, and what follows from where they are."""

    segments: tuple[Segment, ...]
    entry: Phys
    kernel_entry: Phys
    arguments: Mapping[str, int]
    command_line: str
    """With what a crash kernel is told in it."""
    backup: tuple[Backup, ...]


def place(image: Image, host: Host, walked: Host, request: Request, way: Way) -> Placed:
    """Room for everything.  `walked` is the host as the code sees it that walks.  Raises
    PlanError."""
    room = Room(
        walked,
        image,
        below_4g=way.below_4g,
        fixed=way.fixed,
        crash=request.crash,
        from_top=request.from_top,
    )
    load = room.kernel()
    base = Phys(image.pref_address if image.pref_address in load else load.start)
    segments = _kernel(image, base, from_top=request.from_top)
    memory = walked.memory
    backup: tuple[Backup, ...] = ()
    # Whoever has no command line cannot be told where a core header lies.
    if request.crash and way.entry.protocol is not Protocol.FLAT:
        kept, backup = back_up(walked, request.backup, room)
        header = core_header(host, backup)
        at = room.small(SegmentRole.CORE_HEADER, len(header))
        segments.append(
            Segment(role=SegmentRole.CORE_HEADER, destination=at, data=header, why=WORD)
        )
        segments += kept
        request = replace(request, command_line=with_core_header(request.command_line, at))
        memory = crash_memory_map(walked, [at, *(each.destination for each in kept)])
    new = New(image=image, base=base, memory=memory, host=walked)
    given = handed(new, way.entry.protocol, request, room)
    kernel_entry = Phys(base + way.entry.offset)
    stub = _stub(way, walked, room, backup, kernel_entry, given.registers)
    segments = [*segments, *given.segments, stub]
    entry = Phys(stub.destination.start)
    if request.verify:
        first = purgatory(walked, segments[:-1], stub, request.verify, room, request.digest)
        segments.append(first)
        entry = Phys(first.destination.start)
    return Placed(
        segments=tuple(segments),
        entry=entry,
        kernel_entry=kernel_entry,
        arguments=given.registers,
        command_line=request.command_line,
        backup=backup,
    )


def _stub(
    way: Way,
    walked: Host,
    room: Room,
    backup: tuple[Backup, ...],
    kernel_entry: Phys,
    registers: Mapping[str, int],
) -> Segment:
    """The entry stub, with the routine that saves low memory where there is some to save."""
    at = room.small(SegmentRole.ENTRY_STUB, PAGE_SIZE)
    page, leads_to = read_routine(way.stub).data, kernel_entry
    if backup:
        page, leads_to = with_routine(
            page, way.entry.bits, Phys(at.start), backup, kernel_entry, walked.source
        )
    return Segment(
        role=SegmentRole.ENTRY_STUB,
        destination=at,
        data=filled(way, page, leads_to, registers),
        why="where a purgatory would be",
    )


def _kernel(image: Image, base: Phys, *, from_top: bool) -> list[Segment]:
    """One segment for each part, whole pages; a part that begins inside a page has zeros before
    it."""
    parts = moved(image, base - image.pref_address)
    why = f"init_size {image.init_size:#x} from " + (
        "pref_address"
        if base == image.pref_address
        else f"the {'highest' if from_top else 'first'} place that fits"
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
