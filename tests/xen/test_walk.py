"""The jump through a hypervisor, walked: it holds each way, with dom0's pages or the hypervisor's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.rehearse.runs import shipped_kernel
from tests.stand_ins.played import Fake
from tests.xen.runs import (
    KINDS,
    NEW_WAYS,
    V1_WAYS,
    WAYS,
    Way,
    document,
    handed_over,
    hypervisor,
    identifier,
    loaded_by_v2,
    request,
    walk,
    walked,
)
from tightrope import host as host_room
from tightrope.deeds.until import Spoken
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import (
    ZERO_FRAME,
    Outcome,
    PageList,
    Paging,
    Protocol,
    Step,
    Verdict,
    XenCrash,
    XenInterface,
    XenV2,
)
from tightrope.plan import prepare


def holds(verdict: Verdict) -> None:
    assert [(each.rule, each.message) for each in verdict.findings] == []
    assert verdict.outcome is Outcome.HOLDS


@pytest.mark.parametrize("way", WAYS, ids=identifier)
@pytest.mark.parametrize("kind", KINDS, ids=identifier)
def test_it_holds_each_way(way: Way, kind: XenCrash | None) -> None:
    verdict = walk(way, kind)
    holds(verdict)
    assert {rule for rule in verdict.rules if rule.startswith("xen-")}


@pytest.mark.parametrize("way", WAYS, ids=identifier)
@pytest.mark.parametrize("kind", XenCrash, ids=identifier)
def test_low_memory_is_saved_where_that_is_asked_for(way: Way, kind: XenCrash) -> None:
    verdict = walk(way, kind, backup=True)
    holds(verdict)
    [saved] = verdict.handover.intent.backup
    assert saved.source.start == 0


@pytest.mark.parametrize("way", [WAYS[2], WAYS[3]], ids=identifier)
@pytest.mark.parametrize("kind", KINDS, ids=identifier)
def test_the_new_kernel_says_that_it_stands(way: Way, kind: XenCrash | None) -> None:
    verdict = walk(way, kind, until=Spoken())
    holds(verdict)
    assert verdict.console is not None
    assert any("the new kernel stands" in line for line in verdict.console.lines)


@pytest.mark.parametrize("way", WAYS, ids=identifier)
@pytest.mark.parametrize("kind", KINDS, ids=identifier)
def test_dom0s_tables_and_the_hypervisors_are_whole_afterwards(
    way: Way, kind: XenCrash | None
) -> None:
    """Both trees, byte for byte, where the new kernel was not put on top of them."""
    verdict = walk(way, kind)
    world, plan = verdict.handover.world, verdict.handover.plan
    whose = {p.what for p in world.pieces if p.phys in world.tables}
    assert whose == {"dom0's page tables", "the old kernel's page tables"}
    compared = 0
    for frame, page in world.tables.items():
        if frame >> 12 not in plan.destinations:
            assert verdict.run.memory.read(Extent.sized(frame, PAGE_SIZE)) == page
            compared += 1
    assert compared > 0.9 * len(world.tables)
    if kind:
        assert compared == len(world.tables)


@pytest.mark.parametrize("way", V1_WAYS, ids=identifier)
def test_v1_takes_every_page_from_dom0_and_none_is_where_dom0_thinks(way: Way) -> None:
    plan = walk(way).handover.plan
    load = handed_over(plan)
    p2m = load.xen.dom0.p2m
    own = [plan.sources, np.array([*plan.list_pages, *(p.machine for p in load.pages)]) >> 12]
    for frames in own:
        assert np.isin(frames, p2m.owned).all()
        assert (p2m.to_pseudo(frames) != frames).all()
    assert not np.isin(plan.sources, plan.destinations).any()
    assert all(page.pseudo is not None for page in load.pages)
    if not walked(way).long_mode:
        assert max(plan.sources) < 1 << 20  # a word of the list has 32 bits
    if way[0] is not Paging.I386:
        assert max(p2m.owned) > 1 << 20


@pytest.mark.parametrize("way", NEW_WAYS, ids=identifier)
def test_v2_takes_no_page_from_dom0_and_clears_what_has_no_data(way: Way) -> None:
    verdict = walk(way)
    plan = verdict.handover.plan
    sources = plan.sources[plan.sources != ZERO_FRAME]
    assert not np.isin(sources, loaded_by_v2(plan).xen.dom0.p2m.owned).any()
    cleared = plan.destinations[plan.sources == ZERO_FRAME]
    pages = sum(-(-len(each.data) // PAGE_SIZE) for each in plan.segments)
    assert len(cleared) == len(plan.destinations) - pages > 0
    words = np.concatenate(list(plan.list_pages.values()))
    assert (words == 0x10).sum() == len(cleared)
    rows = verdict.run.copies[verdict.run.copies[:, 2] == -1]
    assert sorted((rows[:, 1] >> 12).tolist()) == sorted(cleared.tolist())


@pytest.mark.parametrize("way", NEW_WAYS, ids=identifier)
@pytest.mark.parametrize("kind", KINDS, ids=identifier)
def test_v2_maps_what_was_asked_for_in_small_pages_and_v(way: Way, kind: XenCrash | None) -> None:
    handover = walk(way, kind).handover
    plan = handover.plan
    assert handover.page_table_b is handover.page_table_a
    load = loaded_by_v2(plan)
    asked = [each.extent for each in (*load.segments, *load.mapped)]
    assert all(each.start % PAGE_SIZE == each.end % PAGE_SIZE == 0 for each in asked)
    assert len(asked) <= 15
    own = {plan.control_page >> 12, *(at >> 12 for at in plan.list_pages)}
    sources = set(plan.sources[plan.sources != ZERO_FRAME].tolist())
    wanted = own | sources | {frame for each in asked for frame in each.pages}
    entries = sum(
        int((np.frombuffer(page, np.uint64) & np.uint64(1)).sum())
        for page in handover.page_table_a.pages.values()
    )
    # One entry leads to each page of table but the root; the others map one page each, V among them.
    assert entries - (len(handover.page_table_a.pages) - 1) == len(wanted) + 1


@pytest.mark.parametrize("kind", KINDS, ids=identifier)
def test_v2_enters_in_32_bits_with_paging_off_where_that_is_asked_for(
    kind: XenCrash | None,
) -> None:
    for way, protocol in ((NEW_WAYS[0], Protocol.LINUX_32), (NEW_WAYS[1], None)):
        verdict = walk(way, kind, protocol=protocol)
        holds(verdict)
        assert verdict.handover.intent.protocol is Protocol.LINUX_32
        assert loaded_by_v2(verdict.handover.intent).legacy_exit
        texts = list(verdict.run.texts.values())
        assert "wrmsr" in texts
        assert not verdict.run.registers.efer & 0x500


@pytest.mark.parametrize("way", WAYS, ids=identifier)
def test_the_played_contract_and_the_code_leave_the_same(way: Way) -> None:
    """The other machine knows the thread's steps and none of the routines."""
    ran, played = walk(way), walk(way, machine=Fake())
    holds(played)
    assert (ran.run.copies[:, 1:] == played.run.copies[:, 1:]).all()
    for segment in ran.handover.intent.segments:
        if segment.name != "entry stub":
            place = segment.destination
            assert ran.run.memory.read(place) == played.run.memory.read(place)


