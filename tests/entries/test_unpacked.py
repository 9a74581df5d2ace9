"""`--unpack`: the kernel inside a bzImage, entered directly, where it is linked and elsewhere."""

from __future__ import annotations

import struct
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.bzimage import bzimage, packed_gzip, with_size
from tests.makers.elf import Segment, elf, note
from tests.makers.hosts import MIB, mode_host, small_host
from tests.rehearse.runs import mode_host as example_of
from tightrope import host as host_room
from tightrope import image as image_room
from tightrope.deeds.rehearse import CONSOLE_WORDS, rehearse
from tightrope.deeds.until import Spoken
from tightrope.errors import ImageError, PlanError
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import Host, Image, Outcome, Paging, Protocol, Verdict
from tightrope.plan import Request, prepare

LINUX = note("Linux", 0x100, b"salt")
BASE = 16 * MIB
PAGE_OFFSET = 0xC000_0000
HIGH_REGION = Extent.sized(0x4000_1000, 0x1000_0000)
LOW_REGION = Extent.sized(0x0800_1000, 0x0600_0000)
"""Where a 32-bit kernel's lowmem still reaches."""


@cache
def inner(path: Path) -> Image:
    return image_room.unpacked(image_room.read(path.read_bytes(), path.name))


def boot(image: Image, old: Host, **asked: object) -> Verdict:
    request = replace(Request(command_line=CONSOLE_WORDS), **asked)  # type: ignore[arg-type]
    return rehearse(image, old, request, until=Spoken(seconds=120), machine=Emulator())


def crash_host(paging: Paging, region: Extent) -> Host:
    return host_room.read(host_room.example(paging, crash=region), "the crash host")


def said(got: Verdict, path: Path) -> None:
    """It holds, and the first line names the very kernel."""
    assert (got.outcome, got.findings) == (Outcome.HOLDS, ())
    assert got.console is not None
    assert f"Linux version {path.name.removeprefix('vmlinuz-')} " in got.console.lines[-1]


