"""image.parts: pieces that may share pages become parts that do not, and no byte changes."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import ImageError
from tightrope.image.parts import FOUR_GIB, Piece, in_order, parts_of

PAGE = 4096


def piece(start: int, data: bytes, end: int | None = None) -> Piece:
    return Piece(
        start=start,
        end=start + len(data) if end is None else end,
        data=memoryview(data),
        field="p_paddr",
        offset=start % 977,
    )


@st.composite
def pieces(draw: st.DrawFn) -> list[Piece]:
    """Up to six pieces that do not overlap, from bytes to pages long, most of them close together."""
    found, at = [], draw(st.integers(0, 3 * PAGE))
    for number in range(draw(st.integers(1, 6))):
        size = draw(st.one_of(st.integers(1, 40), st.integers(1, 3 * PAGE)))
        used = draw(st.integers(0, size))
        found.append(piece(at, bytes([number + 1]) * used, at + size))
        at += size + draw(st.one_of(st.just(0), st.integers(0, 40), st.integers(0, 3 * PAGE)))
    return found


@given(pieces().flatmap(st.permutations))
def test_parts_share_no_page_and_have_the_bytes_of_the_pieces(shuffled: list[Piece]) -> None:
    wanted = sorted(shuffled, key=lambda each: each.start)
    ordered = in_order(shuffled, limit=FOUR_GIB, source="made")
    base = wanted[0].start
    found: dict[int, int] = {}
    pages: list[tuple[int, int]] = []
    for part in parts_of(ordered):
        start = base + part.offset
        pages.append((start // PAGE, (start + part.size - 1) // PAGE))
        found |= dict(enumerate(bytes(part.data).ljust(part.size, b"\0"), start))
    assert all(last < first for (_, last), (first, _) in pairwise(pages))
    expected: dict[int, int] = {}
    for each in wanted:
        size = each.end - each.start
        expected |= dict(enumerate(bytes(each.data).ljust(size, b"\0"), each.start))
    # Where two pieces share a page, zeros may lie between them.
    assert {at: byte for at, byte in found.items() if at in expected} == expected
    assert not any(byte for at, byte in found.items() if at not in expected)


def test_pieces_that_share_no_page_are_not_copied() -> None:
    data = memoryview(bytes(range(256)) * 64)
    ordered = in_order(
        [
            Piece(start=0, end=PAGE, data=data[:PAGE], field="", offset=0),
            Piece(start=PAGE, end=3 * PAGE, data=data[PAGE : 2 * PAGE], field="", offset=0),
        ],
        limit=FOUR_GIB,
        source="made",
    )
    assert [part.data.obj is data.obj for part in parts_of(ordered)] == [True, True]
    assert [(part.offset, part.size) for part in parts_of(ordered)] == [(0, PAGE), (PAGE, 2 * PAGE)]


def test_a_shared_page_is_a_part_of_its_own() -> None:
    ordered = in_order(
        [piece(PAGE, b"a" * (PAGE + 100)), piece(2 * PAGE + 200, b"b" * (2 * PAGE))],
        limit=FOUR_GIB,
        source="made",
    )
    found = [(part.offset, part.size, bytes(part.data)) for part in parts_of(ordered)]
    shared = b"a" * 100 + bytes(100) + b"b" * (PAGE - 200)
    assert found == [
        (0, PAGE, b"a" * PAGE),
        (PAGE, PAGE, shared),
        (2 * PAGE, PAGE + 200, b"b" * (PAGE + 200)),
    ]


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        pytest.param([], "there is nothing to load", id="none"),
        pytest.param([piece(5, b"")], "there is nothing to load", id="empty"),
        pytest.param([piece(0, b"abc"), piece(2, b"x")], r"overlaps \[0x0, 0x3\)", id="overlap"),
        pytest.param([piece(2, b"x"), piece(0, b"", 3)], "overlaps", id="zeros overlap"),
        pytest.param(
            [piece(FOUR_GIB - 1, b"xy")], r"more than can be loaded to \(limit", id="too high"
        ),
    ],
)
def test_pieces_that_cannot_be_loaded_together_are_refused(wanted: list[Piece], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        in_order(wanted, limit=FOUR_GIB, source="made")


def test_the_last_byte_below_the_limit_can_be_used() -> None:
    (only,) = in_order([piece(FOUR_GIB - 2, b"xy")], limit=FOUR_GIB, source="made")
    assert only.end == FOUR_GIB
