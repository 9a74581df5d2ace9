"""Each sabotage through Xen falls for its own reason; those of bare Linux fall there too."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.xen.runs import NEW_WAYS, OLD_WAYS, OUT, V1_WAYS, WAYS, Way, identifier, walk, walked
from tightrope.check import RULES, check
from tightrope.errors import BadInput
from tightrope.machine.unicorn import Emulator
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Outcome, Paging, Step, Tables, Verdict, XenCrash
from tightrope.sabotage import SABOTAGES, XEN_SABOTAGES, Sabotage, named
from tightrope.x86.paging import FORMATS, Rights, map_page
from tightrope.x86.tables import TableStore

OF_THE_WAY_OUT = {"xen-lme-stays", "xen-way-out-unmapped", "xen-way-out-pge", "xen-way-out-global"}
NO_FIXMAP = {"xen-fixmap-nx", "xen-shared-slot"}
OWN = [
    (way, each)
    for way in V1_WAYS
    for each in XEN_SABOTAGES.values()
    if walked(way) in each.modes and each.name not in (NO_FIXMAP if way == OUT else OF_THE_WAY_OUT)
]
PLAIN = [(way, each) for way in WAYS for each in SABOTAGES.values() if walked(way) in each.modes]
BEFORE_V = {"stale-global", "pge-on", "no-p"}
"""The way out drops global entries first, and V is P there."""
NOT_THROUGH_XEN = {"stale-pdpte"}
"""Its code takes page_table_a from a register."""


def name_of(value: object) -> str:
    return value.name if isinstance(value, Sabotage) else identifier(value)


@cache
def impatient() -> Emulator:
    """A walk that goes in circles is soon known to."""
    return Emulator(instruction_limit=20_000)


def broken(way: Way, each: Sabotage) -> Verdict:
    design = "damm-v4" if each.name == "xen-shared-slot" else "two-tables"
    kind = XenCrash.DOM0 if each.crash else None
    return walk(
        way, kind, backup=each.backup or None, sabotage=each, design=design, machine=impatient()
    )


@pytest.mark.parametrize(("way", "each"), OWN, ids=name_of)
def test_it_is_found_by_its_rule_at_its_step(way: Way, each: Sabotage) -> None:
    got = broken(way, each)
    assert got.outcome is Outcome.FALLS
    assert (got.findings[0].rule, got.findings[0].step) == (each.rule, each.step)


def test_every_rule_about_xen_has_a_sabotage_or_a_test_that_breaks_it() -> None:
    rules = {rule.id for rule in RULES if rule.id.startswith("xen-")}
    assert rules - {each.rule for each in XEN_SABOTAGES.values()} == {"xen-small-pages"}


def test_a_large_page_in_the_hypervisors_tree_is_found() -> None:
    way = WAYS[3]
    good = walk(way)
    handover = good.handover
    assert handover.page_table_b is not None
    store = TableStore(FORMATS["x86_64"], iter(sorted(handover.page_table_a.pages)).__next__)
    rights = Rights()
    large = Extent.sized(0x20_0000, 0x20_0000)
    store.map_extent(large.start, large, rights, page_sizes=(large.size,))
    for each in handover.intent.identity:
        store.map_extent(each.extent.start, each.extent, rights, page_sizes=(PAGE_SIZE,))
    virt, control = handover.intent.relocation, handover.intent.control_page
    map_page(store, store.format, store.root, virt, control, rights, store.new_table)
    tables = Tables(root=store.root, pages=store.pages())
    changed = replace(handover, page_table_a=tables, page_table_b=tables)
    found = [each.rule for each in check(changed, good.run)]
    assert found == ["xen-small-pages", "table-b-nothing-else"]


@pytest.mark.parametrize("way", OLD_WAYS, ids=identifier)
@pytest.mark.parametrize("name", ["xen-pseudo-list", "xen-pseudo-cr3", "xen-pseudo-entry"])
def test_a_raw_number_is_told_with_both_values(way: Way, name: str) -> None:
    got = broken(way, XEN_SABOTAGES[name])
    finding = got.findings[0]
    xen = got.handover.host.xen
    assert xen is not None
    pseudo = int(finding.evidence["pseudo-physical"], 16)
    machine = int(finding.evidence["machine"].split()[0], 16)
    assert int(xen.dom0.p2m.frames[pseudo >> 12]) == machine >> 12
    assert f"{pseudo:#x}" in finding.message
    assert f"{machine:#x}" in finding.message


@pytest.mark.parametrize("way", OLD_WAYS, ids=identifier)
def test_without_the_overwrite_the_cpu_finds_nothing_at_its_own_v(way: Way) -> None:
    got = broken(way, XEN_SABOTAGES["xen-no-overwrite"])
    assert [finding.rule for finding in got.findings][-1] == "fetch-mapped"
    fault = got.run.fault
    assert fault is not None
    assert fault.step is Step.TABLE_A
    assert fault.address is not None
    assert fault.address & -4096 == got.handover.intent.relocation


@pytest.mark.parametrize("way", OLD_WAYS, ids=identifier)
def test_one_slot_for_both_only_hurts_the_design_that_writes_it_twice(way: Way) -> None:
    each = XEN_SABOTAGES["xen-shared-slot"]
    with pytest.raises(BadInput, match="two-tables keeps both chains in one slot"):
        walk(way, sabotage=each)


@pytest.mark.parametrize(
    ("way", "each"), [row for row in PLAIN if row[1].name not in NOT_THROUGH_XEN], ids=name_of
)
def test_what_breaks_bare_linux_breaks_it_through_xen(way: Way, each: Sabotage) -> None:
    if way == OUT and each.name in BEFORE_V:
        with pytest.raises(BadInput, match=r"has dropped global entries|V and P are one address"):
            broken(way, each)
        return
    if each.name == "overwrite-pgd" and way[0] in (Paging.I386, Paging.PAE):
        # Here P lies above 2 GiB: there is nothing to write into the low half.
        with pytest.raises(BadInput, match="P lies in the upper half"):
            broken(way, each)
        return
    got = broken(way, each)
    assert got.outcome is Outcome.FALLS
    assert (got.findings[0].rule, got.findings[0].step) == (each.rule, each.step)


def test_what_cannot_be_done_through_xen_says_so() -> None:
    way: Way = OLD_WAYS[1]
    for name in NOT_THROUGH_XEN:
        with pytest.raises(BadInput, match="through Xen the root is handed over in page_list"):
            walk(way, sabotage=named(name))


@pytest.mark.parametrize("each", XEN_SABOTAGES.values(), ids=name_of)
@pytest.mark.parametrize("way", NEW_WAYS, ids=identifier)
def test_v2_has_no_pages_of_dom0s_to_break(way: Way, each: Sabotage) -> None:
    with pytest.raises(BadInput, match=r"interface v1|not memory of dom0's|--xen v1|only with pae"):
        walk(way, sabotage=each)


def test_a_way_out_is_only_there_to_be_broken_where_long_mode_is_left() -> None:
    for name in OF_THE_WAY_OUT:
        with pytest.raises(BadInput, match="long mode is not left for dom0's code"):
            walk(OLD_WAYS[1], sabotage=named(name))
    for name in NO_FIXMAP:
        with pytest.raises(BadInput, match="has no fixmap"):
            walk(OUT, sabotage=named(name))
