"""Debian's kernels from every mode: the walk holds with an initrd, and an lz4 one unpacks itself.

Rules: that each kernel says its first line is tested without its decompressor, in tests/entries.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from tests.makers import cpio
from tests.rehearse.runs import mode_host
from tests.stand_ins.played import Fake
from tightrope import image as image_room
from tightrope.deeds.rehearse import CONSOLE_WORDS, rehearse
from tightrope.deeds.until import ENTRY, Spoken, Until
from tightrope.machine.port import Machine
from tightrope.machine.unicorn import Emulator
from tightrope.model import Image, Outcome, Paging, Protocol, Verdict
from tightrope.plan import Request

OWN = [("debian_686", Paging.I386), ("debian_686_pae", Paging.PAE)]
ACROSS = [
    ("debian_686", Paging.PAE),
    ("debian_686", Paging.X86_64),
    ("debian_686_pae", Paging.I386),
    ("debian_686_pae", Paging.LA57),
    ("debian_cloud", Paging.I386),
    ("debian_cloud", Paging.PAE),
    ("debian_cloud", Paging.X86_64),
    ("debian_cloud", Paging.LA57),
]


@cache
def read(path: Path) -> Image:
    return image_room.read(path.read_bytes(), path.name)


@cache
def three_megabytes() -> bytes:
    return cpio.initrd(3 << 20)


def enter(
    path: Path,
    paging: Paging,
    *,
    scatter: int | None = None,
    until: Until = ENTRY,
    machine: Machine | None = None,
) -> Verdict:
    got = rehearse(
        read(path),
        mode_host(paging),
        Request(
            initrd=three_megabytes(),
            command_line=CONSOLE_WORDS,
            scatter=scatter,
            protocol=Protocol.LINUX_32,
        ),
        until=until,
        machine=machine or Emulator(),
    )
    assert got.findings == ()
    return got


@pytest.mark.parametrize("scatter", [None, 7])
@pytest.mark.parametrize(("flavour", "paging"), [*OWN, *ACROSS])
def test_a_real_kernel_is_reached_through_its_32_bit_entry(
    flavour: str, paging: Paging, scatter: int | None, request: pytest.FixtureRequest
) -> None:
    got = enter(request.getfixturevalue(flavour), paging, scatter=scatter)
    assert got.outcome is Outcome.HOLDS
    assert got.run.registers.rip == got.handover.intent.segments[0].destination.start
    initrd = next(each for each in got.handover.intent.segments if each.name == "initrd")
    assert bytes(got.run.memory.read(initrd.destination)) == three_megabytes()


@pytest.mark.parametrize(("flavour", "paging"), OWN)
def test_the_fake_machine_agrees(
    flavour: str, paging: Paging, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(flavour)
    one, other = enter(path, paging), enter(path, paging, machine=Fake())
    assert one.run.copies[:, 1:].tolist() == other.run.copies[:, 1:].tolist()
    assert one.run.registers.general == other.run.registers.general


@pytest.mark.parametrize("flavour", ["debian_686", "debian_686_pae"])
def test_a_32_bit_kernel_has_no_other_entry(flavour: str, request: pytest.FixtureRequest) -> None:
    image = read(request.getfixturevalue(flavour))
    assert [each.protocol for each in image.entries] == [Protocol.LINUX_32]
    assert not image.above_4g


def first_line(got: Verdict) -> str:
    assert got.console is not None
    assert got.console.stopped == "the first line is whole", got.console
    return got.console.lines[-1]


def test_a_64_bit_kernel_says_its_version_behind_its_32_bit_entry(debian_cloud: Path) -> None:
    """From PAE: its decompressor enters long mode by itself."""
    said = first_line(enter(debian_cloud, Paging.PAE, until=Spoken(seconds=280)))
    assert f"Linux version {debian_cloud.name.removeprefix('vmlinuz-')} " in said
