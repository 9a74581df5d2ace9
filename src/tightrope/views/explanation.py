"""A log explained: how it ended, where that was, and what would leave such a log.

Rules: what the log says, what follows from it and what was rehearsed are told apart in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from tightrope.model.corpse import Candidate, Ending, Explanation, Phase, Raised, Remains
from tightrope.model.sheet import Block, Line, Pairs, Section, Sheet, Span, Text, Tone
from tightrope.views import words
from tightrope.views.view import View
from tightrope.x86.cpu import VECTORS

NAMES = 12
SHOWN = 6
"""Remains that are shown: the last ones."""
REGISTERS = ("cr0", "cr2", "cr3", "cr4", "efer", "rsp", "idt", "idt_limit", "gdt", "gdt_limit")


def sheet(value: Explanation) -> Sheet:
    """How it ended; where; the candidates; what the log does not say."""
    return Sheet(tuple(_sections(value)), headline=headline(value))


def headline(value: Explanation) -> Text:
    """The answer in one line that stands alone."""
    last = value.last
    if last is None:
        return (Span("Not explained", Tone.HEAD), f": {value.source}: {value.limits[0]}")
    where = _where(value)
    if last.ending is Ending.WENT_ON:
        return (Span("Nothing fell", Tone.GOOD), f": {value.source}: {last.words}")
    if last.ending is Ending.LAST_WORD:
        what = exception(last.raised[0]) if last.raised else last.words
        return (Span("It ends", Tone.HEAD), f": {value.source}, line {last.line}: {what}{where}")
    what = exception(last.raised[0]) if last.raised else last.words
    kind = f"{last.ending.value}: " if last.raised else ""
    return (Span("It fell", Tone.WORST), f": {value.source}, line {last.line}: {kind}{what}{where}")


def exception(raised: Raised) -> str:
    """An exception in a few words."""
    said = VECTORS.get(raised.vector, "an exception that the log does not name")
    if raised.error_code is not None:
        said += f" (error {raised.error_code:#x})"
    if raised.rip is not None:
        said += f" at {raised.rip:#x}"
    if raised.address is not None:
        said += f", address {raised.address:#x}"
    return said


def _where(value: Explanation) -> str:
    said = f"; step {int(value.step)}" if value.step else ""
    if value.place:
        said += f", {value.place}" if said else f"; {value.place}"
    elif value.phase not in (Phase.UNKNOWN, Phase.WALK):
        said += f"; {value.phase.value} had the CPU"
    return said


def _sections(value: Explanation) -> Iterator[Section]:
    last = value.last
    if last is not None:
        yield Section("the log says", tuple(_said(value, last)))
    there = list(_there(value))
    if there:
        yield Section("where", (Pairs(rows=tuple(there), names=NAMES, indent=2),))
    if value.candidates:
        yield Section("what would leave such a log, the likeliest first", tuple(_causes(value)))
    if value.limits:
        lines = tuple(Line(each, 2) for each in value.limits)
        yield Section("what it does not say", lines)


def _said(value: Explanation, last: Remains) -> Iterator[Block]:
    rows = [(f"line {each.line:,}", each.words) for each in value.remains[-SHOWN:]]
    yield Pairs(rows=tuple(rows), names=NAMES, indent=2)
    for number, each in enumerate(last.raised):
        how = "raised" if number == 0 else "delivering it raised"
        yield Line(f"{how} {exception(each)}", 2)
    if last.raised and last.raised[0].registers:
        had = last.raised[0].registers
        shown = [f"{name} {had[name]:#x}" for name in REGISTERS if name in had]
        yield Line("  ".join(shown), 2)
        others = [f"{name} {got:#x}" for name, got in had.items() if name not in REGISTERS]
        if others:
            yield Line("  ".join(others), 2, detail=True)


def _there(value: Explanation) -> Iterator[tuple[str, str]]:
    if value.phase is not Phase.UNKNOWN:
        yield "CPU", value.phase.value
    if value.step is not None:
        yield "step", f"{int(value.step)} of the walk"
    for name, said in (
        ("place", value.place),
        ("instruction", value.instruction),
        ("entry", value.entry),
        ("beside", value.compared_with),
    ):
        if said is not None:
            yield name, said


def _causes(value: Explanation) -> Iterator[Block]:
    shown = [each for each in value.candidates if each.rehearsed is not False]
    for number, each in enumerate(shown, 1):
        yield Line(f"{number}. {each.cause}", 2)
        rows = [("for", said) for said in each.speaks_for]
        rows += [("against", said) for said in each.speaks_against]
        if rows:
            yield Pairs(rows=tuple(rows), names=8, indent=5)
    out = [each for each in value.candidates if each.rehearsed is False]
    if out:
        tried = words.count(len(out), "mistake")
        yield Line(f"{tried} rehearsed and ruled out:", 2)
        for each in out:
            yield Line(f"{each.cause}: {'; '.join(each.speaks_against)}", 5)


class RaisedFacts(TypedDict):
    vector: int
    error_code: int | None
    rip: int | None
    address: int | None
    registers: dict[str, int]


class RemainsFacts(TypedDict):
    kind: str
    line: int
    offset: int
    ending: str
    phase: str
    words: str
    raised: list[RaisedFacts]
    cut: bool


class CandidateFacts(TypedDict):
    cause: str
    speaks_for: list[str]
    speaks_against: list[str]
    rehearsed: bool | None


class ExplanationFacts(TypedDict):
    """Everything that `tightrope explain --json` prints."""

    source: str
    size: int
    fell: bool | None
    phase: str
    step: int | None
    place: str | None
    instruction: str | None
    entry: str | None
    compared_with: str | None
    remains: list[RemainsFacts]
    candidates: list[CandidateFacts]
    limits: list[str]


def facts(value: Explanation) -> ExplanationFacts:
    """The same as values."""
    return {
        "source": value.source,
        "size": value.size,
        "fell": value.fell,
        "phase": value.phase.value,
        "step": None if value.step is None else int(value.step),
        "place": value.place,
        "instruction": value.instruction,
        "entry": value.entry,
        "compared_with": value.compared_with,
        "remains": [_remains(each) for each in value.remains],
        "candidates": [_candidate(each) for each in value.candidates],
        "limits": list(value.limits),
    }


def _remains(each: Remains) -> RemainsFacts:
    return {
        "kind": each.kind.value,
        "line": each.line,
        "offset": each.offset,
        "ending": each.ending.value,
        "phase": each.phase.value,
        "words": each.words,
        "raised": [
            {
                "vector": raised.vector,
                "error_code": raised.error_code,
                "rip": raised.rip,
                "address": raised.address,
                "registers": dict(raised.registers),
            }
            for raised in each.raised
        ],
        "cut": each.cut,
    }


def _candidate(each: Candidate) -> CandidateFacts:
    return {
        "cause": each.cause,
        "speaks_for": list(each.speaks_for),
        "speaks_against": list(each.speaks_against),
        "rehearsed": each.rehearsed,
    }


VIEW = View(name="explain", version=1, shape=ExplanationFacts, sheet=sheet, facts=facts)
