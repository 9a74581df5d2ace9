"""plan.prepare for a crash: everything in the region, nothing to copy, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import example as given_example
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.crash.hosts import LEGACY, REGION, crash_hosts, example, small_kernel
from tests.crash.reader import command_line, e820, header_of, segment
from tests.makers.hosts import GIB, MIB, PAGE, read_image
from tests.rehearse.runs import shipped_kernel, shipped_request
from tightrope.errors import PlanError
from tightrope.memory import Extent, MemoryMap, Region, RegionKind, subtract, union
from tightrope.model import Host, Image, Named, Paging, Plan, Protocol
from tightrope.plan import Request, prepare

MANY = settings(max_examples=60)
CRASH = Request(crash=True)
MODES = pytest.mark.parametrize("paging", list(Paging))


def used(plan: Plan) -> list[Extent]:
    """Every extent that a plan names for itself."""
    return [
        *(each.destination for each in plan.segments),
        Extent.sized(plan.control_page, PAGE),
        *plan.spare,
        *(Extent.sized(at, PAGE) for at in plan.list_pages),
    ]


# -------------------------------------------------------------------------- everything in the region


@MODES
def test_the_plan_says_that_it_is_a_crash_plan(paging: Paging) -> None:
    assert prepare(shipped_kernel(), example(paging), CRASH).crash
    assert not prepare(shipped_kernel(), example(paging), Request()).crash


@MANY
@given(
    old=crash_hosts(),
    scatter=st.none() | st.integers(0, 99),
    initrd=st.none() | st.binary(min_size=1),
)
def test_everything_lies_in_the_region_once_and_is_in_place(
    old: Host, scatter: int | None, initrd: bytes | None
) -> None:
    kernel = small_kernel(initrd_addr_max=0xFFFF_FFFF)
    plan = prepare(kernel, old, replace(CRASH, scatter=scatter, initrd=initrd))
    assert old.crash_region is not None
    assert all(old.crash_region.covers(each) for each in used(plan))
    assert sum(each.size for each in used(plan)) == sum(each.size for each in union(used(plan)))
    assert (plan.head, plan.list_pages) == (4, {})
    assert plan.in_place == len(plan.destinations) == len(plan.sources)
    assert plan.destinations.tolist() == plan.sources.tolist()
    assert plan.destinations.tolist() == [
        frame for each in plan.segments for frame in each.destination.pages
    ]


@MODES
@pytest.mark.parametrize("start", [0x0200_0000, 0x3300_1000, 0x45FF_F000, 0x9000_3000])
def test_the_region_may_lie_anywhere_above_pref_address(paging: Paging, start: int) -> None:
    old = replace(example(paging, None), busy=(), crash_region=Extent.sized(start, 16 * MIB))
    if old.crash_region and old.crash_region.overlaps(old.private):
        old = replace(old, private=Extent.sized(0x3000_0000, 16 * MIB))
    plan = prepare(small_kernel(), old, CRASH)
    assert segment(plan, "kernel").destination.start == start
    assert plan.kernel_entry >= start


@pytest.mark.parametrize("paging", [Paging.X86_64, Paging.LA57])
def test_the_region_may_lie_above_4_gib_for_a_kernel_that_may_be_there(paging: Paging) -> None:
    region = Extent.sized(4 * GIB + 3 * PAGE, 32 * MIB)
    kernel = small_kernel(xloadflags=0b0111_1111)
    plan = prepare(kernel, example(paging, region), CRASH)
    assert all(region.covers(each) for each in used(plan))
    assert plan.protocol is Protocol.LINUX_64
    with pytest.raises(PlanError) as caught:
        prepare(kernel, example(paging, region), replace(CRASH, protocol=Protocol.LINUX_32))
    assert caught.value.field == "init_size"
    assert "from 0x1000000 up, below 4 GiB" in str(caught.value)


def test_a_kernel_has_its_pref_address_where_the_region_has_it() -> None:
    old = example(region=Extent.sized(15 * MIB, 64 * MIB))
    kernel = small_kernel(relocatable=False)
    assert segment(prepare(kernel, old, CRASH), "kernel").destination.start == 16 * MIB


def test_what_is_busy_elsewhere_does_not_matter_to_a_crash_plan() -> None:
    old = example()
    everything = tuple(replace(old.busy[0], extent=each) for each in old.memory.ram)
    plan = prepare(small_kernel(), replace(old, busy=everything), CRASH)
    assert plan.in_place == len(plan.destinations)


def test_a_plain_plan_keeps_out_of_the_notes_of_a_crash() -> None:
    """All is busy but 64 pages, and then these hold notes."""
    free, old = Extent.sized(0x5000_0000, 64 * PAGE), example()
    memory = MemoryMap((Region(Extent(MIB, 2 * GIB), RegionKind.RAM),))
    rest = subtract(memory.ram, [free])
    old = replace(old, memory=memory, busy=tuple(Named(extent=e, what="busy") for e in rest))
    plan = prepare(small_kernel(), old, Request())
    assert all(free.covers(each) for each in (*plan.spare, Extent.sized(plan.control_page, PAGE)))
    notes = (Named(extent=Extent.sized(free.start + 8, free.size - 16), what="notes"),)
    assert "can give 0" in str(refused(small_kernel(), replace(old, crash_notes=notes), Request()))


# ------------------------------------------------------------------------------------ what is refused


def plan_or_none(image: Image, old: Host) -> Plan | None:
    try:
        return prepare(image, old, CRASH)
    except PlanError:
        return None


def refused(image: Image, old: Host, request: Request = CRASH) -> PlanError:
    with pytest.raises(PlanError) as caught:
        prepare(image, old, request)
    assert "\n" not in str(caught.value)
    return caught.value


@MODES
def test_without_a_region_there_is_no_crash_plan(paging: Paging) -> None:
    err = refused(small_kernel(), example(paging, None))
    assert err.field == "crash_region"
    assert "there is no crash region" in str(err)


@MODES
def test_a_region_that_is_just_large_enough_and_one_that_lacks_a_page(paging: Paging) -> None:
    kernel, old = small_kernel(), example(paging)
    regions = [Extent.sized(REGION.start, pages * PAGE) for pages in range(1, 60)]
    hosts = [replace(old, crash_region=each) for each in regions]
    enough = next(n for n, each in enumerate(hosts) if plan_or_none(kernel, each))
    assert enough > 12
    assert union(used(prepare(kernel, hosts[enough], CRASH))) == (regions[enough],)
    for pages, each in enumerate(hosts[:enough], 1):
        err = refused(kernel, each)
        assert err.field == ("init_size" if pages < 8 else "crash_region")
        assert "the crash region" in str(err)


def test_an_initrd_that_does_not_fit_the_region() -> None:
    err = refused(small_kernel(), example(), replace(CRASH, initrd=bytes(REGION.size)))
    assert err.field == "initrd_addr_max"
    assert "no room for 0x10000000 bytes of initrd" in str(err)


def test_a_region_above_4_gib_is_out_of_a_pae_kernels_reach() -> None:
    old = replace(example(Paging.PAE, None), crash_region=Extent.sized(4 * GIB, 64 * MIB))
    err = refused(small_kernel(), old)
    assert (err.field, err.limit) == ("crash_region", 4 * GIB)


@pytest.mark.parametrize("paging", LEGACY)
def test_a_region_that_ends_above_4_gib_is_out_of_reach(paging: Paging) -> None:
    region = Extent(4 * GIB - 32 * MIB, 4 * GIB + PAGE)
    old = example(paging, None)
    memory = MemoryMap((*old.memory.regions[:4], Region(region, RegionKind.RAM)))
    err = refused(small_kernel(), replace(old, memory=memory, crash_region=region))
    assert err.field == "crash_region"


@MODES
def test_a_region_below_pref_address_would_be_left_by_the_decompressor(paging: Paging) -> None:
    """A kernel that is loaded below its pref_address moves itself there (boot.rst, pref_address)."""
    old = replace(example(paging, None), crash_region=Extent.sized(2 * MIB, 8 * MIB))
    err = refused(small_kernel(), old)
    assert err.field == "init_size"
    assert "from 0x1000000 up" in str(err)


def test_a_kernel_that_cannot_be_moved_into_the_region() -> None:
    err = refused(small_kernel(relocatable=False), example())
    assert err.field == "pref_address"
    assert "and not all of that is the crash region [0x33000000, 0x43000000)" in str(err)


def test_the_first_mib_is_nobodys_even_where_the_region_has_it() -> None:
    memory = MemoryMap((Region(Extent(0, 2 * GIB), RegionKind.RAM),))
    old = replace(example(region=None), memory=memory, crash_region=Extent(0, 20 * MIB), busy=())
    plan = prepare(small_kernel(), old, CRASH)
    assert all(each.start >= MIB for each in used(plan))
    only = replace(old, crash_region=Extent(0, MIB))
    assert refused(small_kernel(), only).field == "init_size"


def test_a_direct_map_that_does_not_reach_the_region() -> None:
    """V in the direct map, where the control page has to be: i386's lowmem ends below the region."""
    old = example(Paging.I386, Extent.sized(0x9000_0000, 32 * MIB))
    err = refused(small_kernel(), replace(old, relocation=None))
    assert err.field == "crash_region"
    assert "the direct map has to reach" in str(err)


