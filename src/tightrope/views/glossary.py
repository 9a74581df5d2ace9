"""The words that reports use, as a list.

Rules: what a word means stands at the word, in `model.glossary`; nothing is said twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

from tightrope.model.glossary import Term
from tightrope.model.sheet import Pairs, Section, Sheet
from tightrope.views.view import View

NAMES = 16


def sheet(terms: Sequence[Term]) -> Sheet:
    """Each word, what it means, and where it comes from."""
    rows = tuple((each.word, f"{each.means} ({each.source})") for each in terms)
    return Sheet((Section(None, (Pairs(rows=rows, names=NAMES),)),))


class TermFacts(TypedDict):
    word: str
    means: str
    source: str


class GlossaryFacts(TypedDict):
    """Everything that `tightrope glossary --json` prints."""

    terms: list[TermFacts]


def facts(terms: Sequence[Term]) -> GlossaryFacts:
    """One object per word."""
    return {
        "terms": [{"word": each.word, "means": each.means, "source": each.source} for each in terms]
    }


VIEW = View(name="glossary", version=1, shape=GlossaryFacts, sheet=sheet, facts=facts)
