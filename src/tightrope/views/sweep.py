"""A sweep: how many hosts hold, which classes fall and by what, which hosts cannot be told.

Rules: hosts are shown by class and cause, never one by one beyond the first few; the rows are in
the file that the command writes.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TypedDict

from tightrope.model import Outcome
from tightrope.model.sheet import Column, Line, Section, Sheet, Table
from tightrope.model.sweep import Sweep, Swept
from tightrope.views import rules
from tightrope.views.view import View

NAMED = 3
"""Hosts of a class, or with a cause, that are named."""
MOST_DETAIL = 200
"""Characters of a cause."""


def sheet(sweep: Sweep) -> Sheet:
    """The answer, the classes that fall, the hosts that cannot be told, the classes that hold."""
    rows = sweep.rows
    falls = _by(rows, Outcome.FALLS)
    holds = _by(rows, Outcome.HOLDS)
    sections = []
    if falls:
        sections.append(Section("It falls", tuple(_falling(falls))))
    untold: dict[str, list[Swept]] = defaultdict(list)
    for row in rows:
        if row.answer.outcome is None:
            untold[_cause(row)].append(row)
    if untold:
        sections.append(
            Section(
                "It cannot be told",
                tuple(
                    Line(f"{_count(len(each), 'host')}: {cause} ({_named(each)})")
                    for cause, each in sorted(untold.items(), key=lambda item: -len(item[1]))
                ),
            )
        )
    if holds:
        sections.append(Section("It holds", (_table(holds),)))
    assumed = Counter(field for row in rows for field in row.assumed if row.answer.outcome)
    if assumed:
        text = ", ".join(
            f"{field} (of {_count(number, 'host')})" for field, number in assumed.most_common()
        )
        sections.append(Section("What rests on assumptions", (Line(text),)))
    sections.extend(rules.counted(sweep.asked, sweep.judged, "rehearsal"))
    return Sheet(tuple(sections), headline=_headline(sweep, falls, holds, len(untold)))


def _headline(
    sweep: Sweep,
    falls: dict[tuple[str, str], list[Swept]],
    holds: dict[tuple[str, str], list[Swept]],
    causes: int,
) -> str:
    hosts = len({row.host for row in sweep.rows})
    classes = len({row.group for row in sweep.rows if row.group})
    fallen = sum(len(each) for each in falls.values())
    untold = sum(row.answer.outcome is None for row in sweep.rows)
    text = f"{_count(hosts, 'host')}, {_count(classes, 'class')}: "
    held = sum(len(each) for each in holds.values())
    text += f"{_count(held, 'jump')} {'holds' if held == 1 else 'hold'}"
    text += f", {fallen} in {_count(len(falls), 'class')} {'falls' if fallen == 1 else 'fall'}"
    if untold:
        text += f", {untold} cannot be told, for {_count(causes, 'reason')}"
    walked = sum(row.walked for row in sweep.rows[sweep.before :])
    text += f"; {_count(walked, 'rehearsal')} in {sweep.seconds:.1f} s"
    if sweep.before:
        text += f", {sweep.before} known from before"
    return text


def _count(number: int, noun: str) -> str:
    plural = {"class": "classes"}.get(noun, f"{noun}s")
    return f"{number:,} {noun if number == 1 else plural}"


def _by(rows: Sequence[Swept], outcome: Outcome) -> dict[tuple[str, str], list[Swept]]:
    """The rows of an outcome by kernel and class, the largest first."""
    found: dict[tuple[str, str], list[Swept]] = defaultdict(list)
    for row in rows:
        if row.answer.outcome is outcome:
            found[_kernel(row), row.group or ""].append(row)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


def _falling(falls: dict[tuple[str, str], list[Swept]]) -> Iterator[Line]:
    for (kernel, group), rows in falls.items():
        answer = rows[0].answer
        yield Line(
            f"{_count(len(rows), 'host')} of class {group} into {kernel}: {answer.rule}, step"
            f" {answer.step}: {answer.detail} ({_named(rows)})"
        )


def _table(holds: dict[tuple[str, str], list[Swept]]) -> Table:
    rows = tuple(
        (kernel, group, f"{len(each):,}", ", ".join(each[0].answer.advice) or "-", _named(each))
        for (kernel, group), each in holds.items()
    )
    heads = ("into", "class", "hosts", "advice", "such as")
    return Table(
        columns=tuple(
            Column(heads=(head,), width=max(len(head), *(len(row[at]) for row in rows)))
            for at, head in enumerate(heads)
        ),
        rows=rows,
    )


def _kernel(row: Swept) -> str:
    name = row.new.rsplit("/", 1)[-1].removeprefix("vmlinuz-")
    return f"{name}, crash" if row.crash else name


def _cause(row: Swept) -> str:
    """Why a host cannot be told, without its own name, so that equal causes are one."""
    return row.answer.detail.removeprefix(row.host).lstrip(": ")[:MOST_DETAIL]


def _named(rows: Sequence[Swept]) -> str:
    names = list(dict.fromkeys(row.host.rsplit("/", 1)[-1] for row in rows))
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


class ClassFacts(TypedDict):
    new: str
    crash: bool
    group: str
    """The key of the class."""
    outcome: str
    rule: str | None
    step: int | None
    detail: str
    advice: list[str]
    hosts: int
    walked: str | None
    """The host of it that was rehearsed, if that was in this file's run."""


class UntoldFacts(TypedDict):
    host: str
    new: str
    crash: bool
    detail: str


class SweepFacts(TypedDict):
    """Everything that `tightrope sweep --json` prints; each host's row is in the file of --out."""

    hosts: int
    rows: int
    known_before: int
    classes: list[ClassFacts]
    cannot_be_told: list[UntoldFacts]
    seconds: float


def facts(sweep: Sweep) -> SweepFacts:
    """One object per class, and one per host that cannot be told."""
    classes: list[ClassFacts] = []
    for outcome in (Outcome.FALLS, Outcome.HOLDS):
        for (_, group), rows in _by(sweep.rows, outcome).items():
            first = rows[0]
            classes.append(
                {
                    "new": first.new,
                    "crash": first.crash,
                    "group": group,
                    "outcome": outcome.value,
                    "rule": first.answer.rule,
                    "step": first.answer.step,
                    "detail": first.answer.detail,
                    "advice": list(first.answer.advice),
                    "hosts": len(rows),
                    "walked": next((row.host for row in rows if row.walked), None),
                }
            )
    return {
        "hosts": len({row.host for row in sweep.rows}),
        "rows": len(sweep.rows),
        "known_before": sweep.before,
        "classes": classes,
        "cannot_be_told": [
            {"host": row.host, "new": row.new, "crash": row.crash, "detail": row.answer.detail}
            for row in sweep.rows
            if row.answer.outcome is None
        ],
        "seconds": sweep.seconds,
    }


VIEW = View(name="sweep", version=1, shape=SweepFacts, sheet=sheet, facts=facts)
