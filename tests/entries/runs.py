"""Walks to every entry that is not Linux's own, from every mode.

Rules: nothing here is asserted.  One emulator serves all; a run's memory is good until the next run.
"""

from __future__ import annotations

from functools import cache

from tests.makers.elf import elf, pvh_note
from tests.makers.hosts import MIB, mode_host
from tests.makers.multiboot import flat_kernel
from tests.makers.told import Reader
from tests.modes.runs import shared
from tightrope import image as image_room
from tightrope.deeds.rehearse import rehearse
from tightrope.machine.port import Machine
from tightrope.memory import Extent
from tightrope.model import Host, Image, Memory, Paging, Protocol, Verdict
from tightrope.plan import Module, Request
from tightrope.sabotage import named

BASE = 16 * MIB
TOLD = (Protocol.MULTIBOOT, Protocol.MULTIBOOT2, Protocol.PVH)
"""Protocols that hand over more than the kernel."""
MODULES = (
    Module(data=b"dom0" * 1500, source="boot/vmlinuz", arguments="console=hvc0 quiet"),
    Module(data=b"\x01", source="initrd.img"),
)
LINE = "com1=115200 loglvl=all"


@cache
def kernel(protocol: Protocol, bits: int = 32) -> Image:
    """A small made kernel with this one entry."""
    if protocol is Protocol.FLAT:
        return image_room.read_flat(b"\xf4\xeb\xfd", "dir/flat.bin", BASE, bits)
    if protocol is Protocol.PVH:
        return image_room.read(elf(notes=pvh_note(BASE), bits=bits), "dir/pvh kernel")
    version = 1 if protocol is Protocol.MULTIBOOT else 2
    return image_room.read(flat_kernel(version=version), "dir/xen.gz (unpacked)")


def request(protocol: Protocol) -> Request:
    """All that the protocol can hand over."""
    if protocol is Protocol.FLAT:
        return Request()
    return Request(command_line=LINE, modules=MODULES)


def walk(
    protocol: Protocol,
    paging: Paging | Host,
    *,
    bits: int = 32,
    asked: Request | None = None,
    sabotage: str | None = None,
    machine: Machine | None = None,
) -> Verdict:
    return rehearse(
        kernel(protocol, bits),
        mode_host(paging) if isinstance(paging, Paging) else paging,
        asked or request(protocol),
        sabotage=named(sabotage) if sabotage else None,
        machine=machine or shared(),
    )


def reader(memory: Memory) -> Reader:
    return lambda at, size: bytes(memory.read(Extent.sized(at, size)))