# -------------------------------------------------------------------------------- the command line


@MODES
@pytest.mark.parametrize("text", ["", "quiet", "root=/dev/sda1 -- single"])
def test_the_command_line_points_at_the_core_header(paging: Paging, text: str) -> None:
    plan = prepare(small_kernel(), example(paging), replace(CRASH, command_line=text))
    header = segment(plan, "core header").destination
    assert command_line(plan) == plan.command_line == f"elfcorehdr={header.start:#x} {text}".strip()


def test_a_plain_plan_has_no_core_header() -> None:
    plan = prepare(shipped_kernel(), example(), shipped_request())
    assert "elfcorehdr" not in plan.command_line
    assert [each.name for each in plan.segments if "core" in each.name] == []


def test_a_core_header_of_the_users_own_is_refused() -> None:
    err = refused(small_kernel(), example(), replace(CRASH, command_line="a elfcorehdr=1M b"))
    assert (err.source, err.field) == ("command line", "elfcorehdr")


def test_the_limit_of_the_command_line_counts_elfcorehdr() -> None:
    kernel = read_image(init_size=8 * PAGE, kernel_size=100, cmdline_size=255)
    assert kernel.cmdline_limit == 255
    ours = len("elfcorehdr=0x42fff000 ")
    longest = replace(CRASH, command_line="x" * (255 - ours))
    assert len(command_line(prepare(kernel, example(), longest))) == 255
    err = refused(kernel, example(), replace(CRASH, command_line="x" * (256 - ours)))
    assert (err.source, err.field, err.limit) == ("command line", "cmdline_size", 255)
    plain = Request(command_line="x" * 255)
    assert len(prepare(kernel, example(), plain).command_line) == 255


