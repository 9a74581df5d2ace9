"""The table of theorem 5's formulas in docs/proof.md is the code's,
and leads somewhere in every row.
"""

from __future__ import annotations

import re

import z3

from tests.conftest import REPOSITORY
from tests.prove.theorems.test_hypotheses import exists
from tightrope import routines
from tightrope.prove.routine import stubs
from tightrope.prove.routine.contract import Contract, Hypothesis, ListState
from tightrope.prove.theorems.hypotheses import HYPOTHESES


def formulas() -> list[Hypothesis]:
    """Every formula that a walk is given, each once, in the order of the code."""
    contract = Contract(64, None)
    at = ListState(*(z3.BitVec(name, 64) for name in ("word", "cursor", "destination")))
    found = [*contract.hypotheses, *contract.list_hypotheses(at)]
    for stub, bits in stubs.STUBS.items():
        code = routines.read(stub)
        for part in stubs.parts(stub, Contract(bits, None), code.data, code.symbols):
            found += part.conditions
    return list({(each.name, each.says): each for each in found}.values())


def test_the_table_of_formulas_is_what_the_solver_is_given() -> None:
    text = (REPOSITORY / "docs" / "proof.md").read_text("utf-8")
    table = text.split("| formula | says | follows from |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `([\w-]+)` \| (.+?) \| (.+?) \|$", table, re.MULTILINE)
    meant = formulas()
    assert [(name, says) for name, says, _ in rows] == [(each.name, each.says) for each in meant]
    for (_, _, follows), each in zip(rows, meant, strict=True):
        assert tuple(re.findall(r"`([^`]+)`", follows)) == each.kept_by


def test_each_formula_follows_from_a_hypothesis_or_something_that_exists() -> None:
    names = {each.name for each in HYPOTHESES}
    for each in formulas():
        assert each.kept_by
        for name in each.kept_by:
            assert name in names or exists(name), (each.name, name)


def test_the_hypotheses_that_theorem_5_names_are_those_that_its_formulas_follow_from() -> None:
    """A row of the larger table that says "5" is used, or is what theorem 3 gives theorem 5."""
    used = {name for each in formulas() for name in each.kept_by}
    said = {each.name for each in HYPOTHESES if 5 in each.theorems}
    assert said - used == {"same-bytes", "list-kept"}
    assert {name for name in used if name in {h.name for h in HYPOTHESES}} <= said
