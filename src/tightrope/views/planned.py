"""A plan with its blackout budget: what `tightrope plan` shows.

Rules: as `plan`; the times are what the budget's rates make of counted bytes, and say whose rates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypedDict

from tightrope.model import Plan
from tightrope.model.blackout import Blackout
from tightrope.model.sheet import Column, Line, Section, Sheet, Table
from tightrope.views import plan as plan_view
from tightrope.views import words
from tightrope.views.plan import PlanFacts
from tightrope.views.view import View


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A plan, and what its jump costs."""

    plan: Plan
    blackout: Blackout


def sheet(value: Planned) -> Sheet:
    """The whole screen."""
    below = tuple(Line(text, 2) for text in _below(value.blackout))
    budget = Section("blackout", (_items(value.blackout), *below))
    sheet = plan_view.sheet(value.plan)
    return Sheet((*sheet.sections, budget), headline=sheet.headline)


COLUMNS = (
    Column(heads=("time",), width=9, right=True),
    Column(heads=("what",), width=10, gap=2),
    Column(heads=("bytes",), width=9, right=True, gap=2),
    Column(heads=("instructions",), width=12, right=True, gap=2),
    Column(heads=("why",), width=3, gap=2),
)


def _items(budget: Blackout) -> Table:
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


class PlannedFacts(PlanFacts):
    """Everything that `tightrope plan --json` prints."""

    blackout: BlackoutFacts


def facts(value: Planned) -> PlannedFacts:
    """The plan as numbers."""
    budget = value.blackout
    return {
        **plan_view.facts(value.plan),
        "blackout": {
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
        },
    }


VIEW = View(name="plan", version=1, shape=PlannedFacts, sheet=sheet, facts=facts)
