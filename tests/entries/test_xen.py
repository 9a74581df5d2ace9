"""Bare Linux to Xen: Debian's hypervisor with a kernel and an initrd as modules, until it speaks."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.entries.runs import reader
from tests.makers.told import multiboot, multiboot2
from tests.rehearse.runs import crash_host, mode_host
from tightrope import image as image_room
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.until import ENTRY, Spoken, Until
from tightrope.errors import PlanError
from tightrope.machine.unicorn import Emulator
from tightrope.model import Image, Outcome, Paging, Protocol, Verdict
from tightrope.plan import Module, Request

XEN_WORDS = "com1=115200,8n1 console=com1 no-real-mode"
"""Without no-real-mode Xen asks a BIOS, and there is none."""


@cache
def read(path: Path) -> Image:
    return image_room.read(path.read_bytes(), str(path))


def walk(
    xen: Path, dom0: Path, paging: Paging, protocol: Protocol, *, until: Until = ENTRY
) -> Verdict:
    return rehearse(
        read(xen),
        mode_host(paging),
        Request(
            command_line=XEN_WORDS,
            modules=(
                Module(data=dom0.read_bytes(), source=dom0.name, arguments="console=hvc0"),
                Module(data=bytes(range(256)) * 4096, source="initrd.img"),
            ),
            protocol=protocol,
        ),
        until=until,
        machine=Emulator(),
    )


@pytest.mark.parametrize("paging", list(Paging))
@pytest.mark.parametrize("protocol", [Protocol.MULTIBOOT, Protocol.MULTIBOOT2])
def test_xen_is_reached_and_says_its_version(
    protocol: Protocol, paging: Paging, xen_hypervisor: Path, debian_cloud: Path
) -> None:
    got = walk(xen_hypervisor, debian_cloud, paging, protocol, until=Spoken(seconds=60))
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    assert got.console is not None
    assert got.console.stopped == "the first line is whole"
    assert got.console.lines[0].startswith("(XEN) Xen version 4.")


def test_xen_that_asks_a_bios_is_told_that_there_is_none(xen_hypervisor: Path) -> None:
    request = Request(command_line=XEN_WORDS.replace(" no-real-mode", ""))
    host = mode_host(Paging.X86_64)
    got = rehearse(read(xen_hypervisor), host, request, until=Spoken(), machine=Emulator())
    assert (got.outcome, got.findings) == (Outcome.UNKNOWN, ())
    assert got.console is not None
    assert "int 0x15 in real mode at " in got.console.stopped
    assert "there is no BIOS to call" in got.console.stopped


@pytest.mark.parametrize("protocol", [Protocol.MULTIBOOT, Protocol.MULTIBOOT2])
def test_the_modules_are_the_very_files(
    protocol: Protocol, xen_hypervisor: Path, debian_cloud: Path
) -> None:
    got = walk(xen_hypervisor, debian_cloud, Paging.X86_64, protocol)
    read_memory = reader(got.run.memory)
    told = (multiboot if protocol is Protocol.MULTIBOOT else multiboot2)(
        read_memory, got.run.registers.general["rbx"]
    )
    assert told.line == f"{xen_hypervisor.name} {XEN_WORDS}"
    [kernel, initrd] = told.modules
    assert kernel[2] == f"{debian_cloud.name} console=hvc0"
    assert read_memory(kernel[0], kernel[1] - kernel[0]) == debian_cloud.read_bytes()
    assert read_memory(initrd[0], initrd[1] - initrd[0]) == bytes(range(256)) * 4096


def test_xen_itself_cannot_be_moved_into_a_crash_region(xen_hypervisor: Path) -> None:
    with pytest.raises(
        PlanError, match=r"has to be loaded at .* not all of that is the crash region"
    ):
        rehearse(read(xen_hypervisor), crash_host(), Request(crash=True), machine=Emulator())
