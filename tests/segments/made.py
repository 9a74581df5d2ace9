"""A loader of the tests' own: our plan's places, and a purgatory that adds bytes up.

Rules: what is loaded is what a segments file has; the rehearsal's part begins there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

from tests.makers.bzimage import bzimage
from tests.makers.cpio import archive
from tests.makers.purgatory import SIZE, purgatory
from tests.makers.segments import segments_file
from tightrope import host, image
from tightrope.deeds import segments
from tightrope.deeds.rehearse import rehearse
from tightrope.machine.unicorn import Emulator
from tightrope.model import Host, Image, Loaded, Plan, SegmentRole, Step, Verdict
from tightrope.plan import Request, prepare
from tightrope.record import file
from tightrope.sabotage.edits import edit_segment
from tightrope.sabotage.sabotage import Sabotage

LINE = "console=ttyS0 quiet"
INITRD = archive({"init": b"#!/bin/sh\n" * 900})


@cache
def machine() -> Emulator:
    return Emulator(instruction_limit=3_000_000)


@cache
def kernel() -> Image:
    return image.read(bzimage(kernel_size=9000, init_size=0x1_0000), "made")


@cache
def old() -> Host:
    return host.read(host.example(), "the example")


@cache
def plan() -> Plan:
    return prepare(kernel(), old(), Request(initrd=INITRD, command_line=LINE))


@dataclass(frozen=True, kw_only=True)
class Made:
    """What of the purgatory is not as it should be."""

    digests: bool = True
    total: int | None = None
    left_out: bool = False
    """The last segment is in no digest."""
    params: int = 0
    entry: int = 0
    """How far they are off."""


def load(made: Made = Made()) -> bytes:
    """The segments file of a load."""
    every = [each for each in plan().segments if each.role is not SegmentRole.ENTRY_STUB]
    rows = [(each.destination.start, each.destination.size, bytes(each.data)) for each in every]
    ranges = rows if made.digests else []
    if made.left_out:
        ranges = ranges[:-1]
    params = plan().boot_params + made.params
    code = purgatory(
        ranges,
        params,
        plan().kernel_entry + made.entry,
        total=made.total,
    )
    stub = next(each for each in plan().segments if each.role is SegmentRole.ENTRY_STUB)
    at = stub.destination.start - SIZE
    assert not any(start < at + SIZE and at < start + size for start, size, _ in rows)
    return segments_file([*rows, (at, SIZE, code)], entry=at, loader="a made loader 1.0")


def loaded(made: Made = Made()) -> Loaded:
    return segments.recorded(file.read(load(made), "made.segments"))


def walked(
    what: Loaded, damage: tuple[SegmentRole, int] | None = None, on: Emulator | None = None
) -> Verdict:
    """Its rehearsal; `damage` flips one bit of a segment after it was loaded."""
    sabotage = None
    if damage is not None:
        role, at = damage
        sabotage = Sabotage(
            name="a flipped bit",
            says="",
            rule="digest-agrees",
            step=Step.COPY,
            handover=lambda handover: edit_segment(handover, role, flipped(at), planned=False),
        )
    return rehearse(
        kernel(),
        old(),
        replace(segments.request(what, Request())),
        machine=on or machine(),
        sabotage=sabotage,
    )


def flipped(at: int) -> Callable[[bytearray], None]:
    def change(data: bytearray) -> None:
        data[at] ^= 1

    return change
