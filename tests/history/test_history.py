"""History: each public mistake that can be told before the jump is told, and its mended twin holds.

Rules: docs/history.md is the list.  No row is without a case or a reason, no case without a row.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.history import the_dump, the_jump, the_loader, through_xen
from tests.history.rebuilt import Entry
from tests.perform.fake_linux import FILES
from tests.perform.test_linux import BY_FILE
from tightrope import routines
from tightrope.abi.xen import KexecRange
from tightrope.model import Paging
from tightrope.model.proof import Answer
from tightrope.perform.linux.kexec import reasons
from tightrope.perform.linux.state import read_state

ENTRIES = (*the_jump.ENTRIES, *through_xen.ENTRIES, *the_loader.ENTRIES, *the_dump.ENTRIES)
PAGE = Path(__file__).resolve().parents[2] / "docs/history.md"
FOUND = re.compile(r"`([a-z-]+)`, step (\d)")
ELSEWHERE = {"B15": "`tightrope prove code`", "B65": "`tightrope load` refuses"}
"""Found by something else than a rule; see below."""


def identifier(entry: Entry) -> str:
    return f"{entry.id} {entry.what}".strip()


@pytest.mark.parametrize("entry", ENTRIES, ids=identifier)
def test_what_went_wrong_is_found_by_its_rule_first(entry: Entry) -> None:
    found = entry.broken()
    assert found
    assert (found[0].rule, found[0].step) == (entry.rule, entry.step)


@pytest.mark.parametrize("entry", ENTRIES, ids=identifier)
def test_what_was_mended_holds(entry: Entry) -> None:
    assert entry.fixed() == ()


def test_b15_a_register_that_is_not_cleared_is_a_counterexample() -> None:
    from tightrope.prove.goal import Limits
    from tightrope.prove.routine.contract import Contract
    from tightrope.prove.routine.verify import verify

    data = routines.read(routines.RELOCATE_X86_64).data
    # xor %r9d, %r9d becomes xor %r10, %r9.
    wrong = data.replace(b"\x45\x31\xc9\x45\x31\xd2", b"\x4d\x31\xd1\x45\x31\xd2")
    assert wrong != data
    got = verify(wrong, Contract(64, Paging.X86_64), Limits(seconds=300))
    assert got.answer is Answer.FAILS
    assert got.failure is not None
    assert "r9" in got.failure.obligation.says
    # That the right code is proved: tests/prove/routine.


def test_b65_a_dom0_is_not_asked_by_kexec_file_load() -> None:
    state = read_state(FILES.get)
    assert not any("Xen" in each.found for each in reasons(state, BY_FILE))
    dom0 = replace(state, xen_pv=True)
    assert any("Xen" in each.found for each in reasons(dom0, BY_FILE))


def test_b35_the_numbers_of_the_ranges_are_those_that_stayed() -> None:
    assert (KexecRange.CRASH, KexecRange.XEN, KexecRange.CPU) == (0, 1, 2)


# ------------------------------------------------------------------------------------------- the table


def rows() -> dict[str, list[str]]:
    """Entry -> the cells of its row."""
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][2:]
    cells = [[each.strip() for each in line.strip("|").split(" | ")] for line in lines]
    assert all(len(each) == 5 for each in cells)
    assert len({each[0] for each in cells}) == len(cells)
    return {each[0]: each for each in cells}


def test_each_row_names_the_rules_and_steps_that_its_cases_have() -> None:
    for number, (*_, found) in rows().items():
        cases = {(e.rule, str(int(e.step))) for e in ENTRIES if e.id == number}
        assert set(FOUND.findall(found)) == cases, number
        if number in ELSEWHERE:
            assert ELSEWHERE[number] in found
        elif not cases:
            _, mark, reason = found.partition("not decidable: ")
            assert mark, number
            assert len(reason) > 10, number


def test_each_case_has_its_row_and_every_row_a_year_a_source_and_a_sentence() -> None:
    table = rows()
    assert {each.id for each in ENTRIES} <= set(table)
    for number, (_, year, source, what, _found) in table.items():
        assert 2006 <= int(year) <= 2026, number
        assert source, number
        assert len(what) > 10, number


def test_the_counts_are_those_of_the_table() -> None:
    found = [each[4] for each in rows().values() if not each[4].startswith("not decidable")]
    every = len(rows())
    says = f"Of {every} entries {len(found)} are found before the jump, and {every - len(found)} cannot be."
    assert says in PAGE.read_text()
