"""The p2m: as bad as it can be, and back again without a loss."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import HostError
from tightrope.memory import PAGE_SIZE, Extent, Machine, Phys, PseudoPhys
from tightrope.model.p2m import HOLE, P2m, from_runs, scattered

RAM = (Extent(0x10_0000, 0x800_0000), Extent(0x1_0000_0000, 0x1_0400_0000))


def frames(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, np.int64)


@given(st.integers(0, 2**32 - 1), st.integers(2, 4000))
def test_no_two_neighbours_are_adjacent_and_no_frame_is_where_it_says(
    seed: int, count: int
) -> None:
    got = scattered(RAM, count, seed=seed).frames
    assert len(set(got.tolist())) == count
    assert (np.abs(np.diff(got)) != 1).all()
    assert (got != np.arange(count)).all()
    assert all(any(each << 12 in ram for ram in RAM) for each in got.tolist())


def test_frames_come_from_all_of_ram_and_lie_above_4_gib_too() -> None:
    got = scattered(RAM, 10_000, seed=3).frames
    for ram in RAM:
        share = sum(each << 12 in ram for each in got.tolist()) / len(got)
        assert abs(share - ram.size / sum(each.size for each in RAM)) < 0.05


def test_the_same_seed_gives_the_same_p2m_and_another_one_another() -> None:
    one, same, other = (scattered(RAM, 500, seed=seed).frames for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


@given(st.integers(0, 1000), st.lists(st.integers(0, 299), max_size=40))
def test_the_inverse_undoes_it_and_holes_stay_holes(seed: int, gone: list[int]) -> None:
    holes = [Extent.sized(each * PAGE_SIZE, PAGE_SIZE) for each in gone]
    p2m = scattered(RAM, 300, seed=seed, holes=holes)
    own = np.arange(300, dtype=np.int64)
    there = p2m.to_machine(own)
    assert set(own[there == HOLE].tolist()) == set(gone)
    back = p2m.to_pseudo(there[there != HOLE])
    assert (back == own[there != HOLE]).all()
    assert p2m.owned.tolist() == sorted(there[there != HOLE].tolist())


@given(st.integers(-5, 2**44), st.integers(-5, 2**44))
def test_what_is_not_there_is_a_hole_both_ways(pseudo: int, machine: int) -> None:
    p2m = P2m(frames(7, HOLE, 5))
    wanted = {0: 7, 2: 5}.get(pseudo, HOLE)
    assert p2m.to_machine(frames(pseudo)).tolist() == [wanted]
    assert p2m.to_pseudo(frames(machine)).tolist() == [{7: 0, 5: 2}.get(machine, HOLE)]


def test_one_address_is_translated_with_its_offset() -> None:
    p2m = P2m(frames(7, HOLE, 5))
    assert p2m.machine(PseudoPhys(0x2ABC)) == 0x5ABC
    assert p2m.pseudo(Machine(Phys(0x7001))) == 0x1
    assert p2m.pseudo(Machine(Phys(0x1000))) is None
    with pytest.raises(
        HostError, match="pseudo-physical 0x1008 is a hole, and the list lies there"
    ):
        p2m.machine(PseudoPhys(0x1008), "the list")


def test_an_empty_domain_has_nothing() -> None:
    p2m = P2m(frames())
    assert p2m.to_machine(frames(0)).tolist() == [HOLE]
    assert p2m.to_pseudo(frames(0)).tolist() == [HOLE]


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ((4, 9, 4), "machine frame 0x4 belongs to the pseudo-physical frames 0x0 and 0x2"),
        ((4, -2), "frame 0x1 has -2, which is not a frame"),
    ],
)
def test_a_table_that_is_none_is_refused(values: tuple[int, ...], problem: str) -> None:
    with pytest.raises(HostError, match=problem):
        P2m(frames(*values))


def test_more_frames_than_can_lie_apart_are_refused() -> None:
    with pytest.raises(HostError, match="9 frames of dom0 cannot lie apart in 16 machine frames"):
        scattered([Extent.sized(0, 16 * PAGE_SIZE)], 9, seed=0)


HUGE = (*RAM, Extent.sized(1 << 40, 64 << 40))
"""A machine of 64 TiB, whose frames nobody can list."""


@given(st.integers(0, 2**32 - 1), st.integers(1, 4000))
def test_a_domain_of_a_huge_machine_takes_no_more_than_a_small_one(seed: int, count: int) -> None:
    tracemalloc.start()
    try:
        got = scattered(HUGE, count, seed=seed).frames
        assert tracemalloc.get_traced_memory()[1] < 1000 * count + (1 << 16)
    finally:
        tracemalloc.stop()
    assert len(set(got.tolist())) == count
    assert (np.abs(np.diff(got)) != 1).all()
    assert all(any(each << 12 in ram for ram in HUGE) for each in got.tolist())


def run(pseudo: int, machine: int, pages: int) -> tuple[PseudoPhys, Machine, int]:
    return PseudoPhys(pseudo << 12), Machine(Phys(machine << 12)), pages << 12


def test_runs_are_written_where_they_say_and_the_rest_is_a_hole() -> None:
    p2m = from_runs([run(0, 8, 2), run(4, 1, 1)], "made")
    assert p2m.frames.tolist() == [8, 9, HOLE, HOLE, 1]


def test_runs_that_overlap_are_refused_on_either_side() -> None:
    with pytest.raises(HostError, match="pseudo-physical frame 0x1 is given twice"):
        from_runs([run(0, 8, 2), run(1, 20, 1)], "made")
    with pytest.raises(HostError, match="machine frame 0x9 belongs to"):
        from_runs([run(0, 8, 2), run(2, 9, 1)], "made")
