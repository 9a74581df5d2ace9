"""Proofs, goal by goal as they come, and the mutants that they kill.

    tables  only-v-and-p: V and P lead to P, ...
              i386           holds in all of 804 cases, by enumeration         (0.01 s)
              pae            fails, as the theorem says: P = 0x100000000 (...)  (0.00 s)
    code    theirs.S: theirs.S keeps the contract two-tables
              x86_64         COUNTEREXAMPLE: at 0xa: ... the reason ...         (0.53 s)
                  with V = 0xffffffff9ac01000, P = 0x10ed9b000, ...

Rules: one line a goal, under a heading a statement; what was not decided says why.  A
counterexample that nobody expected may take more: the reason first, then the input.  One about
code says where, when, and what was seen, a label each.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

from tightrope.model.proof import Answer, Fate, Judged, Killed
from tightrope.model.sheet import Block, Line, Section, Sheet
from tightrope.views.view import View

COLUMNS = 110
PLAN = "plan"
"""The word for hypotheses on one plan: they are not for all values, and say so."""


def heading(judged: Judged) -> str:
    """The statement that the lines below it are about."""
    return f"{judged.theorem}  {judged.name}: {judged.statement}"


def line(judged: Judged) -> str:
    """One goal."""
    where = " ".join(filter(None, (judged.mode, judged.design))) or "every mode"
    text = f"    {where:<20} {_answer(judged)}  ({judged.result.seconds:.2f} s)"
    if not _surprise(judged) or not judged.result.detail:
        return text
    indent = " " * 8
    example = judged.result.counterexample or {}
    below = (
        [_labelled(indent, *each) for each in judged.result.told.items()]
        if judged.result.told
        else _pairs_in_lines(f"{indent}with ", example)
    )
    head = textwrap.fill(text, COLUMNS, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join((head, *below))


def _labelled(indent: str, label: str, text: str) -> str:
    """A label and its text beside it; no `name = value` is broken between two lines."""
    if " = " in text:
        text = ", ".join(pair.replace(" ", "\0") for pair in text.split(", "))
    begin = f"{indent}{label:<8} "
    wrapped = textwrap.fill(
        text,
        COLUMNS,
        initial_indent=begin,
        subsequent_indent=" " * len(begin),
        break_on_hyphens=False,
        break_long_words=False,
    )
    return wrapped.replace("\0", " ")


def _surprise(judged: Judged) -> bool:
    """A counterexample to something that should hold."""
    fails = judged.result.answer is Answer.FAILS
    return fails and not judged.as_stated and judged.theorem != PLAN


def _pairs_in_lines(begin: str, values: Mapping[str, str]) -> Iterator[str]:
    """All `name = value`, no pair broken between two lines."""
    line = begin
    for number, (name, value) in enumerate(values.items(), 1):
        pair = f"{name} = {value}{',' * (number < len(values))} "
        if len(line) + len(pair) > COLUMNS and line.strip():
            yield line.rstrip()
            line = " " * len(begin)
        line += pair
    if values:
        yield line.rstrip()


def _answer(judged: Judged) -> str:
    result = judged.result
    example = ", ".join(
        f"{name} = {value}" for name, value in (result.counterexample or {}).items()
    )
    reason = f" ({result.detail})" if result.detail else ""
    if judged.theorem == PLAN:
        return f"holds{reason}" if judged.as_stated else f"does not hold: {example}"
    if result.answer is Answer.UNDECIDED:
        return f"not decided: {result.detail}"
    if result.answer is Answer.HOLDS:
        number = "for all values" if result.cases is None else f"in all of {_cases(result.cases)}"
        text = f"holds {number}, by {result.how}{reason}"
        return text if judged.as_stated else f"UNEXPECTED: {text}, and the theorem says it fails"
    if judged.as_stated:
        return f"fails, as the theorem says: {example}{reason}"
    return f"COUNTEREXAMPLE: {result.detail or example}"


def _cases(number: int) -> str:
    return "1 case" if number == 1 else f"{number} cases"


def summary(goals: Sequence[Judged]) -> str:
    """The last line."""
    undecided = sum(each.result.answer is Answer.UNDECIDED for each in goals)
    wrong = sum(not each.as_stated for each in goals) - undecided
    right = len(goals) - wrong - undecided
    seconds = sum(each.result.seconds for each in goals)
    what = (
        "hypotheses hold on this plan"
        if all(each.theorem == PLAN for each in goals)
        else "goals are as the theorems say"
    )
    parts = [f"{right} of {len(goals)} {what}"]
    parts += [f"{wrong} not"] if wrong else []
    parts += [f"{undecided} not decided"] if undecided else []
    return f"{', '.join(parts)}; {seconds:.1f} s"


def sheet(goals: Sequence[Judged]) -> Sheet:
    """All goals under their statements, and the last line."""
    blocks: list[Block] = []
    shown = None
    for each in goals:
        if heading(each) != shown:
            shown = heading(each)
            blocks.append(Line(shown))
        blocks += (Line(text) for text in line(each).split("\n"))
    return Sheet((Section(None, (*blocks, Line(summary(goals)))),))


class GoalFacts(TypedDict):
    theorem: str
    name: str
    statement: str
    mode: str | None
    design: str | None
    expected: str
    answer: str
    how: str
    cases: int | str
    seconds: float
    counterexample: dict[str, str] | None
    detail: str
    told: dict[str, str] | None


class ProofFacts(TypedDict):
    """Everything that `tightrope prove --json` prints."""

    goals: list[GoalFacts]


def facts(goals: Sequence[Judged]) -> ProofFacts:
    """The same as plain data."""
    return {
        "goals": [
            {
                "theorem": each.theorem,
                "name": each.name,
                "statement": each.statement,
                "mode": None if each.mode is None else each.mode.value,
                "design": each.design,
                "expected": each.expected.value,
                "answer": each.result.answer.value,
                "how": each.result.how,
                "cases": "all" if each.result.cases is None else each.result.cases,
                "seconds": round(each.result.seconds, 3),
                "counterexample": dict(each.result.counterexample)
                if each.result.counterexample
                else None,
                "detail": each.result.detail,
                "told": dict(each.result.told) if each.result.told else None,
            }
            for each in goals
        ]
    }


VIEW = View(name="prove", version=1, shape=ProofFacts, sheet=sheet, facts=facts)


# ------------------------------------------------------------------------------------- mutants


def mutant_line(killed: Killed) -> str:
    """One mutant."""
    who = f"{killed.subject}: {killed.says}"
    if killed.fate is Fate.KILLED:
        return f"killed      {who}\n            by {killed.by}: {killed.evidence}"
    return f"{killed.fate.value:<11} {who}\n            {killed.evidence}"


def mutant_summary(mutants: Sequence[Killed]) -> str:
    """The last line."""
    counts = ", ".join(
        f"{number} {fate.value}"
        for fate in Fate
        if (number := sum(each.fate is fate for each in mutants))
    )
    return f"{len(mutants)} mutants: {counts}; {sum(each.seconds for each in mutants):.1f} s"


def mutant_sheet(mutants: Sequence[Killed]) -> Sheet:
    """All mutants, and the last line."""
    lines = (Line(text) for each in mutants for text in mutant_line(each).split("\n"))
    return Sheet((Section(None, (*lines, Line(mutant_summary(mutants)))),))


class KilledFacts(TypedDict):
    subject: str
    name: str
    says: str
    fate: str
    by: str
    evidence: str
    seconds: float


class MutantFacts(TypedDict):
    """Everything that `tightrope prove --mutants --json` prints."""

    mutants: list[KilledFacts]


def mutant_facts(mutants: Sequence[Killed]) -> MutantFacts:
    """The same as plain data."""
    return {
        "mutants": [
            {
                "subject": each.subject,
                "name": each.name,
                "says": each.says,
                "fate": each.fate.value,
                "by": each.by,
                "evidence": each.evidence,
                "seconds": round(each.seconds, 3),
            }
            for each in mutants
        ]
    }


MUTANTS = View(
    name="prove mutants", version=1, shape=MutantFacts, sheet=mutant_sheet, facts=mutant_facts
)
