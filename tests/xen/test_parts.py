"""The small parts that the jump through a hypervisor added: frames mapped singly, pages without a source."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.screens import screen
from tests.rehearse.runs import example_host, shipped_kernel
from tests.xen.runs import WAYS, hypervisor, identifier
from tightrope import host
from tightrope.check.page_list import follow
from tightrope.deeds import compare
from tightrope.deeds.rehearse import prepare
from tightrope.machine.layout import POISON, lay_segment
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import ZERO_FRAME, Outcome, Paging, Segment, SegmentRole, XenInterface
from tightrope.observe.physical import Ram
from tightrope.plan import Request
from tightrope.plan.page_list import chained, list_length, words
from tightrope.views import plan as planned
from tightrope.x86.paging import FORMATS, Rights
from tightrope.x86.tables import TableStore
from tightrope.x86.walk import Access, Mmu, Translated, walk

CR0, EFER = 0x8005_0033, 0xD01
FRAMES = st.lists(st.integers(0, (1 << 20) - 1), min_size=1, max_size=1200)


@given(st.sampled_from([Paging.I386, Paging.PAE, Paging.X86_64]), FRAMES, st.integers(0, 3000))
def test_each_page_is_mapped_to_a_frame_of_its_own(
    paging: Paging, frames: list[int], first: int
) -> None:
    store = TableStore(FORMATS[paging], itertools.count(0x10_0000, PAGE_SIZE).__next__)
    virt = 0x40_0000 + first * PAGE_SIZE
    store.map_frames(virt, np.array(frames, np.int64), Rights())
    pages = store.pages()

    def read(phys: int, size: int) -> int | None:
        page = pages.get(phys & -PAGE_SIZE)
        return None if page is None else int.from_bytes(page[phys % PAGE_SIZE :][:size], "little")

    mmu = Mmu(
        cr0=CR0,
        cr3=store.root,
        cr4=0x10 if paging is Paging.I386 else 0x20,
        efer=EFER if paging is Paging.X86_64 else 0,
        physical_bits=36,
    )
    for number in {0, len(frames) // 2, len(frames) - 1}:
        got = walk(read, mmu, virt + number * PAGE_SIZE, Access.WRITE)
        assert isinstance(got, Translated)
        assert got.phys == frames[number] << 12


def test_frames_that_do_not_fit_an_entry_are_refused() -> None:
    store = TableStore(FORMATS["i386"], itertools.count(0, PAGE_SIZE).__next__)
    with pytest.raises(ValueError, match="does not fit i386's entries"):
        store.map_frames(0x1000, np.array([1 << 20], np.int64), Rights())
    with pytest.raises(ValueError, match="is not in one half"):
        store.map_frames(0xFFFF_F000, np.array([1, 2], np.int64), Rights())


@given(
    st.lists(
        st.lists(st.none() | st.integers(0x100, 0xFFFF), min_size=1, max_size=700),
        min_size=1,
        max_size=4,
    )
)
def test_a_list_with_cleared_pages_is_followed_as_it_was_written(
    runs: list[list[int | None]],
) -> None:
    rows = [
        (0x10_0000 * (n + 1), np.array([ZERO_FRAME if f is None else f for f in each], np.int64))
        for n, each in enumerate(runs)
    ]
    total = sum(len(each) for each in runs)
    frames = np.arange(list_length(len(rows), total), dtype=np.int64)
    head, pages = chained(words(rows), frames)
    memory = {at: row.tobytes() for at, row in pages.items()}
    got = follow(head, memory, zeros=True)
    assert got.problem is None
    assert got.sources.tolist() == [each for _first, row in rows for each in row.tolist()]
    wanted = [first + n for first, row in rows for n in range(len(row))]
    assert got.destinations.tolist() == wanted
    # Linux knows no such flag: it skips the word and the cursor stays.
    skipped = follow(head, memory)
    assert len(skipped.sources) == sum(f is not None for each in runs for f in each)


def test_a_cleared_page_is_poisoned_before_the_walk_and_has_no_source() -> None:
    ram = Ram((Extent(0, 0x10_0000),))
    segment = Segment(
        role=SegmentRole.OTHER, destination=Extent(0x2000, 0x5000), data=b"ab" * 3000, why=""
    )
    destinations = np.array([2, 3, 4], np.int64)
    lay_segment(segment, destinations, np.array([9, 7, ZERO_FRAME], np.int64), ram)
    assert bytes(ram.read(Extent(0x9000, 0xA000))) == b"ab" * 2048
    assert bytes(ram.read(Extent(0x7000, 0x8000))) == (b"ab" * 952).ljust(PAGE_SIZE, b"\0")
    assert set(bytes(ram.read(segment.destination))) == {POISON}


@pytest.mark.parametrize("way", WAYS, ids=identifier)
def test_a_plan_is_printed_whatever_has_no_source(way: tuple[Paging, XenInterface, int]) -> None:
    plan = prepare(shipped_kernel(), hypervisor(way), Request(xen=way[1]))
    text = screen(planned.VIEW, plan)
    assert "-0x" not in text
    assert f"V {plan.relocation:#x}" in text


def test_compare_has_the_designs_that_xen_takes_and_says_why_not_the_others() -> None:
    old = host.read(host.xen_example(interface=XenInterface.V1), "an example hypervisor")
    rows = compare.compare(shipped_kernel(), old, Request(xen=XenInterface.V1))
    held = {row.design for row in rows if row.outcome is Outcome.HOLDS}
    assert held == {"two-tables", "damm-v4"}
    rest = [row for row in rows if row.design not in held]
    assert {row.outcome for row in rest} == {None}
    assert all("page_list has no slots" in row.detail for row in rest)


def test_a_host_without_a_hypervisor_is_not_asked_through_one() -> None:
    with pytest.raises(Exception, match="there is no hypervisor"):
        prepare(shipped_kernel(), example_host(), Request(xen=XenInterface.V2))
