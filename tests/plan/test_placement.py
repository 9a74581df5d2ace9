"""plan.placement: a hole is where its table says, and where a search page by page finds it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.hosts import MIB, PAGE, hosts, make_host, small_host
from tests.rehearse.runs import example_host, shared, shipped_kernel, shipped_request
from tightrope.deeds.rehearse import prepare, rehearse
from tightrope.memory import Extent
from tightrope.model import Host, Outcome, SegmentRole
from tightrope.plan.placement import (
    FIRST_MIB,
    find_hole,
    free_ram,
    largest,
    ram_for_new_kernel,
    whole_pages,
)

TWO = [Extent(0x1000, 0x5000), Extent(0x8000, 0x20000)]


@pytest.mark.parametrize(
    ("size", "options", "lowest", "highest"),
    [
        (0x1000, {}, 0x1000, 0x1F000),
        (0x4000, {}, 0x1000, 0x1C000),
        (0x5000, {}, 0x8000, 0x1B000),
        (0x18000, {}, 0x8000, 0x8000),
        (0x19000, {}, None, None),
        (0x1000, {"alignment": 0x4000}, 0x4000, 0x1C000),
        (0x2000, {"alignment": 0x4000}, 0x8000, 0x1C000),
        (0x8000, {"alignment": 0x10000}, 0x10000, 0x10000),
        (0x11000, {"alignment": 0x10000}, None, None),
        (0x1000, {"low": 0x3000}, 0x3000, 0x1F000),
        (0x1000, {"low": 0x5000}, 0x8000, 0x1F000),
        (0x2000, {"low": 0x4000}, 0x8000, 0x1E000),
        (0x1000, {"high": 0x1F800}, 0x1000, 0x1E000),
        (0x1000, {"high": 0x8FFF}, 0x1000, 0x4000),
        (0x1000, {"low": 0x4000, "high": 0x5000}, 0x4000, 0x4000),
        (0x1000, {"low": 0x4001, "high": 0x8FFF}, None, None),
        (0x1000, {"low": 0x20000}, None, None),
        (0x1000, {"high": 0x1000}, None, None),
    ],
)
def test_the_lowest_and_the_highest_hole(
    size: int, options: dict[str, int], lowest: int | None, highest: int | None
) -> None:
    for from_top, start in ((False, lowest), (True, highest)):
        hole = find_hole(TWO, size, from_top=from_top, **options)
        assert hole == (None if start is None else Extent.sized(start, size))


def test_there_is_no_hole_in_nothing() -> None:
    assert find_hole([], PAGE, from_top=True) is None
    assert find_hole([], PAGE, from_top=False) is None


@st.composite
def page_extents(draw: st.DrawFn) -> list[Extent]:
    """Sorted extents of whole pages with gaps between them."""
    cuts = sorted(draw(st.sets(st.integers(0, 80), max_size=8)))
    return [Extent(a * PAGE, b * PAGE) for a, b in zip(cuts[::2], cuts[1::2], strict=False)]


@given(
    extents=page_extents(),
    pages=st.integers(1, 30),
    shift=st.integers(0, 5),
    low=st.integers(0, 80 * PAGE),
    high=st.integers(0, 90 * PAGE),
    from_top=st.booleans(),
)
def test_a_hole_is_the_one_that_a_search_page_by_page_finds(
    extents: list[Extent], pages: int, shift: int, low: int, high: int, from_top: bool
) -> None:
    size, alignment = pages * PAGE, PAGE << shift
    fits = [
        start
        for start in range(0, 80 * PAGE, alignment)
        if start >= low
        and start + size <= high
        and any(each.start <= start and start + size <= each.end for each in extents)
    ]
    hole = find_hole(extents, size, alignment=alignment, low=low, high=high, from_top=from_top)
    if not fits:
        assert hole is None
    else:
        assert hole == Extent.sized(max(fits) if from_top else min(fits), size)


@pytest.mark.parametrize(
    ("extent", "pages"),
    [
        ((0, 0x1000), [(0, 0x1000)]),
        ((1, 0x1FFF), []),
        ((1, 0x2000), [(0x1000, 0x2000)]),
        ((0x1000, 0x2FFF), [(0x1000, 0x2000)]),
        ((0x1800, 0x1900), []),
        ((0x1000, 0x1000), []),
    ],
)
def test_a_page_counts_only_when_it_is_whole(
    extent: tuple[int, int], pages: list[tuple[int, int]]
) -> None:
    assert whole_pages([Extent(*extent)]) == tuple(Extent(*each) for each in pages)


def test_the_new_kernel_may_have_all_ram_but_the_first_mib_and_the_crash_region() -> None:
    host = small_host(64, crash_region=Extent(32 * MIB, 40 * MIB))
    assert ram_for_new_kernel(host) == (Extent(MIB, 32 * MIB), Extent(40 * MIB, 64 * MIB))


def test_the_old_kernel_can_give_away_what_is_not_its_own_and_not_busy() -> None:
    host = small_host(64, busy=[Extent(20 * MIB + 1, 20 * MIB + 2), Extent(63 * MIB, 64 * MIB)])
    # Text is at 2 MiB to 4 MiB, private memory from there to 8 MiB.
    assert free_ram(host) == (
        Extent(MIB, 2 * MIB),
        Extent(8 * MIB, 20 * MIB),
        Extent(20 * MIB + PAGE, 63 * MIB),
    )


def test_a_page_that_is_partly_ram_is_nobodys() -> None:
    host = make_host(
        [Extent(MIB, 64 * MIB + 0x800)], text=2 * MIB, private=Extent(4 * MIB, 8 * MIB)
    )
    assert ram_for_new_kernel(host) == (Extent(MIB, 64 * MIB),)


def owned_by(extents: tuple[Extent, ...], page: int) -> bool:
    return any(page in each for each in extents)


@given(host=hosts(), data=st.data())
def test_a_page_is_free_when_every_byte_of_it_is_ram_that_nobody_needs(
    host: Host, data: st.DataObject
) -> None:
    edges = [
        edge + shift
        for each in (
            *(region.extent for region in host.memory),
            *(busy.extent for busy in host.busy),
            host.private,
            Extent.sized(host.text.phys, host.text.size),
            FIRST_MIB,
            *([host.crash_region] if host.crash_region else []),
        )
        for edge in (each.start, each.end)
        for shift in (-PAGE, 0, PAGE)
    ]
    page = max(0, data.draw(st.sampled_from(edges))) & -PAGE
    whole = Extent.sized(page, PAGE)
    usable = (
        any(ram.covers(whole) for ram in host.memory.ram)
        and page >= MIB
        and not (host.crash_region and host.crash_region.overlaps(whole))
    )
    assert owned_by(ram_for_new_kernel(host), page) == usable
    taken = [host.private, Extent.sized(host.text.phys, host.text.size)]
    taken += [busy.extent for busy in host.busy]
    assert owned_by(free_ram(host), page) == (
        usable and not any(each.overlaps(whole) for each in taken)
    )


def test_the_largest_of_none_is_nothing() -> None:
    assert largest([]) == 0
    assert largest(TWO) == 0x18000


def test_a_kernel_from_the_top_lies_where_the_old_kernel_gives_away_and_holds() -> None:
    """The highest aligned free place, what it is handed below it; a crash kernel has its region alone."""
    request = replace(shipped_request(), from_top=True)
    plan = prepare(shipped_kernel(), example_host(), request)
    low = prepare(shipped_kernel(), example_host(), shipped_request())
    (kernel,) = [each for each in plan.segments if each.role is SegmentRole.KERNEL]
    (usual,) = [each for each in low.segments if each.role is SegmentRole.KERNEL]
    assert usual.destination.start == shipped_kernel().pref_address
    assert kernel.destination.start > usual.destination.start
    assert kernel.destination.start % shipped_kernel().alignment == 0
    assert plan.in_place == len(plan.destinations)
    assert low.in_place < len(low.destinations)
    verdict = rehearse(shipped_kernel(), example_host(), request, machine=shared())
    assert verdict.outcome is Outcome.HOLDS, verdict.findings
