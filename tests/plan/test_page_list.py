"""plan.page_list: what is written is what the kernel's own reading of a page list reads back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.makers.hosts import PAGE
from tests.plan.list_reader import follow
from tightrope.plan.page_list import chained, list_length, words

FRAME = st.integers(1, (1 << 40) - 1)


def frames(values: list[int]) -> NDArray[np.int64]:
    return np.array(values, np.int64)


def read_back(head: int, pages: dict[int, NDArray[np.uint64]]) -> list[tuple[int, int]]:
    def word_at(address: int) -> int:
        return int(pages[address & -PAGE][address % PAGE // 8])

    return follow(head, word_at)


def test_a_short_list_word_for_word() -> None:
    flat = words([(0x1000, frames([0x1000, 0x77])), (0x30, frames([0x31]))])
    assert [hex(word) for word in flat.tolist()] == [
        "0x1000001",
        "0x1000008",
        "0x77008",
        "0x30001",
        "0x31008",
        "0x4",
    ]
    head, pages = chained(flat, frames([0x55]))
    assert head == 0x55002
    assert pages[0x55000].tolist() == [*flat.tolist(), *[0] * 506]


@given(
    runs=st.lists(st.tuples(FRAME, st.lists(FRAME, max_size=900)), max_size=4),
    place=st.integers(1, 1 << 39),
    step=st.sampled_from([1, 2, 1000, -1]),
)
def test_the_list_read_back_is_the_list_that_was_asked_for(
    runs: list[tuple[int, list[int]]], place: int, step: int
) -> None:
    count = list_length(len(runs), sum(len(sources) for _, sources in runs))
    holders = frames([place + 10_000 + step * number for number in range(count)])
    head, pages = chained(words((first, frames(each)) for first, each in runs), holders)
    assert read_back(head, pages) == [
        ((first + number) * PAGE, source * PAGE)
        for first, sources in runs
        for number, source in enumerate(sources)
    ]
    assert list(pages) == (holders << 12).tolist()
    assert all(len(page) == 512 for page in pages.values())


@pytest.mark.parametrize("pages", [0, 1, 508, 509, 510, 511, 1019, 1020, 1021, 1531])
def test_a_list_fills_its_pages_and_needs_no_more(pages: int) -> None:
    # One word for the destination, one per page, one for the end; 511 words a page and a link.
    total = 1 + pages + 1
    assert list_length(1, pages) == (total + 510) // 511
    flat = words([(5, frames(list(range(100, 100 + pages))))])
    head, held = chained(flat, frames(list(range(5000, 5000 + list_length(1, pages)))))
    rows = list(held.values())
    assert sum(int((row != 0).sum()) for row in rows) == total + len(rows) - 1
    assert [int(row[511]) for row in rows] == [
        *((5001 + number) << 12 | 2 for number in range(len(rows) - 1)),
        0,
    ]
    assert len(read_back(head, held)) == pages


def test_frames_at_the_end_of_the_physical_address_space_keep_all_their_bits() -> None:
    top = (1 << 40) - 1
    head, pages = chained(words([(top, frames([top - 1]))]), frames([top - 2]))
    assert head == (top - 2) << 12 | 2
    assert read_back(head, pages) == [(top << 12, (top - 1) << 12)]


@pytest.mark.parametrize("word", [1, 2, 4, 8])
def test_the_reader_of_these_tests_takes_the_first_flag_that_is_set(word: int) -> None:
    memory = {0: word | 0x5008 | 8, 8: 0x6008, 16: 4}
    expected = {
        1: [(0x5000, 0x6000)],
        2: [],
        4: [],
        8: [(0, 0x5000), (0x1000, 0x6000)],
    }[word]
    if word == 2:
        memory[0x5000] = 4
    assert follow(2, memory.__getitem__) == expected
    with pytest.raises(AssertionError, match="has not ended"):
        follow(2, lambda _address: 0, limit=10)