# ------------------------------------------------------------------------- the new kernel's memory map


@MANY
@given(old=crash_hosts())
@given_example(old=example())
@given_example(old=example(Paging.PAE))
@given_example(
    old=replace(example(), memory=MemoryMap((Region(Extent(0, 2 * GIB), RegionKind.RAM),)))
)
@given_example(
    old=replace(
        example(region=None),
        memory=MemoryMap((Region(Extent(0, 2 * GIB), RegionKind.RAM),)),
        crash_region=Extent(0x8000, 24 * MIB),
    )
)
def test_the_new_kernel_may_use_low_memory_and_the_region_and_no_other_ram(old: Host) -> None:
    plan = prepare(small_kernel(), old, CRASH)
    rows = e820(plan)
    kept = [
        each.destination
        for each in plan.segments
        if each.name in ("core header", "backup of low memory")
    ]
    assert old.crash_region is not None
    first_mib = Extent(0, MIB)
    low = subtract([first_mib], subtract([first_mib], old.memory.ram))
    ram = union(extent for extent, kind in rows if kind == "ram")
    beside = [each.extent for each in old.crash_memory]
    assert ram == subtract([*low, old.crash_region, *beside], kept)
    assert all((each, "reserved") in rows for each in kept)
    others = [(region.extent, region.kind.value) for region in old.memory if region.kind != "ram"]
    assert [row for row in rows if row[1] != "ram" and row[0] not in kept] == others
    starts = [extent.start for extent, _ in rows]
    assert starts == sorted(starts)
    assert not any(a[0].overlaps(b[0]) for a, b in pairwise(rows))


@MODES
def test_the_header_lies_in_whole_pages_of_its_own(paging: Paging) -> None:
    plan = prepare(small_kernel(), example(paging), CRASH)
    place = segment(plan, "core header").destination
    assert place.start % PAGE == place.size % PAGE == 0
    assert header_of(plan).kind == "ET_CORE"