@pytest.mark.parametrize(
    ("flavour", "paging", "protocol"),
    [
        ("debian_amd64", Paging.X86_64, Protocol.LINUX_64),
        ("debian_amd64", Paging.LA57, Protocol.LINUX_64),
        ("debian_amd64", Paging.PAE, Protocol.PVH),
        ("debian_cloud", Paging.I386, Protocol.PVH),
        ("debian_cloud", Paging.LA57, Protocol.PVH),
        ("debian_686", Paging.I386, Protocol.LINUX_32),
        ("debian_686", Paging.X86_64, Protocol.LINUX_32),
        ("debian_686_pae", Paging.PAE, Protocol.LINUX_32),
        ("debian_686_pae", Paging.I386, Protocol.PVH),
    ],
)
def test_a_real_kernel_says_its_version_without_its_decompressor(
    flavour: str, paging: Paging, protocol: Protocol, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(flavour)
    got = boot(inner(path), example_of(paging), protocol=protocol)
    assert got.handover.intent.protocol is protocol
    said(got, path)


@pytest.mark.parametrize(
    ("flavour", "paging", "region"),
    [
        ("debian_amd64", Paging.X86_64, HIGH_REGION),
        ("debian_cloud", Paging.LA57, HIGH_REGION),
        ("debian_686", Paging.I386, LOW_REGION),
        ("debian_686_pae", Paging.PAE, LOW_REGION),
    ],
)
def test_a_real_kernel_moved_into_a_crash_region_says_its_version(
    flavour: str, paging: Paging, region: Extent, request: pytest.FixtureRequest
) -> None:
    path = request.getfixturevalue(flavour)
    got = boot(inner(path), crash_host(paging, region), crash=True)
    kernel = got.handover.intent.segments[0].destination
    assert region.covers(kernel)
    assert kernel.start != inner(path).pref_address
    said(got, path)


def test_a_32_bit_kernel_is_not_put_where_its_lowmem_does_not_reach(debian_686: Path) -> None:
    with pytest.raises(PlanError, match=r"in one piece .* below 0x38000000"):
        prepare(inner(debian_686), crash_host(Paging.I386, HIGH_REGION), Request(crash=True))


def test_a_pvh_entry_stays_where_it_is_linked(debian_cloud: Path) -> None:
    old = crash_host(Paging.X86_64, HIGH_REGION)
    with pytest.raises(PlanError, match="the kernel has to be loaded at"):
        prepare(inner(debian_cloud), old, Request(crash=True, protocol=Protocol.PVH))


def test_the_limits_are_the_bzimages_and_the_parts_the_elf_files(debian_amd64: Path) -> None:
    outer, new = image_room.read(debian_amd64.read_bytes(), "vmlinuz"), inner(debian_amd64)
    assert new.setup_header == outer.setup_header
    assert (new.cmdline_limit, new.initrd_limit) == (outer.cmdline_limit, outer.initrd_limit)
    assert new.init_size < outer.init_size
    assert (new.format, new.payload) == ("ELF64", None)
    assert new.entries[0].protocol is Protocol.LINUX_64


# ------------------------------------------------------------------------------- made 32-bit kernels


def made(words: dict[int, int], *, relocations: list[int] | None, bits: int = 32) -> Image:
    """A kernel of three pages with 32-bit words at given offsets, packed into a bzImage."""
    data = bytearray(0x3000)
    for at, value in words.items():
        data[at : at + 4] = struct.pack("<I", value)
    kernel = elf(
        Segment(BASE, bytes(data), size=0x5000, virtual=PAGE_OFFSET + BASE),
        bits=bits,
        entry=PAGE_OFFSET + BASE,
        notes=LINUX,
    )
    # An ELF file that ends with its section headers, as Linux's do: one of zeros.
    size, field = {32: (40, "<I"), 64: (64, "<Q")}[bits]
    head = bytearray(kernel + bytes(-len(kernel) % 4))
    struct.pack_into(field, head, 32 if bits == 32 else 40, len(head))
    struct.pack_into("<HH", head, 46 if bits == 32 else 58, size, 1)
    tail = b"" if relocations is None else struct.pack(f"<{len(relocations)}I", *relocations)
    payload = bytes(head) + bytes(size) + (b"" if relocations is None else bytes(4)) + tail
    xloadflags = 0b0111_1111 if bits == 64 else 0
    return image_room.read(
        bzimage(payload=packed_gzip(payload), xloadflags=xloadflags, init_size=0x100000,
                initrd_addr_max=0x37FF_FFFF),
        "made",
    )  # fmt: skip


def virtual(offset: int) -> int:
    return PAGE_OFFSET + BASE + offset


def elsewhere() -> Host:
    """The kernel's own place is no RAM."""
    old = mode_host(Paging.I386)
    return replace(old, crash_region=LOW_REGION)


@given(
    offsets=st.sets(st.integers(0, 0x3000 // 4 - 1), min_size=1, max_size=50),
    values=st.lists(st.integers(0, (1 << 32) - 1), min_size=50, max_size=50),
)
def test_a_moved_kernel_has_the_distance_added_to_its_relocations_and_nothing_else(
    offsets: set[int], values: list[int]
) -> None:
    places = sorted(4 * each for each in offsets)
    words = dict(zip(places, values, strict=False))
    named = places[::2]
    new = image_room.unpacked(made(words, relocations=[virtual(each) for each in named]))
    assert new.relocatable
    plan = prepare(new, elsewhere(), Request(crash=True))
    distance = plan.segments[0].destination.start - BASE
    assert distance > 0
    assert distance % 0x200000 == 0
    before, after = bytearray(new.parts[0].data), bytes(plan.segments[0].data)
    for at in named:
        moved = words[at] + distance & 0xFFFF_FFFF
        assert after[at : at + 4] == moved.to_bytes(4, "little")
        before[at : at + 4] = after[at : at + 4]
    assert after == bytes(before)


def test_a_kernel_in_its_own_place_is_left_as_it_is() -> None:
    new = image_room.unpacked(made({8: 7}, relocations=[virtual(8)]))
    plan = prepare(new, mode_host(Paging.I386), Request())
    assert bytes(plan.segments[0].data) == bytes(new.parts[0].data)
    assert new.relocations is not None
    assert np.array_equal(new.relocations, [8])


@pytest.mark.parametrize("relocations", [None, []])
def test_a_32_bit_kernel_without_relocations_cannot_be_moved(relocations: list[int] | None) -> None:
    new = image_room.unpacked(made({}, relocations=relocations))
    assert not new.relocatable
    with pytest.raises(PlanError, match="the kernel has to be loaded at"):
        prepare(new, elsewhere(), Request(crash=True))


def test_a_64_bit_kernel_moves_itself_and_is_handed_unchanged() -> None:
    new = image_room.unpacked(made({8: 7}, relocations=[virtual(8)], bits=64))
    old = replace(mode_host(Paging.X86_64), crash_region=LOW_REGION)
    plan = prepare(new, old, Request(crash=True))
    assert plan.kernel_entry % 0x200000 == 0
    assert plan.kernel_entry > BASE
    assert bytes(plan.segments[0].data) == bytes(new.parts[0].data)


@pytest.mark.parametrize(
    ("relocations", "problem"),
    [
        ([virtual(0x2FFD)], "0xc1002ffd is in no PT_LOAD segment's bytes"),
        ([virtual(0x4000)], "0xc1004000 is in no PT_LOAD segment's bytes"),
        ([BASE], "0x1000000 is in no PT_LOAD segment's bytes"),
        ([virtual(8), virtual(10)], "two of them overlap"),
    ],
)
def test_relocations_that_cannot_be_applied_are_refused(
    relocations: list[int], problem: str
) -> None:
    with pytest.raises(ImageError, match=problem):
        image_room.unpacked(made({}, relocations=relocations))


def test_there_has_to_be_a_kernel_inside() -> None:
    with pytest.raises(ImageError, match="names no payload, so there is nothing to unpack"):
        image_room.unpacked(image_room.read(bzimage(payload=b""), "empty"))
    stranger = elf()
    packed = with_size(packed_gzip(stranger), stranger)[:-4]
    with pytest.raises(ImageError, match="is not a Linux kernel"):
        image_room.unpacked(image_room.read(bzimage(payload=packed), "stranger"))


def test_a_vmlinux_has_the_setup_header_that_kexec_tools_gives_it() -> None:
    """kexec/arch/i386/x86-linux-setup.c: HdrS, 2.06, and the limits."""
    bare = image_room.read(elf(notes=LINUX), "vmlinux")
    plan = prepare(bare, small_host(), Request())
    params = next(bytes(s.data) for s in plan.segments if s.name == "boot_params")
    assert params[0x202:0x206] == b"HdrS"
    assert struct.unpack_from("<H", params, 0x206) == (0x0206,)
    assert struct.unpack_from("<I", params, 0x22C) == (bare.initrd_limit,)
    assert params[0x1EF] == 0
