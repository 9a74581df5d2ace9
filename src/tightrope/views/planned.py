"""A plan with its blackout budget: what `tightrope plan` shows.

Rules: as `plan`, and as `blackout`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.model import Plan
from tightrope.model.blackout import Blackout
from tightrope.model.sheet import Sheet
from tightrope.views import blackout
from tightrope.views import plan as plan_view
from tightrope.views.blackout import BlackoutFacts
from tightrope.views.plan import PlanFacts
from tightrope.views.view import View


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A plan, and what its jump costs."""

    plan: Plan
    blackout: Blackout


def sheet(value: Planned) -> Sheet:
    """The whole screen."""
    sheet = plan_view.sheet(value.plan)
    return Sheet((*sheet.sections, blackout.section(value.blackout)), headline=sheet.headline)


class PlannedFacts(PlanFacts):
    """Everything that `tightrope plan --json` prints."""

    blackout: BlackoutFacts


def facts(value: Planned) -> PlannedFacts:
    """The plan as numbers."""
    return {**plan_view.facts(value.plan), "blackout": blackout.facts(value.blackout)}


VIEW = View(name="plan", version=1, shape=PlannedFacts, sheet=sheet, facts=facts)
