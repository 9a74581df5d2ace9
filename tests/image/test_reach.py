"""Where a bzImage's kernel can still run, by what its payload begins with: a kernel that is moved
further says "Destination address too large" and halts.

Rules: the limits are those of arch/x86/boot/compressed/misc.c, extract_kernel, worked out here by hand;
that Debian's 6.1 for 686-pae halts so at 0xb3000000 was seen in the emulator.
"""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import debian_kernel
from tests.makers.bzimage import bzimage, packed_gzip
from tightrope import check, host, image
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import PlanError
from tightrope.memory import Extent
from tightrope.model import Host, Image, Outcome, Paging
from tightrope.plan import Request

PHYSICAL = 0x0100_0000


def narrow(split: int, *, before: int = 0) -> bytes:
    """A 32-bit vmlinux whose first PT_LOAD is linked at `split` + 16 MiB; `before` rows are notes."""
    head = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    head += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, PHYSICAL, 52, 0, 0, 52, 32, before + 1, 0, 0, 0)
    rows = struct.pack("<8I", 4, 0, 0, 0, 0, 0, 0, 0) * before
    rows += struct.pack("<8I", 1, 4096, split + PHYSICAL, PHYSICAL, 4096, 4096, 7, 4096)
    return (head + rows).ljust(8192, b"\0")


def made(kernel: bytes, *, protocol: int = 0x020F, init_size: int = 2 << 20) -> Image:
    data = bzimage(
        payload=packed_gzip(kernel), xloadflags=0, protocol=protocol, init_size=init_size
    )
    return image.read(data, "vmlinuz")


@pytest.mark.parametrize(
    ("split", "reach"),
    [
        (0xC000_0000, 0x3800_0000),
        (0xB000_0000, 0x4800_0000),
        (0x8000_0000, 0x7800_0000),
        (0x4000_0000, 0x3800_0000),  # 0xb8000000, of which 31 bits are kept
    ],
)
@pytest.mark.parametrize("before", [0, 3])
def test_a_32_bit_kernel_reaches_as_far_as_its_memory_split_lets_it(
    split: int, reach: int, before: int
) -> None:
    assert made(narrow(split, before=before)).reach == reach


def test_a_64_bit_kernel_reaches_64_tib_and_an_old_header_does_not_say_which_it_is() -> None:
    assert image.read(bzimage(), "vmlinuz").reach == 1 << 46
    assert made(narrow(0xC000_0000), protocol=0x020B).reach is None


@given(st.binary(max_size=200))
def test_whatever_a_payload_begins_with_is_read_or_not_told(tail: bytes) -> None:
    assert made(b"\x7fELF\x01" + tail).reach is None or tail


@pytest.mark.parametrize(
    ("flavour", "reach"), [("686", 0x3800_0000), ("686-pae", 0x3800_0000), ("amd64", 1 << 46)]
)
def test_debian_s_kernels(flavour: str, reach: int) -> None:
    path = debian_kernel(flavour)
    assert image.read(path.read_bytes(), path.name).reach == reach


def dying(start: int) -> Host:
    region = Extent.sized(start, 64 << 20)
    return host.read(host.example(Paging.PAE, crash=region), "a 32-bit host")


def test_a_crash_region_beyond_it_is_refused_and_below_it_holds() -> None:
    """At its end, too: all of init_size has to be within."""
    kernel = made(narrow(0xC000_0000), init_size=8 << 20)
    for start in (0xB000_0000, 0x3800_0000, 0x37C0_0000):
        with pytest.raises(PlanError, match="below 0x38000000"):
            rehearse(kernel, dying(start), Request(crash=True))
    got = rehearse(kernel, dying(0x3800_0000 - (64 << 20)), Request(crash=True))
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())


def test_a_plan_that_has_it_beyond_falls() -> None:
    """Another loader may have put it there."""
    kernel = made(narrow(0xC000_0000), init_size=8 << 20)
    got = rehearse(replace(kernel, reach=None), dying(0xB000_0000), Request(crash=True))
    assert got.outcome is Outcome.HOLDS
    far = replace(kernel, reach=0xB000_0000 + (8 << 20) - 1)
    plan = replace(got.handover.plan, image=far)
    found = check.check(replace(got.handover, intent=plan), got.run)
    assert [each.rule for each in found] == ["image-asks"]
    assert "out of its reach" in found[0].message


def test_from_the_top_a_32_bit_kernel_stays_within() -> None:
    kernel = made(narrow(0xC000_0000), init_size=8 << 20)
    old = host.read(host.example(Paging.PAE), "a 32-bit host")
    got = rehearse(kernel, old, Request(from_top=True))
    assert got.outcome is Outcome.HOLDS
    assert got.handover.intent.kernel_entry < 0x3800_0000
