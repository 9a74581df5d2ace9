"""The jump through a hypervisor on a whole PC: it says what the emulator says, and a kernel speaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.qemu.pcs import qemu
from tests.xen.runs import (
    KINDS,
    OUT,
    WAYS,
    Way,
    hypervisor,
    identifier,
    request,
    walk,
)
from tightrope import image as image_room
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.until import Spoken
from tightrope.machine.qemu import Qemu
from tightrope.model import Outcome, Step, Stop, XenCrash
from tightrope.plan import prepare
from tightrope.sabotage import named
from tightrope.x86.cpu import GENERAL


@pytest.fixture(scope="module")
def machine() -> Iterator[Qemu]:
    made = qemu(walk_seconds=120)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("way", "kind"),
    [*((way, None) for way in WAYS), *((OUT, kind) for kind in KINDS if kind)],
    ids=identifier,
)
def test_it_is_told_alike(way: Way, kind: XenCrash | None, machine: Qemu) -> None:
    """dom0's root lies above 2 GiB with i386 and PAE, where a sign must not be extended."""
    # Both with the PC's firmware, which is not what the example describes.
    host = machine.with_own_firmware(hypervisor(way))
    ours, theirs = walk(way, kind, host=host), walk(way, kind, host=host, machine=machine)
    assert [each.message for each in theirs.findings] == []
    assert theirs.outcome is Outcome.HOLDS
    names = GENERAL if ours.handover.intent.entry_bits == 64 else GENERAL[:8]
    mine, other = (
        replace(each.run.registers, general={n: each.run.registers.general[n] for n in names})
        for each in (ours, theirs)
    )
    assert mine == other
    for each in ours.handover.intent.segments:
        place = each.destination
        if each.name != "entry stub":
            assert theirs.run.memory.read(place) == ours.run.memory.read(place)
    if way[0] is not OUT[0]:
        assert ours.handover.world.pgd > 1 << 31


@pytest.mark.parametrize("name", ["xen-lme-stays", "xen-way-out-unmapped", "xen-bare-v"])
def test_a_way_out_that_falls_in_the_model_falls_on_a_pc(name: str, machine: Qemu) -> None:
    got = walk(OUT, sabotage=named(name), machine=machine)
    assert got.run.stop is Stop.FAULT
    assert got.run.fault is not None
    assert got.run.fault.step is Step.CALL
    assert "fetch-mapped" in {each.rule for each in got.findings}


def test_a_real_32_bit_kernel_speaks_after_long_mode_was_left(
    debian_686_pae: Path, machine: Qemu
) -> None:
    image = image_room.read(debian_686_pae.read_bytes(), debian_686_pae.name)
    asked = replace(request(OUT), initrd=None, command_line="earlyprintk=ttyS0,115200")
    assert prepare(image, hypervisor(OUT), asked).entry_bits == 32
    got = rehearse(image, hypervisor(OUT), asked, machine=machine, until=Spoken(seconds=240))
    assert [each.message for each in got.findings] == []
    assert got.console is not None
    assert got.console.lines
