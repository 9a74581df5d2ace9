"""What this computer has of what tightrope uses: a line a part, and what each missing one costs.

Rules: a part that is missing says what cannot be done and how to get it; one that is there says
which it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from tightrope.model.health import Part
from tightrope.model.sheet import Pairs, Section, Sheet, Span, Text, Tone
from tightrope.views import words
from tightrope.views.view import View

NAMES = 24


def sheet(parts: Sequence[Part]) -> Sheet:
    """What is here, and what is not."""
    here = tuple((each.name, each.found) for each in parts if each.found is not None)
    missing = [each for each in parts if each.found is None]
    rows = [
        row
        for each in missing
        for row in ((each.name, f"for {each.costs}"), ("", f"to get it: {each.mend}"))
    ]
    sections = [Section("here", (Pairs(rows=here, names=NAMES, indent=2),))]
    if missing:
        sections.append(Section("not here", (Pairs(rows=tuple(rows), names=NAMES, indent=2),)))
    return Sheet(tuple(sections), headline=headline(parts))


def headline(parts: Sequence[Part]) -> Text:
    """Whether a rehearsal can be done here."""
    missing = [each for each in parts if each.found is None]
    lacking = [each.name for each in missing if each.needed]
    if lacking:
        return (Span("No rehearsal here", Tone.WORST), f": {', '.join(lacking)} missing")
    rest = f"; {words.count(len(missing), 'part')} missing" if missing else "; nothing missing"
    return (Span("Rehearsals can be done here", Tone.GOOD), rest)


class PartFacts(TypedDict):
    name: str
    found: str | None
    costs: str
    mend: str
    needed: bool


class DoctorFacts(TypedDict):
    """Everything that `tightrope doctor --json` prints."""

    parts: list[PartFacts]


def facts(parts: Sequence[Part]) -> DoctorFacts:
    """One object per part."""
    return {
        "parts": [
            {
                "name": each.name,
                "found": each.found,
                "costs": each.costs,
                "mend": each.mend,
                "needed": each.needed,
            }
            for each in parts
        ]
    }


VIEW = View(name="doctor", version=1, shape=DoctorFacts, sheet=sheet, facts=facts)
