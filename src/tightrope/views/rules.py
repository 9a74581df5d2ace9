"""The rules that a rehearsal is checked against, and the sabotages that break them, as lists.

Rules: what a rule asks, at which step, and who says so stands at the rule; nothing is said twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypedDict

from tightrope.model import Breakage, Criterion
from tightrope.model.sheet import Column, Pairs, Section, Sheet, Table
from tightrope.views.view import View

NAMES = 24
ASKED = (
    Column(heads=("rule",), width=24),
    Column(heads=("step",), width=4, right=True),
    Column(heads=("what has to hold",), width=60, gap=2),
    Column(heads=("who says so",), width=60, gap=2),
)


def sheet(rules: Sequence[Criterion]) -> Sheet:
    """Three lines a rule."""
    return Sheet((Section(None, (Pairs(rows=tuple(_rows(rules)), names=NAMES),)),))


def _rows(rules: Sequence[Criterion]) -> Iterator[tuple[str, str]]:
    for rule in rules:
        yield rule.rule, f"step {int(rule.step)}  {rule.says}"
        yield "", f"source: {rule.source}"
        yield "", f"mend: {rule.mend}"


def asked(*verdicts: Sequence[Criterion]) -> Iterator[Section]:
    """The rules that verdicts rest on, for a page: each once, with its sentence and who says so."""
    rules = tuple(dict.fromkeys(each for verdict in verdicts for each in verdict))
    yield from _asked(ASKED, [_asks(each) for each in rules])


def asked_of(verdicts: Iterable[Sequence[Criterion]], noun: str) -> Iterator[Section]:
    """The same for a table of many verdicts, each called a `noun`: how many were asked it, besides.

    A row that has no verdict was asked nothing, and does not count.
    """
    walked = [each for each in verdicts if each]
    yield from counted(Counter(rule for each in walked for rule in each), len(walked), noun)


def counted(times: Mapping[Criterion, int], walked: int, noun: str) -> Iterator[Section]:
    """The same of verdicts that are counted already: each rule, and of how many it was asked."""
    column = Column(heads=(f"{noun}s",), width=len(f"{walked:,} of {walked:,}"), right=True, gap=2)
    rows = [(*_asks(each), f"{number:,} of {walked:,}") for each, number in times.items()]
    yield from _asked((*ASKED, column), rows)


def _asked(columns: tuple[Column, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[Section]:
    if rows:
        table = Table(columns=columns, rows=tuple(rows))
        yield Section(f"rules asked: {len(rows)}", (table,), folded=True)


def _asks(rule: Criterion) -> tuple[str, ...]:
    return rule.rule, f"{int(rule.step)}", rule.says, rule.source


class RuleFacts(TypedDict):
    rule: str
    step: int
    says: str
    source: str
    mend: str


class RulesFacts(TypedDict):
    """Everything that `tightrope rules --json` prints."""

    rules: list[RuleFacts]


def _facts(rule: Criterion) -> RuleFacts:
    return {
        "rule": rule.rule,
        "step": int(rule.step),
        "says": rule.says,
        "source": rule.source,
        "mend": rule.mend,
    }


def facts(rules: Sequence[Criterion]) -> RulesFacts:
    """One object per rule."""
    return {"rules": [_facts(each) for each in rules]}


VIEW = View(name="rules", version=1, shape=RulesFacts, sheet=sheet, facts=facts)


def one(rule: Criterion) -> Sheet:
    """A rule alone: what it asks, who says so, what mends it, and how to see it broken."""
    step = f"step {int(rule.step)}" if rule.step else "before the walk"
    rows = [("asks", rule.says), ("at", step), ("says who", rule.source)]
    rows.append(("what mends it", rule.mend))
    tries = [f"tightrope rehearse --shipped --sabotage {each}" for each in rule.breakages]
    rows += [("see it broken" if not number else "", each) for number, each in enumerate(tries)]
    if not tries:
        rows.append(("see it broken", "no sabotage has this rule first; tests/check breaks it"))
    return Sheet((Section(rule.rule, (Pairs(rows=tuple(rows), names=NAMES, indent=2),)),))


class OneRuleFacts(RuleFacts):
    """Everything that `tightrope rules RULE --json` prints."""

    sabotages: list[str]


def one_facts(rule: Criterion) -> OneRuleFacts:
    """The same for programs."""
    return {**_facts(rule), "sabotages": list(rule.breakages)}


RULE = View(name="rule", version=1, shape=OneRuleFacts, sheet=one, facts=one_facts)


BREAKAGES = 26


def sabotages(breakages: Sequence[Breakage]) -> Sheet:
    """Two lines a sabotage: what it breaks, and what finds it."""
    every = Section(None, (Pairs(rows=tuple(_broken(breakages)), names=BREAKAGES),))
    answer = f"{len(breakages)} sabotages: `tightrope rehearse --shipped --sabotage NAME` makes one"
    return Sheet((every,), headline=answer)


def _broken(breakages: Sequence[Breakage]) -> Iterator[tuple[str, str]]:
    for each in breakages:
        where = f"step {int(each.step)}" if each.step else "before"
        yield each.name, each.says
        yield "", f"found by {each.rule}, {where}"


class SabotageFacts(TypedDict):
    sabotage: str
    says: str
    rule: str
    step: int


class SabotagesFacts(TypedDict):
    """Everything that `tightrope rehearse --sabotage list --json` prints."""

    sabotages: list[SabotageFacts]


def sabotage_facts(breakages: Sequence[Breakage]) -> SabotagesFacts:
    """One object per sabotage."""
    return {
        "sabotages": [
            {"sabotage": each.name, "says": each.says, "rule": each.rule, "step": int(each.step)}
            for each in breakages
        ]
    }


SABOTAGES = View(
    name="sabotages", version=1, shape=SabotagesFacts, sheet=sabotages, facts=sabotage_facts
)
