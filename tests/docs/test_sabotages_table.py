"""docs/sabotages.md is what the sabotages say of themselves."""

from __future__ import annotations

from pathlib import Path

from tightrope.check import RULES
from tightrope.sabotage import ENTRY_SABOTAGES, SABOTAGES, XEN_SABOTAGES

PAGE = Path(__file__).resolve().parents[2] / "docs/sabotages.md"
EVERY = (*SABOTAGES.values(), *ENTRY_SABOTAGES.values(), *XEN_SABOTAGES.values())


def test_the_table_has_every_sabotage_as_it_stands_at_its_function() -> None:
    rows = [row for row in PAGE.read_text().splitlines() if row.startswith("| `")]
    assert rows == [
        f"| `{each.name}` | {each.says} | {int(each.step)} | `{each.rule}` |" for each in EVERY
    ]


def test_what_has_to_find_a_sabotage_is_a_rule() -> None:
    assert {each.rule for each in EVERY} <= {rule.id for rule in RULES}
