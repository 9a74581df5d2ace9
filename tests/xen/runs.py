"""Hypervisors and rehearsals that several tests of the jump through Xen look at.

Rules: nothing here is asserted.  One emulator serves all; a run's memory is good until the next run.
"""

from __future__ import annotations

from functools import cache

from tests.rehearse.runs import shipped_kernel
from tightrope import host as host_room
from tightrope import shipped
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.until import ENTRY, Until
from tightrope.machine.port import Machine
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import (
    Host,
    Intent,
    PageList,
    Paging,
    Protocol,
    Verdict,
    XenCrash,
    XenInterface,
    XenV2,
)
from tightrope.plan import Request
from tightrope.sabotage import Sabotage

CRASH_REGION = Extent.sized(0x4000_1000, 0x1000_0000)
V1, V2 = XenInterface.V1, XenInterface.V2
Way = tuple[Paging, XenInterface, int]
"""The hypervisor's paging, the interface, dom0's bits."""
WAYS: tuple[Way, ...] = (
    (Paging.I386, V1, 32),
    (Paging.PAE, V1, 32),
    (Paging.X86_64, V1, 64),
    (Paging.X86_64, V2, 64),
    (Paging.X86_64, V2, 32),
    (Paging.X86_64, V1, 32),
)
OLD_WAYS = WAYS[:3]
NEW_WAYS = WAYS[3:5]
OUT = WAYS[5]
"""The one in which the hypervisor leaves long mode before it calls dom0's code."""
V1_WAYS = (*OLD_WAYS, OUT)
KINDS: tuple[XenCrash | None, ...] = (None, *XenCrash)


def walked(way: Way) -> Paging:
    """The tables of the code that walks."""
    return Paging.PAE if way == OUT else way[0]


def identifier(value: object) -> str:
    """For pytest: a way, or a kind, in words."""
    if isinstance(value, tuple):
        paging, interface, bits = value
        return f"{paging.value}-{interface.value}-dom0-{bits}"
    return getattr(value, "value", None) or str(value).replace("None", "kexec")


@cache
def document(way: Way) -> str:
    paging, interface, bits = way
    return host_room.xen_example(paging, interface, dom0_bits=bits, crash=CRASH_REGION)


@cache
def hypervisor(way: Way) -> Host:
    return host_room.read(document(way), "an example hypervisor")


@cache
def shared() -> Emulator:
    return Emulator()


def request(
    way: Way,
    kind: XenCrash | None = None,
    *,
    scatter: int | None = None,
    protocol: Protocol | None = None,
    backup: bool | None = None,
) -> Request:
    initrd = shipped.example_initrd()
    return Request(
        initrd=initrd,
        command_line=shipped.initrd_argument(initrd),
        scatter=scatter,
        crash=kind is not None,
        crashed=kind or XenCrash.DOM0,
        xen=way[1],
        protocol=protocol,
        backup=backup,
    )


def walk(
    way: Way,
    kind: XenCrash | None = None,
    *,
    host: Host | None = None,
    scatter: int | None = None,
    protocol: Protocol | None = None,
    backup: bool | None = None,
    design: str = "two-tables",
    sabotage: Sabotage | None = None,
    until: Until = ENTRY,
    machine: Machine | None = None,
) -> Verdict:
    """A rehearsal of the shipped kernel."""
    return rehearse(
        shipped_kernel(),
        host or hypervisor(way),
        request(way, kind, scatter=scatter, protocol=protocol, backup=backup),
        design=design,
        sabotage=sabotage,
        until=until,
        machine=machine or shared(),
    )


def handed_over(intent: Intent) -> PageList:
    """What dom0 handed over by v1."""
    assert isinstance(intent.through, PageList)
    return intent.through


def loaded_by_v2(intent: Intent) -> XenV2:
    """What dom0 loaded by v2."""
    assert isinstance(intent.through, XenV2)
    return intent.through
