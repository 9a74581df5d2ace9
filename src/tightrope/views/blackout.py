"""How long nobody answers, as a table: of a plan, and of a walk that was rehearsed.

Rules: the times are what the budget's rates make of counted bytes, and it is said whose rates.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from tightrope.model.blackout import Blackout
from tightrope.model.sheet import Column, Line, Section, Table
from tightrope.views import words

COLUMNS = (
    Column(heads=("time",), width=9, right=True),
    Column(heads=("what",), width=10, gap=2),
    Column(heads=("bytes",), width=9, right=True, gap=2),
    Column(heads=("instructions",), width=12, right=True, gap=2),
    Column(heads=("why",), width=3, gap=2),
)


def _table(budget: Blackout) -> Table:
    rows = tuple(
        (
            _seconds(each.seconds),
            each.what,
            words.size(each.bytes) if each.bytes else "",
            "" if each.instructions is None else f"{each.instructions:,}",
            each.why,
        )
        for each in budget.items
    )
    whole = (_seconds(budget.seconds), "in all", "", "", "devices apart")
    return Table(columns=COLUMNS, rows=(*rows, whole), indent=2)


def _below(budget: Blackout) -> Iterator[str]:
    for saving in budget.savings:
        verb = "saves" if saving.seconds >= 0 else "costs"
        yield f"{saving.option} {verb} {_seconds(abs(saving.seconds)).strip()}: {saving.why}"
    yield f"rates: {budget.rates.source}"


def _seconds(value: float) -> str:
    return f"{value:7.3f} s"


def section(budget: Blackout, *, detail: bool = False) -> Section:
    """All of it."""
    below = tuple(Line(text, 2) for text in _below(budget))
    return Section("blackout", (_table(budget), *below), detail=detail)


class ItemFacts(TypedDict):
    what: str
    bytes: int
    instructions: int | None
    seconds: float
    why: str


class SavingFacts(TypedDict):
    option: str
    seconds: float
    why: str


class BlackoutFacts(TypedDict):
    items: list[ItemFacts]
    savings: list[SavingFacts]
    seconds: float
    rates: str
    """Whose rates the seconds are."""


def facts(budget: Blackout) -> BlackoutFacts:
    """The same as numbers."""
    return {
        "items": [
            {
                "what": each.what,
                "bytes": each.bytes,
                "instructions": each.instructions,
                "seconds": each.seconds,
                "why": each.why,
            }
            for each in budget.items
        ],
        "savings": [
            {"option": each.option, "seconds": each.seconds, "why": each.why}
            for each in budget.savings
        ],
        "seconds": budget.seconds,
        "rates": budget.rates.source,
    }
