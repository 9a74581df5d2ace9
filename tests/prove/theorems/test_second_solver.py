"""The obligations as SMT-LIB, answered by a solver that had no part in the proof."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.conftest import lacking
from tightrope.handover.designs import write_chains
from tightrope.model import Paging
from tightrope.prove.goal import Script
from tightrope.prove.run import goals
from tightrope.prove.solver import written
from tightrope.prove.theorems import tables


def answer(script: Script) -> str:
    """What bitwuzla says of a script: "sat", "unsat" or "unknown"."""
    try:
        import bitwuzla
    except ModuleNotFoundError:
        lacking("bitwuzla is not installed: run scripts/setup test")
    parser: Any = bitwuzla.Parser(bitwuzla.TermManager(), bitwuzla.Options())
    asserted, question = script.text.rsplit("(check-sat)", 1)
    assert question.strip() == ""
    parser.parse(asserted, True, False)
    return str(parser.bitwuzla().check_sat()).rpartition(".")[2].lower()


@pytest.mark.parametrize("theorem", ["designs", "split"])
def test_another_solver_gives_the_same_answers(theorem: str) -> None:
    asked = 0
    for goal in goals(theorem):
        for script in goal.smt() if goal.smt else ():
            assert answer(script) == script.expected, script.name
            asked += 1
    assert asked > 3


@pytest.mark.parametrize("mode", Paging)
def test_another_solver_agrees_about_the_relocation_code(mode: Paging) -> None:
    goal = next(each for each in goals("code", mode=mode) if each.smt)
    assert goal.smt is not None
    assert [answer(script) for script in goal.smt()] == ["unsat", "unsat"]


@pytest.mark.parametrize("name", ["movs", "without-rule", "without-kept", "movs-unaligned"])
def test_another_solver_agrees_about_the_copy(name: str) -> None:
    goal = next(each for each in goals("copy") if each.name == name)
    for script in goal.smt() if goal.smt else ():
        assert answer(script) == script.expected, script.name


@pytest.mark.parametrize("mode", [Paging.I386, Paging.PAE, Paging.X86_64])
def test_another_solver_finds_nothing_against_page_table_a(mode: Paging) -> None:
    (goal,) = (each for each in goals("tables", mode=mode) if each.smt)
    assert goal.smt is not None
    scripts = list(goal.smt())
    assert len(scripts) == (4 if mode is Paging.PAE else 3)
    for script in scripts:
        assert (answer(script), script.expected) == ("unsat", "unsat"), script.name


@pytest.mark.parametrize("mode", [Paging.I386, Paging.PAE, Paging.X86_64])
def test_another_solver_finds_a_counterexample_against_the_2_6_20_filler(mode: Paging) -> None:
    scripts = list(tables.scripts(write_chains, mode))
    assert [answer(script) for script in scripts] == [script.expected for script in scripts]
    assert {script.name: script.expected for script in scripts}[f"tables-{mode.value}-v"] == "sat"


def test_names_are_file_names_and_each_script_says_what_is_expected() -> None:
    names = []
    for goal in goals("split"):
        for script in goal.smt() if goal.smt else ():
            names.append(script.name)
            assert re.fullmatch(r"[a-z0-9-]+", script.name.replace("_", ""))
            assert f"(set-info :status {script.expected})" in script.text
    assert len(names) == len(set(names))


def test_a_conjunction_of_one_is_written_so_that_others_can_read_it() -> None:
    import z3

    some = z3.BitVec("x", 8)
    assert answer(written("one", [z3.And(some == 1)], "sat")) == "sat"
    assert answer(written("none", [z3.And(some == 1), some == 2])) == "unsat"
