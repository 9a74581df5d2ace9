"""The firmware's map: what lies where, against a search through every region."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.memory import Extent, MemoryMap, Region, RegionKind

LAPTOP = MemoryMap(
    (
        Region(Extent(0x1000, 0xA0000), RegionKind.RAM),
        Region(Extent(0xF0000, 0x100000), RegionKind.RESERVED),
        Region(Extent(0x100000, 0x8000000), RegionKind.RAM),
        Region(Extent(0x8000000, 0x8010000), RegionKind.ACPI),
        Region(Extent(0x8010000, 0x9000000), RegionKind.RAM),
    )
)


@st.composite
def memory_maps(draw: st.DrawFn) -> MemoryMap:
    """Sorted regions on a small line, some touching, some empty, holes between some."""
    cuts = sorted(draw(st.lists(st.integers(0, 40), max_size=14)))
    regions = [
        Region(Extent(start, end), draw(st.sampled_from(RegionKind)))
        for start, end in pairwise(cuts)
        if draw(st.booleans())
    ]
    return MemoryMap(tuple(regions))


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        (0, None),
        (0xFFF, None),
        (0x1000, RegionKind.RAM),
        (0x9FFFF, RegionKind.RAM),
        (0xA0000, None),
        (0xF0000, RegionKind.RESERVED),
        (0x100000, RegionKind.RAM),
        (0x8000000, RegionKind.ACPI),
        (0x8FFFFFF, RegionKind.RAM),
        (0x9000000, None),
        (1 << 52, None),
    ],
)
def test_an_address_has_the_kind_of_its_region_or_none(
    address: int, kind: RegionKind | None
) -> None:
    assert LAPTOP.kind_at(address) is kind


def test_regions_of_some_kinds_are_merged_where_they_touch() -> None:
    assert LAPTOP.ram == (
        Extent(0x1000, 0xA0000),
        Extent(0x100000, 0x8000000),
        Extent(0x8010000, 0x9000000),
    )
    assert LAPTOP.of(RegionKind.RAM, RegionKind.ACPI) == (
        Extent(0x1000, 0xA0000),
        Extent(0x100000, 0x9000000),
    )
    assert LAPTOP.of() == ()
    assert list(LAPTOP) == list(LAPTOP.regions)


@pytest.mark.parametrize(
    "regions",
    [[(0, 5), (4, 8)], [(4, 8), (0, 4)], [(0, 9), (2, 3)], [(0, 1), (4, 8), (7, 9)]],
    ids=["overlapping", "unsorted", "nested", "the last two overlap"],
)
def test_a_map_refuses_regions_that_overlap_or_are_unsorted(
    regions: list[tuple[int, int]],
) -> None:
    with pytest.raises(ValueError, match="overlap or are unsorted"):
        MemoryMap(tuple(Region(Extent(*each), RegionKind.RAM) for each in regions))


def test_a_map_takes_regions_that_touch() -> None:
    regions = tuple(Region(Extent(n, n + 1), RegionKind.RAM) for n in range(3))
    assert MemoryMap(regions).ram == (Extent(0, 3),)


@given(memory_maps(), st.integers(0, 41))
def test_kind_at_finds_what_a_linear_search_finds(memory: MemoryMap, address: int) -> None:
    found = [each.kind for each in memory if each.extent.start <= address < each.extent.end]
    assert memory.kind_at(address) == (found[0] if found else None)


@given(memory_maps(), st.sets(st.sampled_from(RegionKind)), st.integers(0, 41))
def test_of_has_the_addresses_of_these_kinds_and_no_others(
    memory: MemoryMap, kinds: set[RegionKind], address: int
) -> None:
    inside = any(address in extent for extent in memory.of(*kinds))
    assert inside == (memory.kind_at(address) in kinds)
