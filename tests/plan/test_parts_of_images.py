"""plan.prepare on images of several parts, and on those that carry an initrd and a command line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.makers.elf import CODE, Segment, elf, note
from tests.makers.hosts import MIB, PAGE, small_host
from tests.makers.pe import unified
from tightrope import image
from tightrope.model import Plan
from tightrope.plan import Request, prepare

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
