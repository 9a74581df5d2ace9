"""The dead kernel's memory before and after: each byte that changed outside of the region, and no other."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope import host as host_room
from tightrope.deeds.kdump_check import kept
from tightrope.memory import Extent
from tightrope.model import Host, Named, Paging

MIB, PAGE = 1 << 20, 4096
REGION = Extent.sized(4 * MIB, 2 * MIB)
LENT = Extent.sized(7 * MIB, MIB)
OUTSIDE, END = 2 * MIB, 16 * MIB


def old() -> Host:
    made = host_room.read(host_room.example(Paging.X86_64, pc=256), "a PC")
    lent = (Named(extent=LENT, what="CMA memory of the crash kernel"),)
    return replace(made, crash_region=REGION, crash_memory=lent)


HOST = old()


class Pages:
    """Sparse memory: what was never written is zeros."""

    def __init__(self) -> None:
        self.pages: dict[int, bytearray] = {}

    def put(self, phys: int, data: bytes) -> None:
        page = self.pages.setdefault(phys // PAGE, bytearray(PAGE))
        page[phys % PAGE : phys % PAGE + len(data)] = data

    def written(self) -> frozenset[int] | None:
        return frozenset(self.pages)

    def read(self, extent: Extent) -> bytes:
        return b"".join(bytes(self.pages.get(each, bytes(PAGE))) for each in extent.pages)

    def held(self, extent: Extent) -> tuple[Extent, ...]:
        return (extent,)


def laid() -> Pages:
    memory = Pages()
    for phys in (OUTSIDE, OUTSIDE + PAGE, REGION.start, LENT.start, 0x1000):
        memory.put(phys, b"old")
    return memory


def changed(memory: Pages, was: kept.Before | None) -> tuple[Extent, ...]:
    assert was is not None
    return kept.after(memory, was).changed  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("phys", "data", "told"),
    [
        (OUTSIDE + PAGE - 1, b"x", Extent.sized(OUTSIDE, PAGE)),
        (OUTSIDE, b"\0\0\0", Extent.sized(OUTSIDE, PAGE)),
        (OUTSIDE + 9 * PAGE, b"x", Extent.sized(OUTSIDE + 9 * PAGE, PAGE)),
        (REGION.start - 1, b"x", Extent(REGION.start - PAGE, REGION.start)),
        (REGION.end, b"x", Extent.sized(REGION.end, PAGE)),
        (LENT.end, b"x", Extent.sized(LENT.end, PAGE)),
        (OUTSIDE, b"old", None),
        (OUTSIDE + 9 * PAGE, b"\0", None),
        (REGION.start, b"new", None),
        (REGION.end - 1, b"x", None),
        (LENT.start, b"new", None),
        (0xFFFFF, b"x", None),
    ],
)
def test_what_changed_is_told_by_its_page(phys: int, data: bytes, told: Extent | None) -> None:
    memory = laid()
    was = kept.before(memory, HOST)  # type: ignore[arg-type]
    memory.put(phys, data)
    assert changed(memory, was) == (() if told is None else (told,))


@given(
    st.lists(st.tuples(st.integers(MIB, END - 1), st.binary(min_size=1, max_size=1)), max_size=9)
)
def test_any_writes_are_told_where_they_change_a_byte_outside(
    writes: list[tuple[int, bytes]],
) -> None:
    memory = laid()
    was = kept.before(memory, HOST)  # type: ignore[arg-type]
    before = memory.read(Extent(0, END))
    for phys, data in writes:
        memory.put(phys, data)
    now = memory.read(Extent(0, END))
    expected = {
        phys // PAGE
        for phys, _ in writes
        if now[phys] != before[phys] and phys not in REGION and phys not in LENT
    }
    assert {frame for each in changed(memory, was) for frame in each.pages} == expected


def test_a_page_that_was_given_back_is_zeros_now() -> None:
    memory = laid()
    was = kept.before(memory, HOST)  # type: ignore[arg-type]
    del memory.pages[OUTSIDE // PAGE]
    assert changed(memory, was) == (Extent.sized(OUTSIDE, PAGE),)


def test_memory_that_does_not_say_what_was_written_is_not_compared() -> None:
    class Mute(Pages):
        def written(self) -> frozenset[int] | None:
            return None

    assert kept.before(Mute(), HOST) is None  # type: ignore[arg-type]
