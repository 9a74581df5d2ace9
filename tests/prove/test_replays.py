"""Counterexamples of theorem 2, walked: each falls where the theorem says, and two-tables does not.

Rules: V and P are the numbers that `tightrope prove split` prints.  The old kernel is the example
of the mode; its relocation code is put behind V, its RAM is given a page at P, and the control page
goes there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.makers.designs import DAMM_V4, IN_PLACE, ONE_TABLE, TWO_TABLES
from tests.modes.runs import kernel, request, shared
from tightrope import host as host_room
from tightrope.check import check
from tightrope.deeds.rehearse import build, prepare
from tightrope.errors import PlanError
from tightrope.memory import PAGE_SIZE, Extent, MemoryMap, Phys, Region, RegionKind, Virt
from tightrope.model import Finding, Host, LowMapping, Named, Paging, Plan, Step, Stop
from tightrope.prove.goal import Answer, Limits
from tightrope.prove.run import goals, judge
from tightrope.prove.theorems import splits
from tightrope.prove.theorems.splits import Layout

BEHIND_V = Phys(0x2000)
"""A page of low memory that no plan uses once it is busy."""


def with_ram(memory: MemoryMap, page: Extent) -> MemoryMap:
    """The map with a page of RAM, whatever it had there."""
    regions = [Region(page, RegionKind.RAM)]
    for region in memory:
        for rest in (
            (region.extent.start, min(region.extent.end, page.start)),
            (max(region.extent.start, page.end), region.extent.end),
        ):
            if rest[0] < rest[1]:
                regions.append(Region(Extent(*rest), region.kind))
    return MemoryMap(tuple(sorted(regions)))


def old_kernel(layout: Layout, virt: int) -> Host:
    """The example host, with its relocation code at `virt`."""
    split = next((o for n, o in splits.SPLITS.items() if layout.name.startswith(f"{n},")), None)
    wanted = split if split in host_room.PAGE_OFFSETS else None
    old = host_room.read(host_room.example(layout.mode, wanted), layout.name)
    direct = Extent.sized(old.direct_map.virt, old.direct_map.size)
    cpu = replace(old.cpu, nx=False, physical_bits=52 if layout.mode.long_mode else 36)
    if layout.mode is Paging.I386:
        cpu = replace(old.cpu, nx=False)
    frame = Phys(virt - direct.start) if virt in direct else BEHIND_V
    low = LowMapping(virt=Virt(virt), phys=frame, size=PAGE_SIZE, is_global=False)
    busy = Named(extent=Extent.sized(frame, PAGE_SIZE), what="the relocation code")
    return replace(
        old,
        cpu=cpu,
        efer=old.efer & ~0x800,
        relocation=Virt(virt),
        low_mappings=old.low_mappings if virt in direct else (*old.low_mappings, low),
        busy=(*old.busy, busy),
    )


MOVED = frozenset({"memory-told", "laid-free"})
"""Rules that name the page at P, which became RAM behind the planner's back (`moved`), and no other page."""


def moved(plan: Plan, phys: int) -> Plan:
    """The plan with its control page at P, which was no RAM while everything else was placed."""
    page = Extent.sized(phys, PAGE_SIZE)
    old = plan.control_page
    identity = tuple(each for each in plan.identity if each.extent.start != old)
    memory = with_ram(plan.host.memory, page)
    return replace(
        plan,
        control_page=Phys(phys),
        identity=(*identity, Named(extent=page, what="the control page")),
        host=replace(plan.host, memory=memory),
    )


def without_ram(old: Host, phys: int) -> Host:
    """The host with nothing at P yet."""
    page = Extent.sized(phys, PAGE_SIZE)
    kept = tuple(each for each in with_ram(old.memory, page) if each.extent != page)
    return replace(old, memory=MemoryMap(kept))


def misses(condition: str) -> Iterator[tuple[Layout, int, int]]:
    for layout in splits.layouts():
        found, _ = splits.missed(condition, layout)
        if found:
            yield (layout, *found)


def named(case: object) -> str:
    if isinstance(case, Layout):
        return f"{case.mode.value}-{case.name}"
    return f"{case:#x}" if isinstance(case, int) else str(case)


@pytest.mark.parametrize(("layout", "virt", "phys"), list(misses("damm-v4")), ids=named)
def test_damm_v4_falls_at_step_2_on_every_counterexample(
    layout: Layout, virt: int, phys: int
) -> None:
    old = without_ram(old_kernel(layout, virt), phys)
    plan = moved(prepare(kernel(), old, request()), phys)
    seen: dict[str, tuple[Stop, tuple[Finding, ...]]] = {}
    for design in (DAMM_V4, TWO_TABLES):
        built = build(plan, design=design)
        assert (built.intent.relocation, built.intent.control_page) == (virt, phys)
        run = shared().run(built)
        found = check(built, run)
        findings = tuple(each for each in found if each.rule not in MOVED)
        seen[design] = (run.stop, findings)
        for each in found:
            assert each.rule not in MOVED or f"{phys:#x}" in str(each), each
    stop, findings = seen[DAMM_V4]
    assert stop is Stop.FAULT
    assert (findings[0].rule, findings[0].step) == ("table-a-maps-v", Step.TABLE_A)
    assert seen[TWO_TABLES] == (Stop.ENTRY, ())


@pytest.mark.parametrize(("layout", "virt", "other"), list(misses("one-table")), ids=named)
def test_one_table_cannot_be_filled_on_any_counterexample(
    layout: Layout, virt: int, other: int
) -> None:
    old = old_kernel(layout, virt)
    plan = prepare(kernel(), old, request())
    page = Named(extent=Extent.sized(other, PAGE_SIZE), what="a source")
    plan = replace(plan, identity=(*plan.identity, page))
    with pytest.raises(PlanError, match="one table cannot lead V"):
        build(plan, design=ONE_TABLE)


@pytest.mark.parametrize("mode", Paging)
def test_in_place_loses_the_current_pgd_in_a_crash_at_step_1(mode: Paging) -> None:
    (goal,) = (g for g in goals("designs", mode=mode, design="in-place"))
    result = judge(goal, Limits()).result
    assert result.answer is Answer.HOLDS
    assert result.detail.endswith("step 1")
    region = Extent.sized(0x3300_0000, 0x1000_0000)
    old = host_room.read(host_room.example(mode, None, region), mode.value)
    built = build(prepare(kernel(), old, replace(request(), crash=True)), design=IN_PLACE)
    findings = check(built, shared().run(built))
    assert ("current-pgd-kept", Step.CALL) in {(each.rule, each.step) for each in findings}
