"""Theorem 2: the conditions, on tokens, on numbers, and on the memory maps that kernels have."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.handover.designs import write_chains
from tightrope.host import PAGE_OFFSETS
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Paging
from tightrope.prove.goal import Answer, Goal, Limits
from tightrope.prove.run import goals, judge
from tightrope.prove.theorems import designs, splits
from tightrope.prove.theorems.enumerate import fails
from tightrope.prove.theorems.modes import GEOMETRIES

LIMITS = Limits(seconds=600)
ALL = pytest.mark.parametrize("mode", Paging)


def named(goal: Goal) -> str:
    return f"{goal.name}-{goal.mode}"


@pytest.mark.parametrize("goal", goals("designs"), ids=named)
def test_every_condition_comes_out_as_the_theorem_says(goal: Goal) -> None:
    judged = judge(goal, LIMITS)
    assert judged.as_stated, judged.result
    assert (judged.result.counterexample is not None) == (goal.expected is Answer.FAILS)


def test_every_layout_comes_out_as_the_theorem_says() -> None:
    for goal in goals("split"):
        judged = judge(goal, LIMITS)
        assert judged.as_stated, (goal.name, goal.mode, judged.result)


def indices(mode: Paging, address: int) -> list[int]:
    fmt = GEOMETRIES[mode].format
    return [fmt.index(address, level) for level in range(len(fmt.levels))]


@given(data=st.data(), mode=st.sampled_from(Paging))
def test_on_numbers_damm_v4_is_wrong_exactly_where_the_condition_says(
    data: st.DataObject, mode: Paging
) -> None:
    geometry = GEOMETRIES[mode]
    phys = data.draw(st.integers(0, (1 << geometry.identity_bits - 12) - 1)) << 12
    virt = phys
    for low, width in geometry.places:
        if data.draw(st.booleans()):
            field = ((1 << width) - 1) << low
            virt = virt & ~field | data.draw(st.integers(0, (1 << width) - 1)) << low
    virt &= (1 << geometry.linear_bits) - 1
    if geometry.linear_bits > 32 and virt >> geometry.linear_bits - 1:
        virt |= (1 << 64) - (1 << geometry.linear_bits)
    v, p = indices(mode, virt), indices(mode, phys)
    problem = fails(write_chains, mode, virt, phys)
    assert (problem is None) == (v[0] != p[0] or v == p)
    assert problem is None or problem.startswith("V ")


@ALL
def test_the_example_against_one_table_is_a_page_that_would_lead_to_two_places(
    mode: Paging,
) -> None:
    found = designs.one_table_always(mode, LIMITS).counterexample
    assert found is not None
    assert found["V"] == found["X"] != found["P"]


def test_a_condition_that_is_wrong_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the filler that ships, damm-v4's condition is not exact: it is right everywhere."""
    from tightrope.handover.designs import map_twice

    monkeypatch.setattr(designs, "write_chains", map_twice)
    found = designs.damm_v4_condition(Paging.PAE, LIMITS)
    assert found.answer is Answer.FAILS
    assert designs.damm_v4_always(Paging.PAE, LIMITS).answer is Answer.HOLDS


def test_in_place_that_would_change_nothing_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(designs, "_pgd_after", lambda _mode, _phys, before: before)
    for mode in Paging:
        assert designs.in_place_overwrites(mode, LIMITS).answer is Answer.FAILS


# -------------------------------------------------------------------------------------- splits


def test_the_splits_are_those_that_a_kernel_offers() -> None:
    assert set(PAGE_OFFSETS) == set(splits.SPLITS.values()) - {splits.SPLITS["4G/4G"]}


def misses(condition: str, layout: splits.Layout, virt: int, other: int) -> bool:
    """The condition on numbers, read from its words."""
    assert virt in layout.virt
    if condition == "one-table":
        return virt < layout.reach
    if condition == "damm-v4":
        assert other in layout.phys
        return fails(write_chains, layout.mode, virt, other) is not None
    assert other < layout.reach
    return indices(layout.mode, virt)[0] == indices(layout.mode, other)[0]


@pytest.mark.parametrize("condition", splits.CONDITIONS)
def test_every_example_misses_its_condition_on_numbers(condition: str) -> None:
    for layout in splits.layouts():
        found, _ = splits.missed(condition, layout)
        assert found is None or misses(condition, layout, *found)


@pytest.mark.parametrize("condition", splits.CONDITIONS)
@given(data=st.data())
def test_a_condition_that_is_always_met_is_met_by_any_v_and_p(
    condition: str, data: st.DataObject
) -> None:
    layout = data.draw(st.sampled_from(list(splits.layouts())))
    if splits.missed(condition, layout)[0] is None:

        def page(extent: Extent) -> int:
            return data.draw(st.integers(extent.start >> 12, (extent.end >> 12) - 1)) << 12

        other = page(layout.phys if condition == "damm-v4" else Extent(0, layout.reach))
        assert not misses(condition, layout, page(layout.virt), other)


@given(st.lists(st.integers(0, 40), min_size=4, max_size=4))
def test_small_layouts_agree_with_trying_every_pair(ends: list[int]) -> None:
    """i386, pages around the border of two 4 MiB slots."""
    base = (4 << 20) - 20 * PAGE_SIZE
    a, b, c, d = (base + PAGE_SIZE * end for end in ends)
    virt, phys = Extent(min(a, b), max(a, b) + PAGE_SIZE), Extent(min(c, d), max(c, d) + PAGE_SIZE)
    layout = splits.Layout(
        name="small", mode=Paging.I386, says="", virt=virt, phys=phys, reach=phys.end
    )
    pages = product(range(*_ends(virt), PAGE_SIZE), range(*_ends(phys), PAGE_SIZE))
    wrong = any(v != p and v >> 22 == p >> 22 for v, p in pages)
    assert (splits.missed("damm-v4", layout)[0] is not None) == wrong


def _ends(extent: Extent) -> tuple[int, int]:
    return extent.start, extent.end
