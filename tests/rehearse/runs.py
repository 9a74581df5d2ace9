"""Rehearsals that many tests look at: the shipped kernel on the example host, once per sabotage.

Rules: nothing here is asserted.  A run's memory belongs to its emulator, so a verdict whose memory is
looked at later has an emulator of its own; the others share one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from tests.makers.bzimage import bzimage
from tightrope import host as host_room
from tightrope import image as image_room
from tightrope import shipped
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.until import Spoken
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import Host, Image, Named, Paging, Verdict
from tightrope.plan import Request
from tightrope.sabotage import SABOTAGES


@cache
def shipped_kernel() -> Image:
    return image_room.read(shipped.read(), "the shipped kernel")


@cache
def example_host() -> Host:
    return host_room.read(host_room.example(), "the default host")


@cache
def mode_host(paging: Paging) -> Host:
    """The example host of a mode."""
    return host_room.read(host_room.example(paging), f"the {paging.value} host")


def home_of(name: str) -> Host:
    """A host that a sabotage can be done to: the default one where that will do."""
    each = SABOTAGES[name]
    paging = Paging.X86_64 if Paging.X86_64 in each.modes else each.modes[0]
    if each.backup:
        return low_memory_host(paging)
    return crash_host(paging) if each.crash else mode_host(paging)


CRASH_REGION = Extent.sized(0x3300_0000, 0x1000_0000)


@cache
def crash_host(paging: Paging = Paging.X86_64) -> Host:
    """The example host of a mode with a crash region."""
    text = host_room.example(paging, crash=CRASH_REGION)
    return host_room.read(text, f"the {paging.value} host with a crash region")


LOW_MEMORY = Extent.sized(0x5_0000, 0x2345)


@cache
def low_memory_host(paging: Paging = Paging.X86_64) -> Host:
    """The same with something of the old kernel's in low memory."""
    old = crash_host(paging)
    mine = Named(extent=LOW_MEMORY, what="something of the old kernel's")
    return replace(old, busy=(*old.busy, mine))


def shipped_request(scatter: int | None = None, *, crash: bool = False) -> Request:
    """The example initrd, and the word that makes the shipped kernel compare it."""
    initrd = shipped.example_initrd()
    return Request(
        initrd=initrd,
        command_line=shipped.initrd_argument(initrd),
        scatter=scatter,
        crash=crash,
    )


@cache
def shared() -> Emulator:
    """One emulator for all tests that do not look at memory afterwards."""
    return Emulator()


@cache
def sound() -> Verdict:
    """The good run, whose memory stays as the walk left it."""
    return rehearse(shipped_kernel(), example_host(), shipped_request(), machine=Emulator())


@cache
def entered_with_5_levels() -> Verdict:
    """A made kernel that accepts 5 levels, whose memory stays as the walk left it."""
    image = image_room.read(bzimage(), "a made kernel")
    return rehearse(image, mode_host(Paging.LA57), Request(), machine=Emulator())


@cache
def crashed(paging: Paging = Paging.X86_64, name: str | None = None) -> Verdict:
    """A crash walk of a mode, perhaps sabotaged, whose memory stays as the walk left it."""
    known = SABOTAGES.get(name or "")
    return rehearse(
        shipped_kernel(),
        low_memory_host(paging) if known and known.backup else crash_host(paging),
        shipped_request(crash=True),
        sabotage=SABOTAGES[name] if name else None,
        machine=Emulator(),
    )


@cache
def backed_up(paging: Paging = Paging.X86_64) -> Verdict:
    """A crash walk of a mode that saves low memory, whose memory stays as the walk left it."""
    return rehearse(
        shipped_kernel(),
        low_memory_host(paging),
        shipped_request(crash=True),
        machine=Emulator(),
    )


@cache
def heard(name: str | None = None) -> Verdict:
    """The shipped kernel, perhaps sabotaged, until it has spoken."""
    return rehearse(
        shipped_kernel(),
        example_host(),
        shipped_request(),
        sabotage=SABOTAGES[name] if name else None,
        until=Spoken(),
        machine=shared(),
    )


@cache
def fallen(name: str) -> Verdict:
    """The shipped kernel sabotaged, as far as its first instruction, where that can be done."""
    crash = SABOTAGES[name].crash
    return rehearse(
        shipped_kernel(),
        home_of(name),
        shipped_request(crash=crash),
        sabotage=SABOTAGES[name],
        machine=shared(),
    )
