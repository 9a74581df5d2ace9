"""Words of a command line that lead to memory: right where something lies there, told where not.

That Linux 6.1 and 6.12 unpack what initrdmem= names was seen in QEMU:
"RAMDISK: [mem 0x10000000-0x100fffff]" with nothing loaded there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.check.test_crash_region import said
from tests.makers.bzimage import bzimage
from tests.makers.cpio import initrd
from tightrope import host as host_room
from tightrope import image as image_room
from tightrope.check.told.leads import initrd_place
from tightrope.deeds.rehearse import rehearse
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent, Phys
from tightrope.model import Named, Verdict
from tightrope.plan import Request

MIB, GIB = 1 << 20, 1 << 30
RSDP = 0xF_5A40
"""The default host's."""
BY_NOBODY = Extent(GIB, GIB + MIB)
REGION = Extent(0x3300_0000, 0x3F00_0000)


@pytest.fixture(scope="module")
def machine() -> Emulator:
    return Emulator()


def walked(
    machine: Emulator,
    line: str,
    *,
    files: bytes | None = None,
    crash: bool = False,
    known: Mapping[str, Any] | None = None,
) -> Verdict:
    """A kernel with 8 MiB of init_size on the default host, of which other things are known."""
    kernel = image_room.read(bzimage(init_size=8 * MIB), "vmlinuz")
    text = host_room.example(crash=REGION if crash else None)
    old = replace(host_room.read(text, "the default host"), **(known or {}))
    request = Request(command_line=line, initrd=files, crash=crash)
    return rehearse(kernel, old, request, machine=machine)


@pytest.mark.parametrize(
    ("line", "place"),
    [
        (b"quiet initrdmem=1G,1M", BY_NOBODY),
        (b"initrd=0x40000000,0x100000 quiet", BY_NOBODY),
        (b"initrdmem=2G,1M initrdmem=1G,1M", BY_NOBODY),
        (b"initrdmem=1G,1M initrdmem=3G", BY_NOBODY),
        (b"initrdmem=1G,1M initrd=/boot/initrd.img", BY_NOBODY),
        (b"initrdmem=1G,1M initrd=0,0", None),
        (b"initrdmem=1G", None),
        (b"initrdmem=1G,0", None),
        (b"initrdmem=0,1M", None),
        (b"initrd=\\EFI\\Linux\\initrd.img", None),
        (b"initrd=/boot/initrd,2", None),
        (b"initrd", None),
        (b"-- initrdmem=1G,1M", None),
    ],
)
def test_the_last_word_that_names_a_place_counts(line: bytes, place: Extent | None) -> None:
    assert initrd_place(line) == place


@given(st.binary(max_size=60))
def test_any_line_is_read(line: bytes) -> None:
    initrd_place(b"initrdmem=" + line + b" initrd=1," + line)


@pytest.mark.parametrize(
    ("line", "lies"),
    [
        ("initrdmem=1G,1M", "at 0x40000000 is free RAM"),
        ("initrd=1G,1M", "at 0x40000000 is free RAM"),
        ("initrdmem=0x60000000,4K", "at 0x60000000 is the old kernel's user memory"),
        ("initrdmem=16M,1M", "at 0x1000000 is the kernel's destination"),
        ("initrdmem=15M,2M", "at 0x1000000 is the kernel's destination"),
    ],
)
def test_an_initrd_that_nobody_loads_is_told_by_what_lies_there(
    machine: Emulator, line: str, lies: str
) -> None:
    (found,) = walked(machine, line).findings
    assert (found.rule, lies in found.message) == ("line-leads", True)


def test_in_a_crash_as_well(machine: Emulator) -> None:
    assert said(walked(machine, "initrdmem=1G,1M", crash=True).findings) == ["line-leads"]
    assert said(walked(machine, "initrdmem=0xfffc0000,256K", crash=True).findings) == []


def test_where_an_initrd_is_given_the_word_is_not_read(machine: Emulator) -> None:
    """get_ramdisk_image() asks boot_params first."""
    assert said(walked(machine, "initrdmem=1G,1M", files=initrd(5000)).findings) == []


@pytest.mark.parametrize(
    "line",
    ["initrdmem=0xfffc0000,256K", "initrdmem=0xe0000000,16M", "initrdmem=0xbffd9000,8K"],
    ids=["flash", "a hole", "ACPI memory"],
)
def test_what_lies_in_no_ram_is_the_firmwares_affair(machine: Emulator, line: str) -> None:
    """LinuxBoot keeps an initrd in flash: initrdmem= came for it (Linux commit 694cfd87b0c8)."""
    assert said(walked(machine, line).findings) == []


@pytest.mark.parametrize("table", ["preserved", "firmware"])
def test_what_is_kept_for_the_new_kernel_may_be_an_initrd(machine: Emulator, table: str) -> None:
    kept = (Named(extent=BY_NOBODY, what="an initrd that firmware left"),)
    assert said(walked(machine, "initrdmem=1G,1M", known={table: kept}).findings) == []
    assert said(walked(machine, "initrdmem=1G,1025K", known={table: kept}).findings) == [
        "line-leads"
    ]


@pytest.mark.parametrize(
    ("line", "findings"),
    [
        ("acpi_rsdp=0xf5a40", []),
        ("acpi_rsdp=f5a40", []),
        ("acpi_rsdp=0x1234 acpi_rsdp=0xF5A40", []),
        ("acpi_rsdp=0xf5a40 acpi_rsdp=none", []),
        ("acpi_rsdp=0", []),
        ("acpi_rsdp=", []),
        ("acpi_rsdp", []),
        ("acpi_rsdp=0x1234", ["line-leads"]),
        ("acpi_rsdp=0xf5a40 acpi_rsdp=bffd9014", ["line-leads"]),
    ],
)
@pytest.mark.parametrize("crash", [False, True])
def test_the_rsdp_is_the_machines_own(
    machine: Emulator, line: str, findings: list[str], crash: bool
) -> None:
    assert said(walked(machine, line, crash=crash).findings) == findings


def test_an_rsdp_of_which_the_host_knows_nothing_is_believed_unless_the_plan_is_there(
    machine: Emulator,
) -> None:
    for none in (None, Phys(0)):
        assert said(walked(machine, "acpi_rsdp=0x7fe014", known={"rsdp": none}).findings) == []
    (found,) = walked(machine, "acpi_rsdp=0x1000014", known={"rsdp": None}).findings
    assert "for the RSDP at 0x1000014, and there is the kernel's destination" in found.message
    assert said(walked(machine, f"acpi_rsdp={RSDP:#x}", known={"rsdp": Phys(RSDP)}).findings) == []


def test_a_core_header_in_a_plain_kexec_is_advice(machine: Emulator) -> None:
    got = walked(machine, "elfcorehdr=0x33f00000 quiet")
    assert (said(got.findings), said(got.advice)) == ([], ["line-leads"])
    for line in ("quiet", "elfcorehdr", "elfcorehdr=none"):
        assert said(walked(machine, line).advice) == []
    assert said(walked(machine, "quiet", crash=True).advice) == []
