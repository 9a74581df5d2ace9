"""Each sabotage through Xen falls for its own reason; those of bare Linux fall there too."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from tests.xen.runs import OLD_WAYS, WAYS, Way, identifier, walk
from tightrope.check import RULES, check
from tightrope.errors import BadInput
from tightrope.machine.emulator import Emulator
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Outcome, Paging, Step, Tables, Verdict, XenCrash
from tightrope.sabotage import SABOTAGES, XEN_SABOTAGES, Sabotage, named
from tightrope.x86.paging import FORMATS, Rights, map_page
from tightrope.x86.tables import TableStore

OWN = [(way, each) for way in OLD_WAYS for each in XEN_SABOTAGES.values() if way[0] in each.modes]
PLAIN = [(way, each) for way in WAYS for each in SABOTAGES.values() if way[0] in each.modes]
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
    for each in handover.plan.identity:
        store.map_extent(each.extent.start, each.extent, rights, page_sizes=(PAGE_SIZE,))
    virt, control = handover.plan.relocation, handover.plan.control_page
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
    xen = got.handover.plan.host.xen
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
    assert fault.address & -4096 == got.handover.plan.relocation


@pytest.mark.parametrize("way", OLD_WAYS, ids=identifier)
def test_one_slot_for_both_only_hurts_the_design_that_writes_it_twice(way: Way) -> None:
    each = XEN_SABOTAGES["xen-shared-slot"]
    with pytest.raises(BadInput, match="two-tables keeps both chains in one slot"):
        walk(way, sabotage=each)


@pytest.mark.parametrize(
    ("way", "each"), [row for row in PLAIN if row[1].name not in NOT_THROUGH_XEN], ids=name_of
)
def test_what_breaks_bare_linux_breaks_it_through_xen(way: Way, each: Sabotage) -> None:
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
@pytest.mark.parametrize("way", WAYS[3:], ids=identifier)
def test_v2_has_no_pages_of_dom0s_to_break(way: Way, each: Sabotage) -> None:
    with pytest.raises(BadInput, match=r"interface v1|no memory of dom0's|--xen v1"):
        walk(way, sabotage=each)
