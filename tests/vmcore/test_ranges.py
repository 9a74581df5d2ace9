"""Ranges and differences against dictionaries of single pages."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vmcore.cores import crashed
from tightrope import vmcore
from tightrope.model import Paging
from tightrope.model.pgd import Damage, Kind, Range, Sweep
from tightrope.vmcore.ranges import difference, merged
from tightrope.vmcore.sweep import sweep

Page = tuple[int, int, int]
"""(linear page number, physical page number, rights)."""
TOP = 1 << 52
"""The last linear page number is TOP - 1: 2**64 bytes."""


def made(pages: list[Page]) -> Sweep:
    """A sweep of 4 KiB pages."""
    columns = list(zip(*sorted(pages), strict=True)) or [(), (), ()]
    nothing = np.zeros(0, np.uint64)
    none = Damage(count=0, levels=(), at=nothing, entries=nothing, virt=nothing)
    virt, phys = (np.array(column, np.uint64) * np.uint64(4096) for column in columns[:2])
    return Sweep(
        virt=virt,
        phys=phys,
        size=np.full(len(virt), 4096, np.uint64),
        rights=np.array(columns[2], np.uint8),
        tables=1,
        missing=none,
        untold=none,
        reserved=none,
    )


def pages_of(ranges: list[Range]) -> dict[int, tuple[int, str]]:
    """Each page of some ranges."""
    return {
        each.virt + at: (each.phys + at, each.rights)
        for each in ranges
        for at in range(0, each.size, 4096)
    }


@st.composite
def lists(draw: st.DrawFn) -> list[Page]:
    """Pages that often continue each other, at the bottom and at the very top of the addresses."""
    virt = st.integers(0, 12) | st.integers(TOP - 6, TOP - 1)
    offset = st.sampled_from([0, 0, 0, 5])
    rows = draw(st.dictionaries(virt, st.tuples(offset, st.sampled_from([1, 1, 5])), max_size=16))
    return [(v, v % 64 + shift, rights) for v, (shift, rights) in rows.items()]


@given(lists())
def test_ranges_hold_the_same_pages_and_cannot_be_merged_further(pages: list[Page]) -> None:
    found = made(pages)
    ranges = list(merged(found))
    letters = {1: "rw---", 5: "rwx--"}
    assert pages_of(ranges) == {v * 4096: (p * 4096, letters[r]) for v, p, r in pages}
    for before, after in pairwise(ranges):
        assert (before.virt + before.size, before.phys + before.size, before.rights) != (
            after.virt,
            after.phys,
            after.rights,
        )


@given(lists(), lists())
def test_a_difference_turns_one_list_into_the_other(old: list[Page], new: list[Page]) -> None:
    before, after = made(old), made(new)
    changes = difference(before, after)
    was, now = (pages_of(list(merged(each))) for each in (before, after))
    gone = pages_of([each.before for each in changes if each.before])
    came = pages_of([each.after for each in changes if each.after])
    assert gone == {at: page for at, page in was.items() if now.get(at) != page}
    assert came == {at: page for at, page in now.items() if was.get(at) != page}
    for each in changes:
        kinds = {(True, True): Kind.CHANGED, (True, False): Kind.REMOVED, (False, True): Kind.ADDED}
        assert each.kind is kinds[each.before is not None, each.after is not None]
    starts = [each.virt for each in changes]
    assert starts == sorted(starts)


@given(lists())
def test_nothing_differs_from_itself(pages: list[Page]) -> None:
    assert difference(made(pages), made(pages)) == ()


def test_what_the_difference_of_many_pages_is_called() -> None:
    before = made([(1, 11, 1), (2, 12, 1), (3, 13, 1), (9, 19, 5)])
    after = made([(2, 12, 1), (3, 23, 1), (4, 24, 1), (9, 19, 1)])
    assert [(str(c.kind), c.virt >> 12) for c in difference(before, after)] == [
        ("removed", 1),
        ("changed", 3),
        ("added", 4),
        ("changed", 9),
    ]


@pytest.mark.parametrize("mode", [each.value for each in Paging])
def test_a_split_large_page_is_no_difference(mode: str) -> None:
    dead = crashed(mode)
    core = vmcore.parse(dead.core(), "made")
    found = sweep(core, vmcore.find_root(core))
    small = [
        (v + at, p + at, r)
        for v, p, s, r in zip(
            *(c.tolist() for c in (found.virt, found.phys, found.size, found.rights)), strict=True
        )
        for at in range(0, s, 4096)
    ]
    assert set(found.size.tolist()) > {4096}
    assert difference(found, made([(v >> 12, p >> 12, r) for v, p, r in small])) == ()
