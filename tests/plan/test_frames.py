"""plan.frames: a pool gives every free frame once, in either order, and then says that it is empty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.hosts import PAGE
from tightrope.errors import PlanError
from tightrope.memory import Extent
from tightrope.plan.frames import FramePool

SEEDS = st.none() | st.integers(0, 1 << 80)


@st.composite
def extents(draw: st.DrawFn) -> list[Extent]:
    """Extents of whole pages, in any order; they may touch and overlap."""
    pairs = draw(st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 1200)), max_size=6))
    return [Extent.sized(first * PAGE, count * PAGE) for first, count in pairs]


def frames_of(pieces: list[Extent]) -> set[int]:
    return {frame for each in pieces for frame in each.pages}


@given(pieces=extents(), seed=SEEDS, counts=st.lists(st.integers(0, 400), max_size=8))
def test_no_frame_is_given_twice_and_none_that_is_not_free(
    pieces: list[Extent], seed: int | None, counts: list[int]
) -> None:
    free = frames_of(pieces)
    pool = FramePool(pieces, scatter=seed)
    given_out: list[int] = []
    for count in counts:
        if count > len(free) - len(given_out):
            with pytest.raises(PlanError):
                pool.take(count, "a test")
            continue
        got = pool.take(count, "a test")
        assert got.dtype == np.int64
        assert len(got) == count
        given_out += got.tolist()
    assert len(given_out) == len(set(given_out))
    assert set(given_out) <= free


@given(pieces=extents(), seed=SEEDS, part=st.integers(0, 100))
def test_a_pool_can_be_emptied_to_the_last_frame(
    pieces: list[Extent], seed: int | None, part: int
) -> None:
    free = frames_of(pieces)
    pool = FramePool(pieces, scatter=seed)
    first = pool.take(len(free) * part // 100, "the first")
    rest = pool.take(len(free) - len(first), "the rest")
    assert {*first.tolist(), *rest.tolist()} == free
    assert len(pool.take(0, "nothing")) == 0
    with pytest.raises(PlanError, match=r"one more needs 1 free pages, and .* give 0"):
        pool.take(1, "one more")


def test_a_refusal_takes_nothing() -> None:
    pool = FramePool([Extent(0, 3 * PAGE)])
    with pytest.raises(PlanError) as caught:
        pool.take(4, "the copy")
    assert (caught.value.field, str(caught.value)) == (
        "memory",
        "host: memory: the copy needs 4 free pages, and the old kernel can give 3",
    )
    assert pool.take(3, "the copy").tolist() == [0, 1, 2]


def test_frames_come_in_order_from_the_largest_extent_from_a_2_mib_boundary_on() -> None:
    pool = FramePool([Extent(3 * PAGE, 8 * PAGE), Extent(500 * PAGE, 1600 * PAGE)])
    assert pool.take(3, "a").tolist() == [512, 513, 514]
    assert pool.take(1085, "b").tolist() == list(range(515, 1600))
    # Then what was left before a boundary, the largest extent's first.
    assert pool.take(17, "c").tolist() == [*range(500, 512), *range(3, 8)]


@given(seed=st.integers(0, 1 << 64))
def test_the_same_seed_gives_the_same_frames(seed: int) -> None:
    pieces = [Extent(0, 5000 * PAGE), Extent(9000 * PAGE, 9100 * PAGE)]
    one, two = FramePool(pieces, scatter=seed), FramePool(pieces, scatter=seed)
    for count in (10, 300, 4000):
        assert one.take(count, "a").tolist() == two.take(count, "a").tolist()


@pytest.mark.parametrize("size", [400, 100_000], ids=["nearly-full", "nearly-empty"])
def test_scattered_frames_lie_all_over_and_not_in_order(size: int) -> None:
    got = FramePool([Extent(0, size * PAGE)], scatter=7).take(200, "a").tolist()
    assert got != sorted(got)
    # Of 200 frames without preference, each quarter of memory holds about fifty.
    for quarter in range(4):
        held = sum(quarter * size // 4 <= frame < (quarter + 1) * size // 4 for frame in got)
        assert 20 < held < 90


def test_different_seeds_give_different_frames() -> None:
    taken = {
        tuple(FramePool([Extent(0, 4000 * PAGE)], scatter=seed).take(20, "a").tolist())
        for seed in range(20)
    }
    assert len(taken) == 20


@pytest.mark.parametrize("seed", [10457, 26845, 36396, 38110, 41462])
def test_a_draw_that_has_to_be_repeated_gives_no_frame_twice(seed: int) -> None:
    # Seeds whose first four draws of nine are one frame, and whose next draw is that one again.
    got = FramePool([Extent(0, 9 * PAGE)], scatter=seed).take(2, "a").tolist()
    assert len(set(got)) == 2
