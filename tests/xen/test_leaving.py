"""A 64-bit hypervisor leaves long mode for a 32-bit dom0's code: its trees, its words, what it writes."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.xen.runs import KINDS, OUT, document, handed_over, identifier, walk
from tightrope import check
from tightrope import host as host_room
from tightrope.errors import HostError
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Host, Outcome, Step, Verdict, WayOut, XenCrash
from tightrope.x86 import cpu as x86
from tightrope.x86.survey import Mappings, survey
from tightrope.x86.walk import Mmu


def way_of(verdict: Verdict) -> WayOut:
    way = verdict.handover.world.way_out
    assert way is not None
    return way


def rows(found: Mappings) -> dict[int, int]:
    assert set(found.size.tolist()) == {PAGE_SIZE}
    return dict(zip(found.virt.tolist(), found.phys.tolist(), strict=True))


def mapped(way: WayOut) -> tuple[dict[int, int], dict[int, int]]:
    """What each tree maps, surveyed by the other walker: virtual -> physical."""
    long, paging = x86.EFER_LME | x86.EFER_LMA | x86.EFER_NXE, x86.CR0_PG | x86.CR0_PE
    out = []
    for tables, efer in ((way.wide, long), (way.narrow, x86.EFER_NXE)):
        mmu = Mmu(cr0=paging, cr3=tables.root, cr4=x86.CR4_PAE, efer=efer, physical_bits=46)
        out.append(rows(survey(tables.pages.get, mmu)))
    return out[0], out[1]


@pytest.mark.parametrize("kind", KINDS, ids=identifier)
def test_both_trees_map_what_is_used_and_nothing_else(kind: XenCrash | None) -> None:
    verdict = walk(OUT, kind)
    way, load = way_of(verdict), handed_over(verdict.handover.intent)
    own = {int(way.code): int(way.code), int(way.words): int(way.words)}
    wide, narrow = mapped(way)
    assert wide == {int(way.virt): int(way.code), **own}
    assert narrow == own | {int(page.machine): int(page.machine) for page in load.pages}
    assert len(load.pages) == 6


@pytest.mark.parametrize("kind", KINDS, ids=identifier)
def test_the_way_out_writes_nothing_and_reads_its_own_page_of_words(kind: XenCrash | None) -> None:
    verdict = walk(OUT, kind)
    run, way = verdict.run, way_of(verdict)
    at_call = run.stores[run.stores[:, 1] <= Step.CALL]
    assert len(at_call) == 0
    read = {int(at) & -PAGE_SIZE for at in run.loads[run.loads[:, 1] <= Step.CALL][:, 2]}
    assert read == {int(way.words), int(way.code)}


@pytest.mark.parametrize("slot", range(6))
def test_only_the_page_of_dom0s_code_has_to_be_executable(slot: int) -> None:
    verdict = walk(OUT)
    way, page = way_of(verdict), handed_over(verdict.handover.intent).pages[slot]
    assert page.fixmap is not None
    assert (page.slot, int(page.fixmap)) == (2 * slot, int(page.machine))
    (at,) = (
        frame + 8 * number
        for frame, table in way.narrow.pages.items()
        for number, (entry,) in enumerate(struct.iter_unpack("<Q", table))
        if entry & 0xF_FFFF_F000 == page.machine
    )
    frame = at & -PAGE_SIZE
    table = bytearray(way.narrow.pages[frame])
    table[at - frame + 7] |= 0x80  # XD
    narrow = replace(way.narrow, pages={**way.narrow.pages, frame: memoryview(bytes(table))})
    world = replace(verdict.handover.world, way_out=replace(way, narrow=narrow))
    found = check.check(replace(verdict.handover, world=world), verdict.run)
    told = [each.message for each in found if each.rule == "xen-way-out-maps"]
    assert len(told) == (slot == 0)
    assert all("for a fetch" in each for each in told)


def test_dom0s_code_finds_what_a_32_bit_hypervisor_would_have_pushed() -> None:
    verdict = walk(OUT)
    plan, way = verdict.handover.plan, way_of(verdict)
    page = verdict.run.memory.read(Extent.sized(way.words, PAGE_SIZE))
    back, head, page_list, start, has_pae = struct.unpack_from("<5I", page, 0xFE0)
    assert (back, head, start, has_pae) == (0, plan.head, plan.entry, 1)
    slots = struct.unpack_from("<17I", page, page_list - way.words)
    assert slots[:12:2] == slots[1:12:2] == tuple(each.machine for each in handed_over(plan).pages)
    assert not any(slots[12:])


def test_long_mode_is_left_in_the_manuals_order_before_v_is_reached() -> None:
    verdict = walk(OUT)
    writes = [
        (each.register, each.after)
        for each in verdict.run.register_writes
        if each.step is Step.CALL and each.register in ("cr0", "cr3", "cr4", "efer")
    ]
    way = way_of(verdict)
    assert [name for name, _ in writes] == ["cr3", "cr4", "cr0", "cr3", "efer", "cr0"]
    values: Mapping[int, int] = dict(enumerate(value for _, value in writes))
    assert (values[0], values[1], values[3]) == (way.wide.root, x86.CR4_PAE, way.narrow.root)
    assert not values[2] & x86.CR0_PG
    assert not values[4] & x86.EFER_LME
    assert values[5] & x86.CR0_PG


DIRECT_MAP = 0xFFFF_8300_0000_0000
PLACES = st.integers(0x400_0000 >> 22, 0x3FC0_0000 >> 22).map(lambda n: n << 22)


def placed(text: int, private: int) -> Host:
    """The example with its text, which is part of the direct map, and its private memory elsewhere."""
    words = document(OUT)
    for before, after in (
        ("phys = 0x40_0000", f"phys = {text:#x}"),
        ("virt = 0xffff_8300_0040_0000", f"virt = {DIRECT_MAP + text:#x}"),
        ("relocation = 0xffff_8300_0041_6000", f"relocation = {DIRECT_MAP + text + 0x1_6000:#x}"),
        ("start = 0x80_0000", f"start = {private:#x}"),
    ):
        assert words.count(before) == 1, before
        words = words.replace(before, after)
    return host_room.read(words, "another place")


@settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow])
@given(PLACES, PLACES)
def test_it_holds_wherever_the_hypervisor_lies(text: int, private: int) -> None:
    if text == private:
        private += 0x40_0000
    verdict = walk(OUT, host=placed(text, private))
    assert [each.message for each in verdict.findings] == []
    assert verdict.outcome is Outcome.HOLDS
    assert way_of(verdict).code == text + 0x1_6000
    assert way_of(verdict).words == private + 0x40_0000 - PAGE_SIZE


@pytest.mark.parametrize(
    ("text", "private", "field"),
    [(0x1_0040_0000, 0x80_0000, "text.phys"), (0x40_0000, 0x1_0080_0000, "private")],
)
def test_what_lies_above_4_gib_cannot_be_used_with_paging_off(
    text: int, private: int, field: str
) -> None:
    with pytest.raises(HostError, match=f"{field}.* all has to be below 4 GiB"):
        walk(OUT, host=placed(text, private))
