"""docs/rules.md is what the rules say of themselves."""

from __future__ import annotations

from pathlib import Path

from tightrope.check import RULES, WATCHED

PAGE = Path(__file__).resolve().parents[2] / "docs/rules.md"


def test_the_table_has_every_rule_as_it_stands_at_its_function() -> None:
    rows = [row for row in PAGE.read_text().splitlines() if row.startswith("| `")]
    assert rows == [
        f"| `{rule.id}` | {int(rule.step)} | {rule.says} | {rule.source} | {rule.mend} |"
        for rule in (*RULES, *WATCHED)
    ]
