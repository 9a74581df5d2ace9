"""The list is read as Linux reads it, and the order of its copies is judged exactly.

follow   against a reader in plain Python, one word at a time
order    against the copies themselves, done one after the other on pages with names
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tightrope.check.page_list import Copies, follow, order

PAGE = 4096
WORDS = 512


def page_of(*words: int) -> bytes:
    """A page that begins with some words and is zero behind them."""
    return b"".join(word.to_bytes(8, "little") for word in words).ljust(PAGE, b"\0")


def read_by_word(
    head: int, pages: Mapping[int, bytes]
) -> tuple[list[tuple[int, int]], list[int], bool]:
    """(destination, source) frames, the pages visited, and whether IND_DONE was met.

    Flags are asked in the order of relocate_kernel_64.S: 1, 2, 4, 8.  Reading ends where the list
    leaves its pages or comes back to one.
    """
    copies: list[tuple[int, int]] = []
    visited: list[int] = []
    rest = [head]
    to = 0
    while rest:
        word = rest.pop(0)
        page, low = word - word % PAGE, word % 16
        if low & 1:
            to = page // PAGE
        elif low & 2:
            if page in visited or page not in pages:
                return copies, visited, False
            visited.append(page)
            raw = pages[page]
            rest = [int.from_bytes(raw[at : at + 8], "little") for at in range(0, PAGE, 8)]
        elif low & 4:
            return copies, visited, True
        elif low & 8:
            copies.append((to, page // PAGE))
            to += 1
    return copies, visited, False


def pairs(copies: Copies) -> list[tuple[int, int]]:
    return list(zip(copies.destinations.tolist(), copies.sources.tolist(), strict=True))


FRAMES = st.integers(0, 7) | st.integers(0, (1 << 40) - 1)
WORD = st.builds(
    lambda frame, low: frame * PAGE | low,
    FRAMES,
    st.sampled_from([1, 8, 8, 8, 8, 0, 0x10, 0xFF0]) | st.integers(0, PAGE - 1),
)
LINK = st.builds(lambda frame: frame * PAGE | 2, st.integers(0, 7))


@st.composite
def lists(draw: st.DrawFn) -> tuple[int, dict[int, bytes]]:
    """A head and up to eight pages: chains, loops, links into nothing, words of every kind."""
    pages = {}
    for frame in draw(st.lists(st.integers(0, 7), unique=True, max_size=6)):
        words = draw(st.lists(WORD, max_size=12))
        words += draw(st.sampled_from([[], [4]]) | st.lists(LINK, min_size=1, max_size=1))
        where = draw(st.sampled_from([0, WORDS - len(words)]))
        pages[frame * PAGE] = page_of(*[0] * where, *words)
    return draw(LINK | LINK | WORD), pages


@given(lists())
def test_a_list_is_followed_as_one_word_at_a_time_would(case: tuple[int, dict[int, bytes]]) -> None:
    head, pages = case
    copies, visited, done = read_by_word(head, pages)
    event(f"done {done}, pages {len(visited)}")
    got = follow(head, pages)
    assert pairs(got) == copies
    assert list(got.pages) == visited
    assert (got.problem is None) is done


@pytest.mark.parametrize(
    ("words", "copies"),
    [
        ([0x5000 | 1, 0x9000 | 8, 0xA000 | 8, 4], [(5, 9), (6, 10)]),
        ([0x5000 | 1, 0x9000 | 8, 0x7000 | 1, 0xA000 | 8, 4], [(5, 9), (7, 10)]),
        # A source before any destination goes to frame 0 on, as the registers of the code have it.
        ([0x9000 | 8, 0xA000 | 8, 4], [(0, 9), (1, 10)]),
        # A word without a flag is skipped; it moves nothing.
        ([0x5000 | 1, 0x9000, 0x9000 | 8, 0x1230, 0xA000 | 8, 4], [(5, 9), (6, 10)]),
        # Several flags: the first of 1, 2, 4, 8 decides.
        ([0x5000 | 0xF, 0x9000 | 8, 0xA000 | 0xC], [(5, 9)]),
        ([0x5000 | 9, 0x9000 | 8, 0x6000 | 5, 0xA000 | 8, 4], [(5, 9), (6, 10)]),
        # Nothing behind IND_DONE counts.
        ([0x5000 | 1, 4, 0x9000 | 8], []),
    ],
)
def test_the_flags_are_asked_in_the_order_1_2_4_8(
    words: list[int], copies: list[tuple[int, int]]
) -> None:
    got = follow(0x3002, {0x3000: page_of(*words)})
    assert pairs(got) == copies
    assert got.problem is None
    assert got.pages == (0x3000,)


def test_a_head_that_is_done_asks_for_nothing() -> None:
    got = follow(4, {})
    assert (pairs(got), got.pages, got.problem) == ([], (), None)


@pytest.mark.parametrize(
    ("pages", "problem"),
    [
        ({}, "no page of the list lies at 0x3000"),
        ({0x3000: page_of(0x4000 | 2)}, "no page of the list lies at 0x4000"),
        ({0x3000: page_of(0x3000 | 2)}, "the list comes back to its page 0x3000"),
        (
            {0x3000: page_of(0x4000 | 2), 0x4000: page_of(0x3000 | 2)},
            "the list comes back to its page 0x3000",
        ),
        (
            {0x3000: page_of(0x5000 | 1, 0x9000 | 8)},
            "a page of the list has neither IND_INDIRECTION nor IND_DONE",
        ),
    ],
)
def test_a_list_without_an_end_says_why(pages: dict[int, bytes], problem: str) -> None:
    assert follow(0x3002, pages).problem == problem


def test_what_was_asked_before_the_list_broke_is_kept() -> None:
    got = follow(0x3002, {0x3000: page_of(0x5000 | 1, 0x9000 | 8, 0x4000 | 2)})
    assert pairs(got) == [(5, 9)]
    assert got.problem is not None


# --------------------------------------------------------------------------------------- the order


def does_its_job(copies: list[tuple[int, int]]) -> bool:
    """Every destination ends with what its source held before the first copy."""
    memory = {frame: f"first {frame}" for pair in copies for frame in pair}
    for to, source in copies:
        memory[to] = memory[source]
    return all(memory[to] == f"first {source}" for to, source in copies)


def judged(copies: list[tuple[int, int]]) -> tuple[list[int], list[int], list[int]]:
    columns = np.array(copies, np.int64).reshape(-1, 2)
    got = order(columns[:, 0].copy(), columns[:, 1].copy())
    return got.twice.tolist(), got.late.tolist(), got.strict.tolist()


SMALL = st.integers(0, 9)


@given(st.lists(st.tuples(SMALL, SMALL), max_size=10, unique_by=lambda pair: pair[0]))
def test_late_sources_are_necessary_and_sufficient_for_a_wrong_result(
    copies: list[tuple[int, int]],
) -> None:
    twice, late, _ = judged(copies)
    assert twice == []
    event(f"holds {not late}")
    assert does_its_job(copies) is (not late)


@given(st.lists(st.tuples(SMALL, SMALL), max_size=10))
def test_every_index_of_an_order_is_what_its_name_says(copies: list[tuple[int, int]]) -> None:
    twice, late, strict = judged(copies)
    targets = [to for to, _ in copies]
    assert twice == [n for n, to in enumerate(targets) if to in targets[:n]]
    assert strict == [
        n for n, (to, source) in enumerate(copies) if source != to and source in targets
    ]
    # The first writer of a frame is the one that counts: where there are two, `twice` tells it.
    first = {to: n for n, to in reversed(list(enumerate(targets)))}
    assert late == [n for n in strict if first[copies[n][1]] < n and not in_place(copies, n, first)]


def in_place(copies: list[tuple[int, int]], number: int, first: dict[int, int]) -> bool:
    """The page that a copy reads was only ever 'copied' onto itself before."""
    to, source = copies[first[copies[number][1]]]
    return to == source


@pytest.mark.parametrize(
    ("copies", "twice", "late", "strict"),
    [
        ([(1, 5), (2, 6)], [], [], []),
        ([(1, 1), (2, 2)], [], [], []),
        ([(1, 5), (2, 1)], [], [1], [1]),
        ([(2, 1), (1, 5)], [], [], [0]),
        ([(1, 2), (2, 1)], [], [1], [0, 1]),
        ([(1, 1), (2, 1)], [], [], [1]),
        ([(1, 5), (1, 6)], [1], [], []),
        ([], [], [], []),
    ],
)
def test_small_orders_are_judged_right(
    copies: list[tuple[int, int]], twice: list[int], late: list[int], strict: list[int]
) -> None:
    assert judged(copies) == (twice, late, strict)


# ---------------------------------------------------------------------------------------- in bulk


def long_list(sources: NDArray[np.int64], first: int) -> dict[int, bytes]:
    """One destination, then sources, chained through as many pages as it takes, from frame 1 on."""
    flat = np.concatenate([[first << 12 | 1], sources << 12 | 8, [4]]).astype(np.uint64)
    count = -(-len(flat) // (WORDS - 1))
    rows = np.zeros((count, WORDS), np.uint64)
    rows[:, :-1] = np.resize(np.append(flat, 0), count * (WORDS - 1)).reshape(count, -1)
    rows[:-1, -1] = (np.arange(2, count + 1, dtype=np.uint64) << np.uint64(12)) | np.uint64(2)
    return {(number + 1) * PAGE: row.tobytes() for number, row in enumerate(rows)}


def test_a_million_pages_are_followed_and_judged() -> None:
    """Four GiB: possible within the time of a test because nothing loops over pages."""
    count, first = 1_000_000, 1 << 24
    sources = np.random.default_rng(7).permutation(count).astype(np.int64) + (1 << 28)
    got = follow(0x1002, long_list(sources, first))
    assert got.problem is None
    assert np.array_equal(got.sources, sources)
    assert np.array_equal(got.destinations, np.arange(first, first + count))
    found = order(got.destinations, got.sources)
    assert (len(found.twice), len(found.late), len(found.strict)) == (0, 0, 0)
    wrong = got.sources.copy()
    wrong[-1] = got.destinations[0]
    found = order(got.destinations, wrong)
    assert (found.late.tolist(), found.strict.tolist()) == ([count - 1], [count - 1])
