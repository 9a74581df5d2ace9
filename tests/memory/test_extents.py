"""Extents and their algebra: a table of cases, and properties against sets of integers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.memory import PAGE_SIZE, Extent, align_down, align_up, covered, subtract, union

# A small line, so that extents meet, touch and nest often.
LINE = 48
ends = st.integers(min_value=0, max_value=LINE)
extents = st.builds(lambda a, b: Extent(min(a, b), max(a, b)), ends, ends)
many = st.lists(extents, max_size=8)
alignments = st.integers(min_value=0, max_value=40).map(lambda shift: 1 << shift)


def points(these: list[Extent] | tuple[Extent, ...]) -> set[int]:
    """The addresses in these extents, one by one."""
    return {at for extent in these for at in range(extent.start, extent.end)}


def runs(addresses: set[int]) -> tuple[Extent, ...]:
    """The same addresses as maximal extents, found by looking at every address."""
    out = []
    for at in range(LINE + 1):
        if at in addresses and at - 1 not in addresses:
            start = at
        if at in addresses and at + 1 not in addresses:
            out.append(Extent(start, at + 1))
    return tuple(out)


@pytest.mark.parametrize(("start", "end"), [(-1, 4), (5, 4), (-2, -1)])
def test_an_extent_does_not_end_before_it_starts_nor_start_below_zero(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="not an extent"):
        Extent(start, end)


def test_an_extent_says_where_it_is_and_how_large() -> None:
    assert Extent.sized(0x1000, 0x234) == Extent(0x1000, 0x1234)
    assert Extent(0x1000, 0x1234).size == 0x234
    assert str(Extent(0x1000, 0x1234)) == "[0x1000, 0x1234)"


@pytest.mark.parametrize(
    ("extent", "frames"),
    [
        (Extent(0, 0), []),
        (Extent(0, 1), [0]),
        (Extent(0, 0x1000), [0]),
        (Extent(0, 0x1001), [0, 1]),
        (Extent(0xFFF, 0x1001), [0, 1]),
        (Extent(0x1000, 0x3000), [1, 2]),
        (Extent(0x1000, 0x1000), []),
        (Extent(0x1800, 0x1800), []),
    ],
)
def test_the_pages_of_an_extent_are_those_that_hold_a_byte_of_it(
    extent: Extent, frames: list[int]
) -> None:
    assert list(extent.pages) == frames


@given(st.integers(0, 5 * PAGE_SIZE), st.integers(0, 3 * PAGE_SIZE))
def test_pages_and_page_aligned_agree_with_each_byte(start: int, size: int) -> None:
    extent = Extent.sized(start, size)
    assert set(extent.pages) == {at // PAGE_SIZE for at in range(start, start + size)}
    whole = extent.page_aligned()
    assert whole.covers(extent)
    assert whole.start % PAGE_SIZE == whole.end % PAGE_SIZE == 0
    assert start - whole.start < PAGE_SIZE
    assert whole.end - extent.end < PAGE_SIZE


@pytest.mark.parametrize(
    ("one", "other", "covers", "overlaps"),
    [
        (Extent(2, 8), Extent(2, 8), True, True),
        (Extent(2, 8), Extent(3, 8), True, True),
        (Extent(2, 8), Extent(1, 8), False, True),
        (Extent(2, 8), Extent(2, 9), False, True),
        (Extent(2, 8), Extent(8, 9), False, False),
        (Extent(2, 8), Extent(0, 2), False, False),
        (Extent(2, 8), Extent(5, 5), True, False),
        (Extent(2, 8), Extent(8, 8), True, False),
        (Extent(2, 8), Extent(9, 9), False, False),
        (Extent(2, 2), Extent(1, 3), False, False),
    ],
)
def test_covers_and_overlaps_at_the_edges(
    one: Extent, other: Extent, covers: bool, overlaps: bool
) -> None:
    assert one.covers(other) == covers
    assert one.overlaps(other) == other.overlaps(one) == overlaps


@given(extents, extents, ends)
def test_extents_behave_like_sets_of_addresses(one: Extent, other: Extent, at: int) -> None:
    ours, theirs = points([one]), points([other])
    assert (at in one) == (at in ours)
    assert one.size == len(ours)
    assert one.overlaps(other) == bool(ours & theirs)
    if other.size:
        assert one.covers(other) == (theirs <= ours)


@pytest.mark.parametrize(
    ("given_", "merged"),
    [
        ([], []),
        ([(3, 3)], []),
        ([(4, 6), (1, 2)], [(1, 2), (4, 6)]),
        ([(1, 2), (2, 4)], [(1, 4)]),
        ([(1, 9), (2, 4)], [(1, 9)]),
        ([(1, 3), (2, 4), (3, 7)], [(1, 7)]),
    ],
)
def test_union_merges_what_overlaps_or_touches(
    given_: list[tuple[int, int]], merged: list[tuple[int, int]]
) -> None:
    assert union(Extent(*each) for each in given_) == tuple(Extent(*each) for each in merged)


@pytest.mark.parametrize(
    ("given_", "holes", "left"),
    [
        ([(0, 10)], [], [(0, 10)]),
        ([(0, 10)], [(0, 10)], []),
        ([(0, 10)], [(3, 4)], [(0, 3), (4, 10)]),
        ([(0, 10)], [(0, 1), (9, 12)], [(1, 9)]),
        ([(5, 10)], [(0, 5), (10, 12)], [(5, 10)]),
        ([(0, 4), (6, 9)], [(3, 7)], [(0, 3), (7, 9)]),
        ([(0, 4)], [(2, 2)], [(0, 4)]),
    ],
)
def test_subtract_cuts_at_the_very_edges(
    given_: list[tuple[int, int]], holes: list[tuple[int, int]], left: list[tuple[int, int]]
) -> None:
    got = subtract((Extent(*each) for each in given_), (Extent(*each) for each in holes))
    assert got == tuple(Extent(*each) for each in left)


@given(many)
def test_union_is_the_union_of_sets(these: list[Extent]) -> None:
    assert union(these) == runs(points(these))


@given(many, many)
def test_subtract_is_the_difference_of_sets(these: list[Extent], holes: list[Extent]) -> None:
    assert subtract(these, holes) == runs(points(these) - points(holes))


@given(extents, many)
def test_covered_is_the_subset_of_sets(extent: Extent, by: list[Extent]) -> None:
    assert covered(extent, by) == (points([extent]) <= points(by))


@given(st.integers(min_value=0, max_value=1 << 64), alignments)
def test_aligning_finds_the_nearest_multiple_on_either_side(value: int, alignment: int) -> None:
    down, up = align_down(value, alignment), align_up(value, alignment)
    assert down == value // alignment * alignment
    assert up == -(-value // alignment) * alignment
