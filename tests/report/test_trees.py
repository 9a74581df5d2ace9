"""What `tightrope tables` lists is what a walk of the tables finds, address for address."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.screens import facts, screen
from tests.rehearse.runs import crashed, sound
from tightrope.cli import main
from tightrope.memory import PAGE_SIZE
from tightrope.model import Handover, Paging
from tightrope.views.trees import VIEW, Tree, trees
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


def test_the_screen_has_a_table_a_tree_and_the_facts_have_the_same() -> None:
    built = sound().handover
    text, document = screen(VIEW, built), facts(VIEW, built)
    for each in document["trees"]:
        assert f"{each['name']} at {each['root']:#x}" in text
        for reach in each["ranges"]:
            assert f"{reach['virt']:#x}" in text
            assert reach["holds"] in text
