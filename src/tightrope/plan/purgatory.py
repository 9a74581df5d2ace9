"""Our purgatory for a plan: which segments it looks at, and what it does when one is not what was
loaded.

    rows   address, bytes, digest, name    one for each segment, over the bytes that were loaded
    words  stub_entry, resets

Rules: zeros behind a segment's bytes are not read: nobody needs them to be zeros that does not
clear them.  The segments are finished when they come here; the purgatory itself is not among them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from tightrope.abi.kexec import SEGMENT_MAX
from tightrope.errors import PlanError
from tightrope.memory import PAGE_SIZE, Extent, Phys
from tightrope.model import Buffer, Host, OnDamage, Segment, SegmentRole
from tightrope.plan.room import Room
from tightrope.routines import PURGATORY_64, read

CODE = 2 * PAGE_SIZE
SIZE = CODE + PAGE_SIZE
"""Pages that are read, and one that is written."""
STRIPES, BLOCK = 8, 64
ROW = 64
NAME = 16
SHORTER = {
    SegmentRole.MULTIBOOT: "Multiboot info",
    SegmentRole.MULTIBOOT2: "Multiboot2 info",
    SegmentRole.BACKUP: "low memory",
}
"""What a segment is called in a row where its name does not fit."""


def purgatory(
    host: Host,
    segments: Sequence[Segment],
    stub: Segment,
    damage: OnDamage,
    room: Room,
    digested: Callable[[Buffer], bytes] | None = None,
) -> Segment:
    """The segment; `digested` stands in for `digest` where it is faster.

    Raises PlanError where its code cannot run, or where it has too few rows.
    """
    if not host.paging.long_mode or host.xen is not None:
        raise PlanError(
            "a purgatory that verifies is 64-bit code for a bare Linux",
            source=host.source,
            field="paging",
        )
    looked_at = [each for each in (*segments, stub) if len(each.data)]
    if len(looked_at) > SEGMENT_MAX:
        raise PlanError(
            f"{len(looked_at)} segments are more than a purgatory looks at",
            source=host.source,
            field="segments",
            limit=SEGMENT_MAX,
        )
    place = room.small(SegmentRole.PURGATORY, SIZE)
    why = "looks at every other segment and goes on to the entry stub"
    data = filled(looked_at, Phys(stub.destination.start), damage, digested or digest)
    return Segment(role=SegmentRole.PURGATORY, destination=place, data=data, why=why)


def filled(
    segments: Sequence[Segment],
    stub: Phys,
    damage: OnDamage,
    digested: Callable[[Buffer], bytes],
) -> bytes:
    """The pages of code with its words and rows."""
    routine = read(PURGATORY_64)
    data = bytearray(routine.data[:CODE])
    for symbol, value in (("stub_entry", stub), ("resets", int(damage is OnDamage.RESET))):
        at = routine.symbols[symbol]
        data[at : at + 8] = value.to_bytes(8, "little")
    at = routine.symbols["rows"]
    for each in segments:
        data[at : at + ROW] = _row(each, digested(each.data))
        at += ROW
    return bytes(data)


def digest(data: Buffer) -> bytes:
    """32 bytes: SHA-256 of nine digests, of eight stripes of whole blocks and of what is left.

    A CPU without SHA instructions makes eight digests at once as fast as it makes one.
    """
    view = memoryview(data).cast("B")
    size = len(view) // (STRIPES * BLOCK) * BLOCK
    parts = [view[n * size : (n + 1) * size] for n in range(STRIPES)]
    nine = (*parts, view[STRIPES * size :])
    return hashlib.sha256(b"".join(hashlib.sha256(each).digest() for each in nine)).digest()


def _row(segment: Segment, digest: bytes) -> bytes:
    where = Extent.sized(segment.destination.start, len(segment.data))
    return (
        where.start.to_bytes(8, "little")
        + where.size.to_bytes(8, "little")
        + digest
        + spoken(segment).encode().ljust(NAME, b"\0")
    )


def spoken(segment: Segment) -> str:
    """What the purgatory calls a segment: "... is damaged"."""
    return SHORTER.get(segment.role, segment.name)[:NAME]
