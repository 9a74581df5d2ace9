"""Mistakes in the builder: each is refused with an example, or shown to change nothing."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tightrope.model import Paging
from tightrope.model.proof import Fate, Killed
from tightrope.prove.goal import Limits
from tightrope.prove.theorems import builder_mutants
from tightrope.prove.theorems.builder_mutants import (
    FLAGS,
    changes,
    filler_of,
    mutants,
    mutated,
    same_entries,
)
from tightrope.x86 import paging


@pytest.fixture(scope="module")
def killed() -> list[Killed]:
    return [mutant.kill(Limits()) for mutant in mutants()]


def test_no_mistake_survives(killed: list[Killed]) -> None:
    fates = Counter(each.fate for each in killed)
    assert set(fates) == {Fate.KILLED, Fate.EQUIVALENT}
    assert fates[Fate.KILLED] > 150


def test_every_kill_has_an_example_or_the_bit_that_is_wrong(killed: list[Killed]) -> None:
    for each in killed:
        if each.fate is Fate.KILLED:
            assert each.by.startswith(("tables only-v-and-p ", "tables bits "))
            assert each.by.startswith("tables bits ") or each.evidence.startswith("V = 0x")


@pytest.mark.parametrize(
    "says",
    [
        "table_at: `table = entry & fmt.address.mask` is left out",
        "table_at: the condition `entry & PRESENT == 0` is turned round",
        "table_at: `virt` becomes `phys`",
        "map_page: `phys` becomes `virt`",
        "leaf_bits: `bits |= WRITABLE if rights.writable else 0` is left out",
        "leaf_bits: `bits |= ACCESSED | DIRTY if rights.accessed else 0` is left out",
        "leaf_bits: the condition `rights.user` is turned round",
        "leaf_bits: the condition `fmt.has_nx and (not rights.executable)` is turned round",
        "leaf_bits: the condition `level != fmt.leaf` is turned round",
        "table_bits: the condition `not fmt.levels[level].rights` is turned round",
        "table_bits: WRITABLE becomes PAGE_SIZE_BIT",
        "PAE: 30 becomes 29",
        "X86_64: the top level is missing",
        "LA57: levels 1 and 2 are swapped",
        "_PD: 21 becomes 22",
        "ADDRESS: 40 becomes 39",
    ],
)
def test_a_mistake_that_somebody_would_make_is_among_them_and_is_killed(
    killed: list[Killed], says: str
) -> None:
    found = [each for each in killed if each.says == says]
    assert found
    assert {each.fate for each in found} <= {Fate.KILLED}


def test_what_is_called_equivalent_is_about_what_page_table_a_never_asks_for(
    killed: list[Killed],
) -> None:
    """USER, GLOBAL, NX and large pages are not asked for; the errors are not met;
    a wide field is full.
    """
    never = re.compile(
        "USER|GLOBAL|PAGE_SIZE_BIT|EXECUTE_DISABLE|raise ValueError|number 0 becomes 1"
        "|True becomes False|False becomes True"
        "|I386: 10 becomes 11|PAE: 2 becomes 3|ADDRESS_I386: 20 becomes 21|ADDRESS: 40 becomes 41"
    )
    equivalent = [each.says for each in killed if each.fate is Fate.EQUIVALENT]
    assert [says for says in equivalent if not never.search(says)] == []


def test_names_are_unique_and_every_flag_of_the_builder_is_swapped() -> None:
    every = list(changes())
    assert len({name for name, _, _ in every}) == len(every)
    assert all(hasattr(paging, flag) for flag in FLAGS)


def test_the_builder_itself_is_equivalent_to_itself() -> None:
    module = mutated(lambda tree: None)
    for mode in Paging:
        assert same_entries(filler_of(module), mode, module)


def test_a_survivor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the walks switched off nothing minds: then the mutant has to be called a survivor."""
    monkeypatch.setattr(builder_mutants, "every_class", lambda *_: iter(()))
    name, says, change = next(
        each for each in changes() if each[1].startswith("leaf_bits: `bits |= WRITABLE")
    )
    assert builder_mutants.kill(name, says, change, Limits()).fate is Fate.SURVIVED
