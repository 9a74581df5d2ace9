"""Rehearsals of small made kernels in every paging mode.

Rules: nothing here is asserted.  One emulator serves all; a run's memory is good until the next run.
"""

from __future__ import annotations

import functools

from tests.makers import cpio
from tests.makers.hosts import FOUR_FOUR, SPLITS, read_image
from tightrope.deeds.rehearse import rehearse
from tightrope.machine.port import Machine
from tightrope.machine.unicorn import Emulator
from tightrope.model import Host, Image, Paging, Protocol, Verdict
from tightrope.plan import Request
from tightrope.sabotage import named

LEGACY = (Paging.I386, Paging.PAE)
PLACES: list[tuple[Paging, int | None]] = [
    *((paging, split) for paging in LEGACY for split in (*SPLITS, FOUR_FOUR)),
    (Paging.X86_64, None),
    (Paging.LA57, None),
]
"""Every mode with every place of its direct map."""
XLF_5LEVEL = 1 << 5


@functools.cache
def shared() -> Emulator:
    return Emulator()


@functools.cache
def impatient() -> Emulator:
    """For walks that may run into data, which a CPU takes for code as far as memory goes."""
    return Emulator(instruction_limit=12_000)


@functools.cache
def kernel(**fields: int) -> Image:
    """A made bzImage with both entries."""
    return read_image(**fields)


def request(
    *, scatter: int | None = None, protocol: Protocol | None = None, initrd: int = 9000
) -> Request:
    """A request with an initrd that is not all the same."""
    return Request(
        initrd=cpio.initrd(initrd),
        command_line="console=ttyS0",
        scatter=scatter,
        protocol=protocol,
    )


def walk(
    old: Host,
    new: Image | None = None,
    *,
    scatter: int | None = None,
    protocol: Protocol | None = None,
    sabotage: str | None = None,
    machine: Machine | None = None,
) -> Verdict:
    """A rehearsal of a made kernel."""
    return rehearse(
        new or kernel(),
        old,
        request(scatter=scatter, protocol=protocol),
        sabotage=named(sabotage) if sabotage else None,
        machine=machine or shared(),
    )