@settings(max_examples=12, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(WAYS), st.integers(0, 2**32 - 1), st.none() | st.integers(0, 99))
def test_it_holds_whatever_the_p2m_and_the_order_of_its_frames(
    way: Way, seed: int, scatter: int | None
) -> None:
    text = document(way).replace("seed = 1\n", f"seed = {seed}\n")
    old = host_room.read(text, "another seed")
    assert old.xen is not None
    verdict = walk(way, host=old, scatter=scatter)
    holds(verdict)


@pytest.mark.parametrize("way", V1_WAYS, ids=identifier)
def test_the_hypervisor_writes_its_own_v_where_dom0_had_that_of_bare_linux(way: Way) -> None:
    handover = walk(way).handover
    assert handover.prepared is not None
    assert handover.prepared.root == handover.page_table_a.root
    assert handover.prepared.pages.keys() == handover.page_table_a.pages.keys()
    assert handover.prepared.pages != handover.page_table_a.pages


def high_pae() -> Way:
    return (Paging.PAE, XenInterface.V1, 32)


def with_memory_below_4g() -> str:
    """PAE with dom0's memory in the last GiB below 4 GiB, where the fixmaps' top-level slot is."""
    text = document(high_pae())
    text = text.replace("size = 0xbfed_9000", "size = 0xeff0_0000")
    text = text.replace(
        "start = 0xbffd_9000\nsize = 0x2_0000", "start = 0xf800_0000\nsize = 0x2_0000"
    )
    text = text.replace("start = 0xbfff_9000\nsize = 0x7000", "start = 0xf802_0000\nsize = 0x7000")
    runs = "".join(
        f"[[xen.dom0.p2m]]\npseudo = {n * 0x1000:#x}\n"
        f"machine = {0xE000_0000 - (n % 2 + 1) * 0x100_0000 - n * 0x1000:#x}\nsize = 0x1000\n"
        for n in range(0x240)
    )
    small = (
        ("text_start = 0x100_0000", "text_start = 0x0"),
        ("text_size = 0x20_0000", "text_size = 0x2_0000"),
    )
    for before, after in small:
        text = text.replace(before, after)
    text = text.replace("start = 0x200_0000\nsize = 0x4_0000", "start = 0x2_0000\nsize = 0x2_0000")
    a, b = text.index("pages = 0x1_0000"), text.index("[xen.dom0.tables]")
    text = text[:a] + text[b:]
    a, b = text.index("[[xen.dom0.hole]]"), text.index("[[xen.dom0.busy]]")
    return text[:a] + runs


def test_on_pae_the_thread_holds_and_2_6_20_falls_where_p_shares_the_fixmaps_slot() -> None:
    """The design flaw that Biederman feared, on a machine with memory in the last GiB below 4."""
    old = host_room.read(with_memory_below_4g(), "a machine with memory up to 3.75 GiB")
    good = walk(high_pae(), host=old)
    plan = good.handover.plan
    assert plan.control_page >> 30 == plan.relocation >> 30 == 3
    holds(good)
    bad = walk(high_pae(), host=old, design="damm-v4")
    assert bad.outcome is Outcome.FALLS
    assert (bad.findings[0].rule, bad.findings[0].step) == ("table-a-maps-v", Step.TABLE_A)
    assert bad.run.fault is not None


def test_nothing_of_a_crash_lies_outside_the_region_but_the_hypervisor_itself() -> None:
    for way in WAYS:
        plan = prepare(shipped_kernel(), hypervisor(way), request(way, XenCrash.DOM0))
        region = plan.host.crash_region
        assert region is not None
        pages = plan.through.pages if isinstance(plan.through, PageList) else ()
        segments = plan.through.segments if isinstance(plan.through, XenV2) else ()
        assert len(pages) + len(segments)
        assert all(each.machine in region for each in pages)
        assert all(region.covers(each.extent) for each in segments)
        assert {each.pseudo for each in pages} <= {None}
