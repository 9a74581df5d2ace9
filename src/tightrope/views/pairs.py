"""Pairs of kernels: a row per old and new kernel, a column per mode and kind of kexec.

Rules: the pairs are done; what falls, and what cannot be told, is a number with its
reason below the table.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TypedDict

from tightrope.errors import visible
from tightrope.model import Loader, Outcome, Paging
from tightrope.model.pairs import Pair
from tightrope.model.sheet import Column, Line, Section, Sheet, Table
from tightrope.views import rules, words
from tightrope.views.view import View

CELL = 7
"""Characters of a verdict."""


def sheet(pairs: Sequence[Pair]) -> Sheet:
    """The table, what its numbers mean; the answer is how many hold."""
    reasons: dict[str, int] = {}
    columns = list(dict.fromkeys((_mode(pair), pair.crash) for pair in pairs))
    rows: dict[tuple[str, str], dict[tuple[str, bool], str]] = {}
    for pair in pairs:
        row = rows.setdefault((_name(pair.old), _name(pair.new)), {})
        row[_mode(pair), pair.crash] = _word(pair, reasons)
    table = Table(
        columns=(
            *(
                Column(heads=(head,), width=max((len(row[at]) for row in rows), default=0))
                for at, head in enumerate(("from", "to"))
            ),
            *(
                Column(heads=(mode, "crash" if crash else "kexec"), width=CELL)
                for mode, crash in columns
            ),
        ),
        rows=tuple(
            (*row, *(found.get(each, "") for each in columns)) for row, found in rows.items()
        ),
    )
    told = [pair for pair in pairs if pair.outcome is not None]
    holds = sum(pair.outcome is Outcome.HOLDS for pair in told)
    advised = sorted({rule for pair in pairs for rule in pair.advice})
    mends = {pair.detail: f": {pair.mend}" for pair in pairs if pair.mend}
    below = [
        Line(f"({number}) {reason}{mends.get(reason, '')}") for reason, number in reasons.items()
    ]
    if advised:
        below.append(Line(f"Advice, by which nothing falls: {', '.join(advised)}."))
    below.append(Line(f"Walked: the old kernels' own relocation code; {_whose(pairs)}."))
    below.extend(_more(pairs))
    untold = len(pairs) - len(told)
    headline = (
        f"{holds} of {len(told)} pairs hold, in {sum(pair.seconds for pair in pairs):.1f} s"
        + (f"; {untold} cannot be told" if untold else "")
    )
    asked = rules.asked_of((pair.asked for pair in pairs), "pair")
    return Sheet((Section(None, (table, *below)), *asked), headline=headline)


def _more(pairs: Sequence[Pair]) -> Iterator[Line]:
    """What the answers rest on, and where one of them is looked at."""
    told = [pair for pair in pairs if pair.outcome is not None]
    if not told:
        return
    asked = words.count(len({rule for pair in told for rule in pair.asked}), "rule")
    yield Line(
        f"Rests on: the example host of each mode, no machine of yours (`rehearse --host` takes one);"
        f" {asked} asked."
    )
    first = next((pair for pair in told if pair.outcome is Outcome.FALLS), told[0])
    which = "that falls" if first.outcome is Outcome.FALLS else "alone"
    yield Line(f"One pair {which}, step by step: {_alone(first)}")


def _alone(pair: Pair) -> str:
    """The command that rehearses it."""
    given = ["tightrope", "rehearse", pair.new, "--from", pair.old]
    if pair.paging is not None and pair.paging is not Paging.X86_64:
        given += ["--mode", pair.paging.value]
    if pair.crash:
        given += ["--crash"]
    if pair.loader is not Loader.TIGHTROPE:
        given += ["--loader", pair.loader.value]
    return visible(shlex.join([*given, "-v"]))


def _whose(pairs: Sequence[Pair]) -> str:
    """Whose segments, whose purgatory."""
    by = list(dict.fromkeys(each.by for each in pairs if each.by is not None))
    if not by:
        return "segments and entry stub are Tightrope's own"
    own = list(dict.fromkeys(each.purgatory for each in pairs if each.purgatory is not None))
    return f"segments of {', '.join(by)}; {', '.join(own) or 'no purgatory'}"


def _name(source: str) -> str:
    return source.rsplit("/", 1)[-1].removeprefix("vmlinuz-")


def _mode(pair: Pair) -> str:
    return "?" if pair.paging is None else pair.paging.value


def _word(pair: Pair, reasons: dict[str, int]) -> str:
    if pair.outcome is Outcome.HOLDS:
        return pair.outcome.value
    number = reasons.setdefault(pair.detail, len(reasons) + 1)
    return f"- ({number})" if pair.outcome is None else f"{pair.outcome.value} {number}"


class PairFacts(TypedDict):
    old: str
    old_version: str | None
    new: str
    new_version: str | None
    mode: str | None
    crash: bool
    outcome: str | None
    detail: str
    advice: list[str]
    loader: str
    by: str | None
    purgatory: str | None
    seconds: float


class PairsFacts(TypedDict):
    """Everything that `tightrope pairs --json` prints."""

    pairs: list[PairFacts]


def facts(pairs: Sequence[Pair]) -> PairsFacts:
    """One object per pair."""
    return {"pairs": [fact(pair) for pair in pairs]}


def fact(pair: Pair) -> PairFacts:
    """The object of one pair."""
    return {
        "old": pair.old,
        "old_version": pair.old_version,
        "new": pair.new,
        "new_version": pair.new_version,
        "mode": None if pair.paging is None else pair.paging.value,
        "crash": pair.crash,
        "outcome": None if pair.outcome is None else pair.outcome.value,
        "detail": pair.detail,
        "advice": list(pair.advice),
        "loader": pair.loader.value,
        "by": pair.by,
        "purgatory": pair.purgatory,
        "seconds": pair.seconds,
    }


VIEW = View(name="pairs", version=1, shape=PairsFacts, sheet=sheet, facts=facts)
