"""Theorem 1: what is proved, that it can fail, and that its tokens allow nothing but equality."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.x86.modes import MODES
from tightrope.handover.designs import map_twice, write_chains
from tightrope.model import Paging
from tightrope.prove.goal import Answer, Goal, Limits
from tightrope.prove.run import goals, judge
from tightrope.prove.theorems import tables
from tightrope.prove.theorems.enumerate import Wrong, counterexample, every_class, examples, fails
from tightrope.prove.theorems.modes import GEOMETRIES
from tightrope.prove.theorems.opaque import Address, Entry, Frame, Index, TokenTables, others, pairs
from tightrope.x86.paging import EXECUTE_DISABLE, Format, Rights, TableMemory, leaf_bits, map_page

LIMITS = Limits(seconds=600)
ALL = pytest.mark.parametrize("mode", Paging)


def named(goal: Goal) -> str:
    return f"{goal.name}-{goal.mode}"


@pytest.mark.parametrize("goal", goals("tables"), ids=named)
def test_every_goal_comes_out_as_the_theorem_says(goal: Goal) -> None:
    judged = judge(goal, LIMITS)
    assert judged.as_stated, judged.result
    assert (judged.result.counterexample is not None) == (goal.expected is Answer.FAILS)


@ALL
def test_the_classes_are_all_ways_in_which_three_addresses_can_coincide(mode: Paging) -> None:
    geometry = GEOMETRIES[mode]
    classes = {
        tuple((v == p, v == x, p == x) for v, p, x in zip(virt, phys, other, strict=True))
        for virt, phys in pairs(geometry)
        for other in others(virt, phys)
    }
    assert len(classes) == 5 ** len(geometry.places)


@ALL
def test_the_geometry_is_the_one_that_the_tests_have(mode: Paging) -> None:
    mine, other = GEOMETRIES[mode], MODES[mode.value]
    assert (mine.places, mine.entry_size, mine.linear_bits) == (
        other.places,
        other.entry_size,
        other.linear_bits,
    )


# -------------------------------------------------------------------------------- it can fail


def nx(
    tables_: TableMemory, fmt: Format, root: int, virt: int, phys: int, new: Callable[[], int]
) -> None:
    """Right but for the rights."""
    for address in (virt, phys):
        map_page(tables_, fmt, root, address, phys, Rights(executable=False), new)


def one_more(
    tables_: TableMemory, fmt: Format, root: int, virt: int, phys: int, new: Callable[[], int]
) -> None:
    """Right, and maps everything a second time under the last slot of the last table."""
    map_twice(tables_, fmt, root, virt, phys, new)
    table = root
    for level in range(fmt.leaf):
        table = tables_.entry(table, fmt.index(phys, level)) & fmt.address.mask
    bits = leaf_bits(fmt, fmt.leaf, Rights())
    tables_.set_entry(table, fmt.index(virt, fmt.leaf), phys | bits)


@ALL
@pytest.mark.parametrize("filler", [write_chains, nx, one_more])
def test_a_wrong_filler_is_refuted_twice_with_an_example_that_fails(
    mode: Paging, filler: Any
) -> None:
    if filler is nx and mode is Paging.I386:
        return  # there is no NX bit to be wrong
    enumerated = tables.by_enumeration(filler, mode, LIMITS)
    by_z3 = tables.by_z3(filler, mode, LIMITS)
    for result in (enumerated, by_z3):
        assert result.answer is Answer.FAILS
        assert result.counterexample
        virt, phys = (int(result.counterexample[name], 16) for name in "VP")
        assert fails(filler, mode, virt, phys)
        assert not fails(map_twice, mode, virt, phys)


@ALL
def test_examples_belong_to_their_class(mode: Paging) -> None:
    geometry = GEOMETRIES[mode]
    fmt = geometry.format
    for virt, phys in pairs(geometry):
        for v, p in examples(geometry, virt, phys):
            assert p < 1 << geometry.identity_bits
            shared = tuple(fmt.index(v, n) == fmt.index(p, n) for n in range(len(virt)))
            assert shared == tuple(map(operator.eq, virt, phys))
            assert fails(map_twice, mode, v, p) is None


def test_a_filler_that_asks_more_than_equality_is_not_taken_for_proved() -> None:
    def by_order(
        tables_: Any, fmt: Format, root: int, virt: int, phys: int, new: Callable[[], int]
    ) -> None:
        first, second = sorted((virt, phys))
        map_twice(tables_, fmt, root, first, second, new)

    with pytest.raises(Wrong, match="TypeError"):
        list(every_class(by_order, Paging.X86_64))


# ------------------------------------------------------------------------------------- tokens


def token() -> Any:
    geometry = GEOMETRIES[Paging.X86_64]
    return Address("V", geometry, ("a", "b", "c", "d"), 52)


def test_an_index_allows_nothing_but_equality() -> None:
    virt = token()
    index: Any = virt >> 39 & 0x1FF
    assert index == Index(0, "a")
    assert index != Index(0, "b")
    for wrong in (
        lambda: index == 3,
        lambda: index == Index(1, "a"),
        lambda: index < index,
        lambda: index + 1,
        lambda: bool(index),
        lambda: int(index),
        lambda: [0, 1][index],
        lambda: virt >> 39 & 0xFF,
        lambda: virt >> 38 & 0x1FF,
        lambda: virt & 0xF000,
        lambda: virt < 1 << 32,
        lambda: virt + 8,
        lambda: (virt >> 39) == 0,
    ):
        with pytest.raises(TypeError):
            wrong()


def test_an_entry_is_read_through_flags_or_the_whole_address_and_not_otherwise() -> None:
    frame = Frame("f", 52)
    entry: Any = frame | 0x63
    assert entry & 1 == 1
    assert entry & EXECUTE_DISABLE == 0
    assert entry & 0x000F_FFFF_FFFF_F000 is frame
    for wrong in (
        lambda: entry & 0x1000,
        lambda: entry & 0x000F_FFFF_FFFF_F001,
        lambda: entry & 0x000F_FFFF_FFE0_0000,
        lambda: entry | 1,
        lambda: entry == 0,
        lambda: bool(entry),
        lambda: frame | 0x1000,
        lambda: frame + 8,
        lambda: frame & 0xFFFF_F000,
        lambda: frame == 0,
        lambda: token() == frame,
    ):
        with pytest.raises(TypeError):
            wrong()


def test_only_frames_of_the_store_are_tables() -> None:
    store: Any = TokenTables(GEOMETRIES[Paging.X86_64], 52)
    index: Any = token() >> 39 & 0x1FF
    assert store.entry(store.root, index) == 0
    wrongs: list[Callable[[], object]] = [
        lambda: store.entry(Frame("other", 52), index),
        lambda: store.entry(store.root, 3),
        lambda: store.set_entry(store.root, index, 0x63),
        lambda: store.set_entry(Frame("other", 52), index, Entry(store.root, 0x63)),
    ]
    for wrong in wrongs:
        with pytest.raises(TypeError):
            wrong()


@given(data=st.data(), mode=st.sampled_from(Paging))
def test_numbers_agree_with_the_proof(data: st.DataObject, mode: Paging) -> None:
    """The enumeration says that every V and P are fine: here are some."""
    geometry = GEOMETRIES[mode]
    phys = data.draw(st.integers(0, (1 << geometry.identity_bits - 12) - 1)) << 12
    mask = data.draw(st.integers(0, (1 << geometry.linear_bits) - 1)) & ~0xFFF
    virt = phys ^ mask
    if geometry.linear_bits > 32 and virt >> geometry.linear_bits - 1:
        virt |= (1 << 64) - (1 << geometry.linear_bits)
    assert fails(map_twice, mode, virt, phys) is None


@ALL
def test_a_failing_class_is_made_concrete(mode: Paging) -> None:
    with pytest.raises(Wrong) as caught:
        list(every_class(write_chains, mode))
    found = counterexample(write_chains, mode, caught.value)
    assert found is not None
    assert found["problem"].startswith("V")
