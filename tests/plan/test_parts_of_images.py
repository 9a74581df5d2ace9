"""plan.prepare on images of several parts, and on those that carry an initrd and a command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.bzimage import bzimage
from tests.makers.elf import CODE, Segment, elf, note
from tests.makers.hosts import MIB, PAGE, small_host
from tests.makers.multiboot import flat_kernel, header1, header2
from tests.makers.pe import unified
from tests.makers.screens import facts, screen
from tightrope import host, image
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import PlanError
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import Plan, Protocol, SegmentRole
from tightrope.plan import Request, prepare
from tightrope.views.plan import VIEW as PLAN
from tightrope.views.rehearsal import VIEW as REHEARSAL

LINUX = note("Linux", 0x100, b"salt")
BASE = 16 * MIB


def memory(plan: Plan) -> dict[int, int]:
    """Every byte that the segments named after the kernel have, by physical address."""
    found: dict[int, int] = {}
    for each in plan.segments:
        if each.name.startswith("kernel"):
            size = each.destination.size
            found |= dict(enumerate(bytes(each.data).ljust(size, b"\0"), each.destination.start))
    return found


@given(
    start=st.integers(0, 2 * PAGE),
    gaps=st.lists(st.tuples(st.integers(0, 2 * PAGE), st.integers(1, 2 * PAGE)), max_size=4),
)
def test_each_part_is_a_segment_of_whole_pages_with_its_bytes_in_place(
    start: int, gaps: list[tuple[int, int]]
) -> None:
    segments, at = [Segment(BASE + start)], BASE + start + len(CODE)
    for number, (gap, size) in enumerate(gaps):
        segments.append(Segment(at + gap, bytes([number + 1]) * size))
        at += gap + size
    plan = prepare(image.read(elf(*segments, notes=LINUX), "vmlinux"), small_host(), Request())
    names = [each.name for each in plan.segments if each.name.startswith("kernel")]
    numbers = range(2, len(plan.image.parts) + 1)
    assert names == ["kernel", *[f"kernel part {number}" for number in numbers]]
    assert plan.segments[0].name == "kernel"
    assert plan.kernel_entry == BASE + start
    found = memory(plan)
    for one in segments:
        assert bytes(found.pop(one.start + each) for each in range(len(one.data))) == one.data
    assert not any(found.values())


def test_what_the_image_carries_is_used() -> None:
    read = image.read(unified(initrd=b"carried", cmdline=b"quiet carried"), "linux.efi")
    plan = prepare(read, small_host(), Request())
    data = {each.name: bytes(each.data) for each in plan.segments}
    assert (data["initrd"], data["command line"]) == (b"carried", b"quiet carried\0")
    assert plan.command_line == "quiet carried"


def test_what_the_request_has_takes_the_place_of_what_the_image_carries() -> None:
    read = image.read(unified(initrd=b"carried", cmdline=b"quiet carried"), "linux.efi")
    plan = prepare(read, small_host(), Request(initrd=b"asked", command_line="asked"))
    data = {each.name: bytes(each.data) for each in plan.segments}
    assert (data["initrd"], data["command line"]) == (b"asked", b"asked\0")
    assert plan.command_line == "asked"


# --------------------------------------------------------------------------- where nothing lies


def test_a_hole_between_two_parts_need_not_be_ram() -> None:
    """A piece below and one above the hole that every PC has below 1 MiB."""
    low, high = Segment(0x9000, b"low"), Segment(MIB, CODE)
    read = image.read(elf(low, high, bits=32, entry=MIB), "kernel")
    old = host.read(host.example(), "example")
    plan = prepare(read, old, Request())
    kernel = [each for each in plan.segments if each.role is SegmentRole.KERNEL]
    assert [each.destination for each in kernel] == [
        Extent.sized(0x9000, PAGE),
        Extent.sized(MIB, PAGE),
    ]
    for lies in (0xA0000, 0x9F000):
        wrong = image.read(elf(low, Segment(lies, CODE), bits=32, entry=lies), "kernel")
        with pytest.raises(PlanError, match="and not all of that is RAM"):
            prepare(wrong, old, Request())


def test_linux_wants_all_memory_between_its_parts() -> None:
    parts = (Segment(0x9000, b"low"), Segment(MIB, CODE))
    read = image.read(elf(*parts, bits=32, entry=MIB, notes=LINUX), "vmlinux")
    with pytest.raises(PlanError, match="and not all of that is RAM"):
        prepare(read, host.read(host.example(), "example"), Request())


# --------------------------------------------------------------------------- which way in, unasked


@pytest.mark.parametrize("bits", [32, 64])
def test_what_is_no_kernel_is_entered_only_when_asked_and_with_its_headers_width(bits: int) -> None:
    program = image.read(elf(bits=bits, notes=note("GNU", 1, bytes(16))), "busybox")
    with pytest.raises(PlanError, match=f"--entry flat .* at e_entry in {bits}-bit mode"):
        prepare(program, small_host(), Request())
    plan = prepare(program, small_host(), Request(protocol=Protocol.FLAT))
    assert (plan.protocol, plan.entry_bits) == (Protocol.FLAT, bits)


def test_each_header_of_a_file_can_be_chosen() -> None:
    """Multiboot by address, Multiboot2 as ELF: they would have the file laid differently."""
    by_address = header1(0x10003, (BASE + 8, BASE, 0, 0, BASE + 2))
    body = CODE[:4] + bytes(4) + by_address + header2()
    read = image.read(elf(Segment(BASE, body, size=0x4000), bits=32, entry=BASE), "kernel")
    unasked = prepare(read, small_host(), Request())
    assert (unasked.protocol, unasked.kernel_entry) == (Protocol.MULTIBOOT2, BASE)
    asked = prepare(read, small_host(), Request(protocol=Protocol.MULTIBOOT))
    assert (asked.protocol, asked.kernel_entry) == (Protocol.MULTIBOOT, BASE + 2)
    assert asked.image.init_size < unasked.image.init_size
    with pytest.raises(PlanError, match=r"no PVH entry, only multiboot2, multiboot"):
        prepare(read, small_host(), Request(protocol=Protocol.PVH))


@pytest.mark.parametrize("version", [1, 2])
def test_what_a_multiboot_kernel_is_told_lies_as_low_as_it_can(version: int) -> None:
    read = image.read(flat_kernel(version=version, load=4 * MIB), "kernel")
    plan = prepare(read, small_host(), Request(command_line="console=com1"))
    told = plan.arguments["rbx"]
    assert told == min(each.destination.start for each in plan.segments) == MIB


def test_what_is_odd_about_the_file_is_told_with_the_plan_and_the_walk() -> None:
    read = image.read(bzimage() + bytes(64), "padded")
    plan = prepare(read, small_host(), Request())
    (remark,) = read.remarks
    assert f"the file: {remark}" in screen(PLAN, plan)
    verdict = rehearse(read, small_host(), Request(), machine=Emulator())
    assert "  the file        64 bytes of zeros behind the kernel" in screen(REHEARSAL, verdict)
    assert facts(PLAN, plan)["remarks"] == [remark]


def test_xens_command_line_is_counted_without_the_files_name() -> None:
    body = CODE[:4] + bytes(4) + header2() + b"Xen version %d.%d%s\0"
    read = image.read(elf(Segment(BASE, body), bits=32), "a/file/with/a/name/of/30/bytes")
    assert prepare(read, small_host(), Request(command_line="x" * 1023)).command_line == "x" * 1023
    with pytest.raises(PlanError, match=r"1024 bytes .* \(limit 0x3ff\)"):
        prepare(read, small_host(), Request(command_line="x" * 1024))
