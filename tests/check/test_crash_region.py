"""The crash region judged: what surely cannot boot there is a finding, what may not is advice."""

from __future__ import annotations

import gzip
from dataclasses import replace

import pytest

from tests.makers import cpio
from tests.makers.bzimage import bzimage
from tightrope import host as host_room
from tightrope import image as image_room
from tightrope.deeds.rehearse import rehearse
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import Finding, Host, Named, Outcome, Verdict
from tightrope.plan import Request

MIB = 1 << 20
BELOW, ABOVE = 0x3300_0000, 0x1_0000_0000


@pytest.fixture(scope="module")
def machine() -> Emulator:
    return Emulator()


def dying(size: int, start: int = BELOW) -> Host:
    text = host_room.example(crash=Extent.sized(start, size * MIB))
    return host_room.read(text, f"a host with {size} MiB for a crash")


def walked(machine: Emulator, old: Host, initrd: bytes | None = None, line: str = "") -> Verdict:
    """A kernel with 32 MiB of init_size."""
    kernel = image_room.read(bzimage(init_size=32 * MIB), "vmlinuz")
    request = Request(crash=True, initrd=initrd, command_line=line)
    return rehearse(kernel, old, request, machine=machine)


def said(found: tuple[Finding, ...]) -> list[str]:
    return [each.rule for each in found]


@pytest.mark.parametrize(
    ("size", "findings", "advice"),
    [
        (39, ["crash-region-room"], []),
        (40, [], ["crash-region-room"]),
        (55, [], ["crash-region-room"]),
        (56, [], []),
    ],
)
def test_a_region_is_too_small_may_be_or_is_enough(
    machine: Emulator, size: int, findings: list[str], advice: list[str]
) -> None:
    got = walked(machine, dying(size))
    assert (said(got.findings), said(got.advice)) == (findings, advice)
    for each in (*got.findings, *got.advice):
        assert set(each.evidence) == {"used", "left", "decompressor", "initrd", "to init"}
        used, left = (int(each.evidence[name].split("(")[1][:-1], 16) for name in ("used", "left"))
        assert (used + left, used > 0) == (size * MIB, True)
        assert each.mend == "crashkernel=56M or more"


def test_a_kexec_that_is_no_crash_has_no_need_of_a_region(machine: Emulator) -> None:
    kernel = image_room.read(bzimage(init_size=32 * MIB), "vmlinuz")
    got = rehearse(kernel, dying(16), Request(), machine=machine)
    assert (got.outcome, got.findings, got.advice) == (Outcome.HOLDS, (), ())


def test_the_initrd_counts_packed_and_as_the_files_that_it_unpacks_to(machine: Emulator) -> None:
    files = cpio.archive({f"file{n}": bytes(4 * MIB) for n in range(4)})
    packed = gzip.compress(files, 9)
    assert len(packed) < MIB < 16 * MIB < len(files)
    assert said(walked(machine, dying(56), packed, "root=/dev/sda1").findings) == [
        "crash-region-room"
    ]
    assert walked(machine, dying(56), packed[:-9]).findings[0].rule == "initrd-unpacks"
    held = walked(machine, dying(60), packed, "root=/dev/sda1")
    assert (held.outcome, said(held.advice)) == (Outcome.HOLDS, ["crash-region-room"])
    assert not walked(machine, dying(74), packed, "root=/dev/sda1").advice


def test_without_root_the_files_lie_in_a_tmpfs_which_takes_half_of_the_memory(
    machine: Emulator,
) -> None:
    packed = gzip.compress(cpio.archive({"file": bytes(16 * MIB)}), 9)
    (found,) = walked(machine, dying(64), packed).findings
    assert (found.rule, "tmpfs" in found.evidence["initrd"]) == ("crash-region-room", True)
    assert not walked(machine, dying(66), packed).findings
    assert not walked(machine, dying(82), packed).advice


def test_a_low_part_is_memory_of_the_crash_kernel_too(machine: Emulator) -> None:
    alone = dying(40, ABOVE)
    low = Named(extent=Extent.sized(BELOW, 32 * MIB), what="the low part of the crash region")
    got = walked(machine, alone)
    assert said(got.advice) == ["crash-region-room", "crash-region-low"]
    assert got.outcome is Outcome.HOLDS
    assert not walked(machine, replace(alone, crash_memory=(low,))).advice


@pytest.mark.parametrize(
    ("line", "rules"),
    [
        ("mem=64M", ["crash-region-room"]),
        ("quiet mem=0x4000000 mem=4G", ["crash-region-room"]),
        ("mem=900M mem=4G", []),  # 84 MiB of the region lie below 900 MiB
        ("mem=0x37000000", []),
        ("mem=4G", []),
        ("mem=nopentium mem=0", []),
        ("quiet -- mem=64M", []),
        ("highmem=64M", []),
        ('"mem=64M"', ["crash-region-room"]),
        ("mem=0400000000", ["crash-region-room"]),  # octal: 64 MiB
    ],
)
def test_a_limit_of_memory_takes_away_what_lies_above_it(
    machine: Emulator, line: str, rules: list[str]
) -> None:
    """The region is [0x33000000, 0x39000000), 816 to 912 MiB; the kernel itself is kept."""
    got = walked(machine, dying(96), line=line)
    assert (said(got.findings), got.advice) == (rules, ())
    for each in got.findings:
        assert "that mem=0x4000000 leaves" in each.message
        assert each.mend.startswith("leave mem= out")
