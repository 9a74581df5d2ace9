"""The designs as a table, one row each.

Rules: the rows are done; a design that cannot exist has its reason below the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from tightrope.model import Outcome
from tightrope.model.comparison import Row
from tightrope.model.sheet import Column, Line, Section, Sheet, Table, Text
from tightrope.views import rules, words
from tightrope.views.view import View

COLUMNS = (
    Column(heads=("design", ""), width=15),
    Column(heads=("verdict", ""), width=7),
    Column(heads=("new kernel", ""), width=11),
    Column(heads=("tables", "pages"), width=6, right=True),
    Column(heads=("old kernel", "bytes lost"), width=11, right=True),
    Column(heads=("copied", "pages"), width=7, right=True),
    Column(heads=("copies", "a page"), width=7, right=True),
    Column(heads=("instructions",), width=13, right=True),
    Column(heads=("flushes",), width=8, right=True),
)


def sheet(rows: Sequence[Row]) -> Sheet:
    """The table, below it why a design falls, or cannot exist, and what each was asked."""
    table = Table(columns=COLUMNS, rows=tuple(_cells(row) for row in rows))
    reasons = (
        Line(f"{row.design} {row.outcome.value if row.outcome else 'cannot exist'}: {row.detail}")
        for row in rows
        if row.detail
    )
    below = rules.asked(*(row.asked for row in rows))
    return Sheet((Section(None, (table, *reasons)), *below), headline=headline(rows))


def headline(rows: Sequence[Row]) -> Text:
    """How many designs hold, and which do not."""
    bad = [row.design for row in rows if row.outcome is not Outcome.HOLDS]
    rest = f"; not {', '.join(bad)}" if bad else ""
    return f"{len(rows) - len(bad)} of {words.count(len(rows), 'design')} hold{rest}"


def _cells(row: Row) -> tuple[str, ...]:
    if row.outcome is None:
        return row.design, "cannot exist"
    return (
        row.design,
        row.outcome.value,
        "entered" if row.reached else "not entered",
        f"{row.table_pages}",
        f"{row.old_bytes_changed}",
        f"{row.pages_copied}",
        "-" if row.copies_per_page is None else f"{row.copies_per_page:g}",
        f"{row.instructions}",
        f"{row.flushes}",
    )


class RowFacts(TypedDict):
    design: str
    outcome: str | None
    detail: str
    table_pages: int
    old_bytes_changed: int
    pages_copied: int
    copies_per_page: float | None
    reached: bool
    instructions: int
    flushes: int


class ComparisonFacts(TypedDict):
    """Everything that `tightrope compare --json` prints."""

    rows: list[RowFacts]


def facts(rows: Sequence[Row]) -> ComparisonFacts:
    """One object per design."""
    return {
        "rows": [
            {
                "design": row.design,
                "outcome": None if row.outcome is None else row.outcome.value,
                "detail": row.detail,
                "table_pages": row.table_pages,
                "old_bytes_changed": row.old_bytes_changed,
                "pages_copied": row.pages_copied,
                "copies_per_page": row.copies_per_page,
                "reached": row.reached,
                "instructions": row.instructions,
                "flushes": row.flushes,
            }
            for row in rows
        ]
    }


VIEW = View(name="compare", version=1, shape=ComparisonFacts, sheet=sheet, facts=facts)
