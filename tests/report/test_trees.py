"""What `tightrope tables` lists is what a walk of the tables finds, address for address."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.screens import facts, screen
from tests.rehearse.runs import crashed, sound
from tightrope.cli import main
from tightrope.memory import PAGE_SIZE, Extent, RegionKind
from tightrope.model import Handover, Paging
from tightrope.views.entries import Entries
from tightrope.views.trees import VIEW, Tree, trees
from tightrope.x86.ladder import CR4_PAE, EFER_LMA, ladder
from tightrope.x86.walk import Access, Translated, entries_in, walk


def handovers() -> list[Handover]:
    return [sound().handover, crashed().handover]


def tree(built: Handover, name: str) -> Tree:
    return next(each for each in trees(built) if each.name == name)


def walked(built: Handover, each: Tree, virt: int) -> int | None:
    """Where the CPU's own walk leads; None for a page fault."""
    pages = dict(built.world.tables) | dict(built.page_table_a.pages)
    if built.page_table_b is not None:
        pages |= built.page_table_b.pages
    mmu = built.registers.mmu(built.host.cpu, root=each.root)
    found = walk(entries_in(pages), mmu, virt, Access.READ)
    return found.phys if isinstance(found, Translated) else None


@given(st.data())
def test_a_listed_address_leads_where_the_list_says_and_another_nowhere(
    data: st.DataObject,
) -> None:
    built = data.draw(st.sampled_from(handovers()))
    each = data.draw(st.sampled_from(trees(built)))
    reach = data.draw(st.sampled_from(each.reaches))
    offset = data.draw(st.integers(0, reach.size - 1))
    assert walked(built, each, reach.virt + offset) == reach.phys + offset
    behind = reach.virt + reach.size
    listed = any(other.virt <= behind < other.virt + other.size for other in each.reaches)
    canonical = behind < 1 << 47 or 0xFFFF_8000_0000_0000 <= behind < 1 << 64
    if canonical and not listed:
        assert walked(built, each, behind) is None


def test_page_table_a_maps_the_control_page_twice_and_says_what_it_is() -> None:
    built = sound().handover
    a = tree(built, "page_table_a")
    where = {each.virt: (each.phys, each.size, each.holds) for each in a.reaches}
    control = built.intent.control_page
    assert where == {
        control: (control, PAGE_SIZE, "the control page"),
        built.intent.relocation: (control, PAGE_SIZE, "the control page"),
    }


def test_page_table_b_says_why_it_maps_what_it_maps() -> None:
    b = tree(sound().handover, "page_table_b")
    assert all(each.virt == each.phys for each in b.reaches)
    said = " ".join(each.holds for each in b.reaches)
    for what in ("the page list", "kernel", "initrd", "boot_params", "BIOS area with the RSDP"):
        assert what in said


@pytest.mark.parametrize("paging", [Paging.I386, Paging.PAE, Paging.LA57])
def test_every_mode_has_its_trees(paging: Paging, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tables", "--shipped", "--mode", paging.value, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    names = [each["name"] for each in document["trees"]]
    wanted = ["the current pgd", "page_table_a"] + ["page_table_b"] * paging.long_mode
    assert names == wanted
    assert all(each["ranges"] for each in document["trees"])
    assert all(one["because"] for each in document["trees"][1:] for one in each["ranges"])


def test_the_screen_has_a_table_a_tree_and_the_facts_have_the_same() -> None:
    built = sound().handover
    text, document = screen(VIEW, built), facts(VIEW, built)
    for each in document["trees"]:
        assert f"{each['name']} at {each['root']:#x}" in text
        for reach in each["ranges"]:
            assert f"{reach['virt']:#x}" in text
            assert reach["holds"] in text


def met(built: Handover, each: Tree) -> dict[int, tuple[str, int]]:
    """By linear address each page's level and table, counted as a CPU's walks meet the tables."""
    pages = dict(built.world.tables) | dict(built.page_table_a.pages)
    pages |= {} if built.page_table_b is None else built.page_table_b.pages
    mmu = built.registers.mmu(built.host.cpu, root=each.root)
    before: dict[str, int] = {}
    numbers: dict[str, int] = {}
    out = {}
    for reach in each.reaches:
        at = reach.virt
        while at < reach.virt + reach.size:
            found = walk(entries_in(pages), mmu, at, Access.READ)
            assert isinstance(found, Translated)
            for visit in found.visits:
                if before.get(visit.level) != visit.at & ~0xFFF:
                    before[visit.level] = visit.at & ~0xFFF
                    numbers[visit.level] = numbers.get(visit.level, 0) + 1
            level = found.visits[-1].level
            out[at] = level, numbers[level]
            at += found.page_size
    return out


def test_entries_lie_where_a_cpu_s_walk_reads_them() -> None:
    for built in handovers():
        for each in trees(built):
            pages = met(built, each)
            for reach in each.reaches:
                wanted: dict[str, list[int]] = {}
                for virt, (level, number) in pages.items():
                    if reach.virt <= virt < reach.virt + reach.size:
                        wanted.setdefault(level, []).append(number)
                got = {lying.level: [lying.first, lying.last] for lying in reach.entries}
                assert got == {level: [min(n), max(n)] for level, n in wanted.items()}


def test_tables_of_a_level_are_counted_in_the_order_of_what_they_map() -> None:
    """4 KiB, 2 MiB up to 1 GiB, a PD with a PT alone, 1 GiB as one page, and the last page of all."""
    kib_4, mib_2, gib_1 = 1 << 12, 1 << 21, 1 << 30
    first = [(0, kib_4), *((at, mib_2) for at in range(mib_2, gib_1 + 2 * mib_2, mib_2))]
    rest = [(2 * gib_1, kib_4), (3 * gib_1, gib_1), (4 * gib_1, mib_2), ((1 << 64) - kib_4, kib_4)]
    virt, size = np.array([*first, *rest], np.uint64).T
    found = Entries(virt, size, ladder(EFER_LMA, CR4_PAE, gbpages=True, physical_bits=46))

    def said(at: int, size: int) -> str:
        return ", ".join(map(str, found.within(at, size)))

    assert said(0, kib_4) == "PT 1"
    assert said(0, gib_1) == "PT 1, PD 1"
    assert said(mib_2, gib_1 + mib_2) == "PD 1 to 2"
    assert said(2 * gib_1, kib_4) == "PT 2"
    assert said(3 * gib_1, gib_1) == "PDPT 1"
    assert said(4 * gib_1, mib_2) == "PD 4"
    assert said((1 << 64) - kib_4, kib_4) == "PT 3"
    assert said(5 * gib_1, gib_1) == ""


def test_a_range_is_mapped_because_of_what_the_plan_asks_and_page_table_a_because_of_v() -> None:
    built = sound().handover
    acpi = next(each for each in built.host.memory.of(RegionKind.ACPI))
    b = tree(built, "page_table_b")
    (of_acpi,) = [each for each in b.reaches if acpi.start in Extent.sized(each.phys, each.size)]
    assert "ACPI tables" in of_acpi.because
    where = {each.virt: each.because for each in tree(built, "page_table_a").reaches}
    assert where[built.intent.control_page] == "the control page"
    assert where[built.intent.relocation] == "V, where the relocation code is called"
    assert {each.because for each in tree(built, "the current pgd").reaches} == {""}
    more = replace(built, intent=replace(built.intent, identity=()))
    assert {each.because for each in tree(more, "page_table_b").reaches} == {""}
    assert "because of\n" in screen(VIEW, more)
    assert "nothing that the plan asks for" in screen(VIEW, more)
    assert "nothing that the plan asks for" not in screen(VIEW, built)
