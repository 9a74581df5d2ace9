"""plan.prepare: where everything goes, over many hosts, and why some combinations are refused.

Hosts, images and requests are random; what a plan promises is read from its values page by page,
and its list through the kernel's own way of reading one.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.makers.hosts import (
    GIB,
    MIB,
    PAGE,
    PRIVATE_SIZE,
    hosts,
    images,
    make_host,
    plans,
    read_image,
    small_host,
)
from tests.plan.list_reader import follow
from tightrope import host as host_room
from tightrope.errors import PlanError
from tightrope.memory import Extent, Region, RegionKind, covered
from tightrope.model import Host, Image, Paging, Plan, Protocol, Segment, SegmentRole
from tightrope.plan import Request, prepare
from tightrope.plan.placement import free_ram

MANY = settings(max_examples=60)


def frames(extents: list[Extent]) -> set[int]:
    return {frame for each in extents for frame in each.pages}


def segment(plan: Plan, name: str) -> Segment:
    (found,) = [each for each in plan.segments if each.name == name]
    return found


def copies(plan: Plan) -> list[tuple[int, int]]:
    def word_at(address: int) -> int:
        return int(plan.list_pages[address & -PAGE][address % PAGE // 8])

    return follow(plan.head, word_at)


def destination_frames(plan: Plan) -> set[int]:
    return frames([each.destination for each in plan.segments])


def source_frames(plan: Plan) -> set[int]:
    """Frames that are read and are not in place."""
    pairs = zip(plan.destinations.tolist(), plan.sources.tolist(), strict=True)
    return {source for destination, source in pairs if source != destination}


def bounce_frames(plan: Plan) -> list[set[int]]:
    """Sources, list, control page and table frames: what is used and nobody's destination."""
    return [
        source_frames(plan),
        {address // PAGE for address in plan.list_pages},
        {plan.control_page // PAGE},
        frames(list(plan.spare)),
    ]


# ---------------------------------------------------------------------------------- destinations


@MANY
@given(plan=plans())
def test_segments_lie_in_ram_and_apart_from_one_another(plan: Plan) -> None:
    places = sorted(each.destination for each in plan.segments)
    assert not any(a.overlaps(b) for a, b in pairwise(places))
    for place in places:
        assert place.start % PAGE == place.end % PAGE == 0
        assert any(ram.covers(place) for ram in plan.host.memory.ram)
        assert place.start >= MIB
        assert plan.host.crash_region is None or not place.overlaps(plan.host.crash_region)


@MANY
@given(plan=plans())
def test_the_kernel_is_where_it_wants_to_be_or_aligned_and_above_it(plan: Plan) -> None:
    image, host = plan.image, plan.host
    place = segment(plan, "kernel").destination
    assert place.size == -(-image.init_size // PAGE) * PAGE
    wanted = Extent.sized(image.pref_address, place.size)
    possible = any(ram.covers(wanted) for ram in host.memory.ram) and not (
        host.crash_region and host.crash_region.overlaps(wanted)
    )
    if possible:
        assert place == wanted
        assert "from pref_address" in segment(plan, "kernel").why
    else:
        assert image.relocatable
        assert place.start % image.alignment == 0
        assert place.start >= image.pref_address
        assert "the first place that fits" in segment(plan, "kernel").why
    (entry,) = [each.offset for each in image.entries if each.bits == 64]
    assert plan.kernel_entry == place.start + entry


@MANY
@given(plan=plans())
def test_nothing_is_above_4_gib_for_a_kernel_that_cannot_be_there(plan: Plan) -> None:
    top = max(each.destination.end for each in plan.segments)
    assert plan.image.above_4g or top <= 4 * GIB
    for each in plan.segments:
        if each.name != "initrd":
            continue
        limit = plan.image.initrd_limit
        assert each.destination.start >= 16 * MIB
        assert plan.image.above_4g or each.destination.end <= limit + 1
        where = "below" if each.destination.end <= limit + 1 else "above"
        assert each.why.startswith(f"{where} initrd_addr_max {limit:#x}")


@MANY
@given(plan=plans())
def test_what_lies_in_the_segments_is_what_was_asked_for(plan: Plan) -> None:
    assert segment(plan, "kernel").data == plan.image.parts[0].data
    line = bytes(segment(plan, "command line").data)
    assert line == plan.command_line.encode() + b"\0"
    params = bytes(segment(plan, "boot_params").data)
    assert plan.boot_params == segment(plan, "boot_params").destination.start
    at = (
        struct.unpack_from("<I", params, 0x228)[0] | struct.unpack_from("<I", params, 0xC8)[0] << 32
    )
    assert at == segment(plan, "command line").destination.start
    start = (
        struct.unpack_from("<I", params, 0x218)[0] | struct.unpack_from("<I", params, 0xC0)[0] << 32
    )
    (size,) = struct.unpack_from("<I", params, 0x21C)
    named = [each for each in plan.segments if each.name == "initrd"]
    assert (start, size) == ((named[0].destination.start, len(named[0].data)) if named else (0, 0))


@MANY
@given(plan=plans())
def test_the_entry_stub_knows_where_to_go_and_what_to_hand_over(plan: Plan) -> None:
    stub = segment(plan, "entry stub")
    assert plan.entry == stub.destination.start
    data = bytes(stub.data)
    assert data.count(plan.kernel_entry.to_bytes(8, "little")) == 1
    assert data.count(plan.boot_params.to_bytes(8, "little")) == 1


# ---------------------------------------------------------------------------------------- frames


@MANY
@given(plan=plans())
def test_a_source_is_its_own_destination_or_nobodys(plan: Plan) -> None:
    assert not source_frames(plan) & destination_frames(plan)
    sources = plan.sources.tolist()
    assert len(set(sources)) == len(sources)


@MANY
@given(plan=plans())
def test_what_the_walk_itself_needs_is_apart_from_everything_it_writes(plan: Plan) -> None:
    groups = [destination_frames(plan), *bounce_frames(plan)]
    assert sum(map(len, groups)) == len(set.union(*groups))


@MANY
@given(plan=plans())
def test_nothing_that_is_busy_is_used_before_the_walk(plan: Plan) -> None:
    host = plan.host
    usable = frames(list(free_ram(host)))
    for group in bounce_frames(plan):
        assert group <= usable
    taken = [Extent.sized(host.text.phys, host.text.size), host.private, Extent(0, MIB)]
    taken += [each.extent.page_aligned() for each in host.busy]
    taken += [host.crash_region] if host.crash_region else []
    before = set.union(*bounce_frames(plan), set(plan.sources.tolist()))
    for each in taken:
        assert before.isdisjoint(each.pages)


@MANY
@given(plan=plans())
def test_every_page_that_can_be_loaded_in_place_is(plan: Plan) -> None:
    free = frames(list(free_ram(plan.host)))
    for destination, source in zip(plan.destinations.tolist(), plan.sources.tolist(), strict=True):
        assert (source == destination) == (destination in free)
    assert plan.in_place == len(destination_frames(plan) & free)


# ------------------------------------------------------------------------------------- the list


@MANY
@given(plan=plans())
def test_the_list_orders_exactly_the_copies_of_the_plan(plan: Plan) -> None:
    pairs = zip(plan.destinations.tolist(), plan.sources.tolist(), strict=True)
    assert copies(plan) == [(to * PAGE, source * PAGE) for to, source in pairs]


@MANY
@given(plan=plans())
def test_following_the_list_rebuilds_every_byte_of_every_segment(plan: Plan) -> None:
    # What a loader put into the source pages: the segments' pages, in order.
    pages: dict[int, bytes] = {}
    sources = iter(plan.sources.tolist())
    for each in plan.segments:
        data = bytes(each.data)
        for start in range(0, each.destination.size, PAGE):
            pages[next(sources) * PAGE] = data[start : start + PAGE].ljust(PAGE, b"\0")
    for destination, source in copies(plan):
        pages[destination] = pages[source]
    for each in plan.segments:
        rebuilt = b"".join(pages[page * PAGE] for page in each.destination.pages)
        assert rebuilt == bytes(each.data).ljust(each.destination.size, b"\0")


@MANY
@given(plan=plans())
def test_the_identity_map_covers_what_the_copy_and_the_entry_touch(plan: Plan) -> None:
    mapped = [each.extent for each in plan.identity]
    assert all(each.start % PAGE == each.end % PAGE == 0 for each in mapped)
    touched = destination_frames(plan).union(*bounce_frames(plan)[:3])
    assert touched <= frames(mapped)
    for region in plan.host.memory:
        if region.kind in (RegionKind.ACPI, RegionKind.NVS):
            assert covered(region.extent, mapped)
    # The ragged end of low memory at 0x9fc00 is no whole page.
    assert covered(Extent(0, 0x9F000), mapped)
    for each in plan.host.firmware:
        assert covered(each.extent, mapped)


@MANY
@given(plan=plans())
def test_the_identity_map_gives_no_way_to_what_the_walk_has_no_business_with(plan: Plan) -> None:
    reachable = frames([each.extent for each in plan.identity])
    allowed = destination_frames(plan).union(*bounce_frames(plan)[:3], Extent(0, 0xA0000).pages)
    allowed |= frames([each.extent for each in plan.host.firmware])
    allowed |= frames(list(plan.host.memory.of(RegionKind.ACPI, RegionKind.NVS)))
    assert reachable <= allowed
    assert reachable.isdisjoint(frames(list(plan.spare)))


@settings(max_examples=20)
@given(image=images(), host=hosts(), seed=st.integers(0, 9))
def test_the_same_request_gives_the_same_plan(image: Image, host: Host, seed: int) -> None:
    def attempt() -> object:
        try:
            plan = prepare(image, host, Request(scatter=seed))
        except PlanError as err:
            return str(err)
        return plan.head, plan.control_page, plan.spare, plan.sources.tolist()

    assert attempt() == attempt()


# --------------------------------------------------------------------------- choices, by example


def test_a_busy_pref_address_is_copied_to() -> None:
    host = small_host(busy=[Extent(16 * MIB, 20 * MIB)])
    plan = prepare(read_image(init_size=2 * MIB), host, Request())
    assert segment(plan, "kernel").destination == Extent(16 * MIB, 18 * MIB)
    assert plan.in_place == len(plan.destinations) - 512


def test_a_kernel_that_has_to_move_moves_to_free_memory_before_busy_memory() -> None:
    host = make_host(
        [Extent(0, 0x9FC00), Extent(MIB, 17 * MIB), Extent(18 * MIB, 128 * MIB)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, PRIVATE_SIZE),
        busy=[Extent(18 * MIB, 40 * MIB + 1)],
    )
    plan = prepare(read_image(init_size=2 * MIB), host, Request())
    assert segment(plan, "kernel").destination == Extent(42 * MIB, 44 * MIB)


def test_a_kernel_that_fits_nowhere_free_goes_to_busy_memory() -> None:
    host = make_host(
        [Extent(0, 0x9FC00), Extent(MIB, 17 * MIB), Extent(18 * MIB, 64 * MIB)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, PRIVATE_SIZE),
        busy=[Extent(n * MIB, n * MIB + 1) for n in range(18, 64, 4)],
    )
    plan = prepare(read_image(init_size=16 * MIB), host, Request())
    assert segment(plan, "kernel").destination == Extent(18 * MIB, 34 * MIB)


def test_small_segments_and_initrd_go_to_the_top_of_free_memory_below_4_gib() -> None:
    host = make_host(
        [Extent(MIB, 3 * GIB), Extent(4 * GIB, 5 * GIB)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, PRIVATE_SIZE),
    )
    plan = prepare(
        read_image(initrd_addr_max=0x37FF_FFFF),
        host,
        Request(initrd=b"x" * 5000, command_line="quiet"),
    )
    assert segment(plan, "initrd").destination == Extent(0x37FF_E000, 0x3800_0000)
    assert "below initrd_addr_max 0x37ffffff" in segment(plan, "initrd").why
    assert segment(plan, "command line").destination.end == 3 * GIB
    assert segment(plan, "boot_params").destination.end == 3 * GIB - PAGE
    assert segment(plan, "entry stub").destination.end == 3 * GIB - 2 * PAGE


def test_small_segments_and_initrd_go_to_free_memory_before_busy_memory() -> None:
    host = small_host(128, busy=[Extent(100 * MIB, 128 * MIB)])
    plan = prepare(read_image(), host, Request(initrd=bytes(PAGE)))
    ends = [each.destination.end for each in plan.segments if each.name != "kernel"]
    assert ends == [100 * MIB - number * PAGE for number in range(4)]
    # An initrd that is larger than what is free there goes to busy memory and is copied.
    host = small_host(128, busy=[Extent(n * MIB, n * MIB + 1) for n in range(20, 128, 4)])
    large = prepare(read_image(), host, Request(initrd=bytes(8 * MIB)))
    assert segment(large, "initrd").destination == Extent(120 * MIB, 128 * MIB)


def test_an_initrd_goes_above_4_gib_only_when_it_has_to() -> None:
    host = make_host(
        [Extent(MIB, 64 * MIB), Extent(4 * GIB, 5 * GIB)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, PRIVATE_SIZE),
    )
    small, large = (
        segment(prepare(read_image(), host, Request(initrd=bytes(size))), "initrd")
        for size in (8 * MIB, 60 * MIB)
    )
    assert small.destination.end == 64 * MIB
    assert large.destination.end == 5 * GIB
    assert large.why == "above initrd_addr_max 0x7fffffff, which the image allows"


def test_scattered_sources_are_not_in_order() -> None:
    host = small_host(busy=[Extent(16 * MIB, 20 * MIB)])
    image = read_image(init_size=2 * MIB)
    plain = prepare(image, host, Request()).sources[:512].tolist()
    shuffled = prepare(image, host, Request(scatter=3)).sources[:512].tolist()
    assert plain == list(range(plain[0], plain[0] + 512))
    assert shuffled != sorted(shuffled)


@pytest.mark.parametrize("seed", range(5))
def test_frames_with_gaps_of_one_page_between_them_are_told_apart(seed: int) -> None:
    # 512 sources out of some 600 free pages, shuffled: what is left between them is one page wide.
    host = make_host(
        [Extent(MIB, 64 * MIB + 600 * PAGE)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, PRIVATE_SIZE),
        busy=[Extent(MIB, 64 * MIB)],
    )
    plan = prepare(read_image(init_size=2 * MIB), host, Request(scatter=seed))
    named = [each.extent for each in plan.identity if each.what == "sources"]
    assert frames(named) == source_frames(plan)
    groups = [destination_frames(plan), *bounce_frames(plan)]
    assert sum(map(len, groups)) == len(set.union(*groups))


# ------------------------------------------------------------------------- what cannot go together


def refused(image: Image, host: Host, **request: Any) -> PlanError:
    with pytest.raises(PlanError) as caught:
        prepare(image, host, Request(**request))
    assert "\n" not in str(caught.value)
    return caught.value


def test_an_init_size_larger_than_any_piece_of_ram_is_refused_with_the_largest() -> None:
    err = refused(read_image(init_size=200 * MIB), small_host(128))
    assert (err.source, err.field, err.limit) == ("made.bzimage", "init_size", 127 * MIB)


def test_the_largest_init_size_fits_and_one_page_more_does_not() -> None:
    host = small_host(128)
    image = read_image(init_size=112 * MIB - 3 * PAGE, pref_address=16 * MIB)
    # Above the kernel three pages are left: command line, boot_params and entry stub; the
    # walk's own pages come from below.
    assert len(prepare(image, host, Request()).segments) == 4
    below = prepare(replace(image, init_size=112 * MIB - 2 * PAGE), host, Request())
    assert min(each.destination.start for each in below.segments) == 16 * MIB - PAGE
    err = refused(replace(image, init_size=112 * MIB + 1), host)
    assert (err.field, err.limit) == ("init_size", 127 * MIB)


def test_a_crash_region_is_no_room() -> None:
    host = small_host(64, crash_region=Extent(16 * MIB, 63 * MIB))
    err = refused(read_image(init_size=4 * MIB), host)
    assert (err.field, err.limit) == ("init_size", 15 * MIB)


def test_a_kernel_that_cannot_move_is_refused_where_its_place_is_not_ram() -> None:
    host = make_host(
        [Extent(MIB, 16 * MIB), Extent(17 * MIB, 64 * MIB)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, PRIVATE_SIZE),
    )
    err = refused(read_image(relocatable=False), host)
    assert (err.source, err.field) == ("made.bzimage", "pref_address")
    assert "[0x1000000, 0x1200000)" in str(err)
    assert prepare(read_image(relocatable=True), host, Request()).kernel_entry == 18 * MIB + 0x200


def test_a_kernel_that_has_to_be_below_4_gib_is_refused_on_a_host_without_room_there() -> None:
    host = make_host(
        [Extent(MIB, 16 * MIB), Extent(4 * GIB, 5 * GIB)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, PRIVATE_SIZE),
    )
    err = refused(read_image(xloadflags=0b0111_1101), host)
    assert err.field == "init_size"
    high = prepare(read_image(), host, Request())
    assert segment(high, "kernel").destination.start == 4 * GIB


def test_an_entry_that_the_image_does_not_have_is_refused() -> None:
    err = refused(read_image(xloadflags=0), small_host(), protocol=Protocol.LINUX_64)
    assert (err.source, err.field) == ("made.bzimage", "entries")
    assert "no 64-bit entry" in str(err)


def test_an_image_without_a_64_bit_entry_is_entered_through_its_32_bit_one() -> None:
    plan = prepare(read_image(xloadflags=0), small_host(), Request())
    assert plan.protocol is Protocol.LINUX_32
    assert plan.kernel_entry == plan.segments[0].destination.start
    assert max(each.destination.end for each in plan.segments) <= 4 << 30


def test_an_initrd_that_fits_nowhere_is_refused() -> None:
    err = refused(read_image(), small_host(128), initrd=bytes(120 * MIB), initrd_source="big.img")
    assert (err.source, err.field, err.limit) == ("big.img", "initrd_addr_max", None)


def test_an_initrd_above_its_limit_is_refused_with_the_limit() -> None:
    image = read_image(xloadflags=0b0111_1101, initrd_addr_max=24 * MIB - 1)
    host = small_host(128)
    plan = prepare(image, host, Request(initrd=bytes(6 * MIB)))
    assert segment(plan, "initrd").destination == Extent(18 * MIB, 24 * MIB)
    err = refused(image, host, initrd=bytes(6 * MIB + 1), initrd_source="big.img")
    assert (err.source, err.field, err.limit) == ("big.img", "initrd_addr_max", 24 * MIB - 1)


def test_an_empty_initrd_is_refused() -> None:
    err = refused(read_image(), small_host(), initrd=b"", initrd_source="empty.img")
    assert (err.source, err.problem) == ("empty.img", "the initrd is empty")


def test_a_command_line_may_be_as_long_as_the_kernel_takes_and_no_longer() -> None:
    image = read_image(cmdline_size=40)
    plan = prepare(image, small_host(), Request(command_line="é" * 20))
    assert bytes(segment(plan, "command line").data) == "é".encode() * 20 + b"\0"
    err = refused(image, small_host(), command_line="é" * 20 + "x")
    assert (err.source, err.field, err.limit) == ("command line", "cmdline_size", 40)


def test_a_byte_of_a_command_line_that_is_no_text_stays_that_byte() -> None:
    plan = prepare(read_image(), small_host(), Request(command_line="a=\udcff\udcc3"))
    assert bytes(segment(plan, "command line").data) == b"a=\xff\xc3\0"


@pytest.mark.parametrize(("text", "problem"), [("a\0b", "zero byte"), ("a\ud800", "not UTF-8")])
def test_a_command_line_that_cannot_be_handed_over_is_refused(text: str, problem: str) -> None:
    err = refused(read_image(), small_host(), command_line=text)
    assert err.source == "command line"
    assert problem in err.problem


def test_a_negative_seed_is_refused() -> None:
    err = refused(read_image(), small_host(), scatter=-1)
    assert (err.source, err.field, err.limit) == ("command line", "scatter", 0)


def test_no_room_for_the_small_segments_is_refused() -> None:
    # The kernel takes all there is from 16 MiB up; below it everything is in the first MiB.
    host = make_host(
        [Extent(16 * MIB, 48 * MIB)], text=18 * MIB, private=Extent.sized(20 * MIB, PRIVATE_SIZE)
    )
    err = refused(read_image(init_size=32 * MIB), host)
    assert (err.source, err.field) == ("made", "memory")
    assert "no room for the command line" in str(err)


@pytest.mark.parametrize(
    ("free_pages", "what"),
    [(0, "the copy"), (512, "the page list"), (514, "the control page"), (515, "the page tables")],
)
def test_a_host_with_too_little_to_give_is_refused_saying_for_what(
    free_pages: int, what: str
) -> None:
    # The kernel's place is busy, the three small segments lie in place at the top of what is free.
    top = 64 * MIB + (free_pages + 3) * PAGE
    host = make_host(
        [Extent(MIB, top)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, PRIVATE_SIZE),
        busy=[Extent(MIB, 64 * MIB)],
    )
    err = refused(read_image(init_size=2 * MIB), host)
    assert str(err).startswith(f"made: memory: {what} needs ")


def test_rows_that_boot_params_cannot_hold_hang_on_it() -> None:
    # setup_data.next, type 1 (SETUP_E820_EXT), length; then rows as in the table (bootparam.h).
    other = [Region(Extent(n * GIB, n * GIB + 1), RegionKind.RESERVED) for n in range(1, 150)]
    plan = prepare(read_image(), small_host(other=other), Request())
    found = {each.role: each for each in plan.segments}
    page = bytes(found[SegmentRole.BOOT_PARAMS].data)
    node = found[SegmentRole.SETUP_DATA]
    assert page[0x1E8] == 128
    assert int.from_bytes(page[0x250:0x258], "little") == node.destination.start
    following, kind, size = struct.unpack_from("<QII", node.data)
    assert (following, kind, size, len(node.data)) == (0, 1, 23 * 20, 16 + 23 * 20)
    rows = list(struct.iter_unpack("<QQI", page[0x2D0:0xCD0] + bytes(node.data[16:])))
    assert rows == [
        (each.extent.start, each.extent.size, 1 if each.kind is RegionKind.RAM else 2)
        for each in plan.host.memory
    ]
    assert any(node.destination in (each.extent,) for each in plan.identity)
    assert SegmentRole.SETUP_DATA not in {
        each.role
        for each in prepare(read_image(), small_host(other=other[:126]), Request()).segments
    }


def test_what_has_no_identity_address_with_4_levels_is_refused() -> None:
    def acpi(end: int) -> Host:
        return small_host(other=[Region(Extent(end - PAGE, end), RegionKind.ACPI)])

    assert prepare(read_image(), acpi(1 << 47), Request()).identity[-1].extent.end == 1 << 47
    err = refused(read_image(), acpi((1 << 47) + PAGE))
    assert (err.source, err.field, err.limit) == ("made", "memory", 1 << 47)


@pytest.mark.parametrize("paging", [Paging.PAE, Paging.X86_64])
def test_all_memory_is_mapped_where_it_has_identity_addresses(paging: Paging) -> None:
    old = host_room.read(host_room.example(paging), "made")
    assert old.memory.ram[-1].end > 4 * GIB
    if paging.long_mode:
        assert prepare(read_image(), old, Request(whole_memory=True)).identity
    else:
        err = refused(read_image(), old, whole_memory=True)
        assert (err.source, err.field, err.limit) == ("made", "memory", 4 * GIB)
