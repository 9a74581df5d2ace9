"""A kexec watched in a guest: what was said before it was let go, and the places that it came to.

Rules: the verdict is shown as a rehearsal's is, by the same sections; what was seen comes below it.
Advice on a kernel's own code is one line: JSON has it whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypedDict

from tightrope.model import Outcome, Stop
from tightrope.model.sheet import Column, Line, Section, Sheet, Span, Table, Text, Tone
from tightrope.model.watched import Watched
from tightrope.views import rehearsal, words
from tightrope.views.rehearsal_facts import RehearsalFacts
from tightrope.views.rehearsal_facts import facts as rehearsal_facts
from tightrope.views.view import View

STAGES = (
    ("the purgatory", "copy", "the tables are switched and the pages copied"),
    ("the new kernel's entry", "digest", "the purgatory, SHA-256 of what was loaded"),
    ("it is unpacked", "unpack", "the new kernel's decompressor"),
)
"""A place, and in `plan`'s words what takes the time before it."""
FIRST_LINE = ("first line", "the new kernel, up to its first line on the console")


def sheet(value: Watched) -> Sheet:
    """The verdict, and what then happened."""
    inner = rehearsal.sheet(replace(value.verdict, advice=()))
    first = 1 if value.verdict.findings else 0  # what is wrong comes before what came of it
    sections = (
        *inner.sections[:first],
        *_seen(value),
        *_advice(value),
        *_unwalked(value),
        *inner.sections[first:],
    )
    return Sheet(sections, headline=headline(value))


def headline(value: Watched) -> Text:
    """The answer in one line: what was said of it, and what it did."""
    version = (value.version or "").split(" ", 1)[0]
    who = f"the guest's {value.kernel} {version}"
    found = value.verdict.findings
    did = _did(value)
    if found:
        step = f" at step {int(found[0].step)}" if found[0].step else ""
        return (
            Span("It falls", Tone.WORST),
            f"{step}: {who}: {found[0].message} ({found[0].rule}); {did}",
        )
    word = "It holds" if value.verdict.outcome is Outcome.HOLDS else "No verdict"
    return (Span(word, Tone.GOOD), f": {who}; {did}")


def _did(value: Watched) -> str:
    if value.standing:
        return "it stands at the call, and the gdb port is free"
    last = value.passed[-1].name if value.passed else "the call"
    if value.heard is not None:
        return f"let go, and its first line came after {value.heard.seconds:.2f} s"
    if value.ended is None:
        return f"let go, and it came to {last}"
    return f"let go, and behind {last} it came no further: {value.ended}"


def _advice(value: Watched) -> Iterator[Section]:
    """What is weak in a kernel's own code is no news of this guest: its rules alone are named."""
    rules = ", ".join(dict.fromkeys(each.rule for each in value.verdict.advice))
    if rules:
        said = f"weak in this kernel's own code, and nothing fell by it (tightrope rules): {rules}"
        yield Section(None, (Line(said),))


def _unwalked(value: Watched) -> Iterator[Section]:
    """A verdict without a walk says so, whoever left it out."""
    run = value.verdict.run
    if run.stop is Stop.LIMIT and not run.instructions:
        said = "not walked on the emulator: what lies in memory was checked, and no more"
        yield Section(None, (Line(said),))


def _seen(value: Watched) -> Iterator[Section]:
    if not value.passed:
        return
    rows = tuple(
        (
            f"{each.seconds * 1000:,.1f}",
            "-" if each.step is None else str(int(each.step)),
            f"{each.rip:#x}",
            f"{each.cr3:#x}",
            each.name,
        )
        for each in value.passed
    )
    yield Section(
        "seen in the guest, let go",
        (
            Table(
                columns=(
                    Column(heads=("ms",), width=10, right=True),
                    Column(heads=("step",), width=4, right=True),
                    Column(heads=("rip",), width=18),
                    Column(heads=("CR3",), width=12),
                    Column(heads=("",), width=1),
                ),
                rows=rows,
                indent=2,
            ),
            Line(
                "ms: since the call, by the guest's own time, which stands while it is stopped", 2
            ),
        ),
    )
    if value.heard is not None:
        yield Section("its first line", (Line(words.shown(value.heard.line), 2),))
    parts = list(blackout(value))
    if parts:
        spent = tuple((_milliseconds(each.seconds), each.what, each.why) for each in parts)
        whole = (
            _milliseconds(sum(each.seconds for each in parts)),
            "in all",
            "as far as it was seen",
        )
        yield Section(
            "blackout",
            (
                Table(
                    columns=(
                        Column(heads=("ms",), width=10, right=True),
                        Column(heads=("what",), width=10),
                        Column(heads=("",), width=1),
                    ),
                    rows=(*spent, whole),
                    indent=2,
                ),
            ),
        )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f}"


class PartFacts(TypedDict):
    what: str
    seconds: float
    why: str


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the blackout, in seconds."""

    what: str
    seconds: float
    why: str


def blackout(value: Watched) -> Iterator[Part]:
    """Where the time went between the call and the last that was seen."""
    at = {each.name: each.seconds for each in value.passed}
    before = 0.0
    for name, what, why in STAGES:
        if name not in at:
            continue
        # A kexec without a purgatory copies up to the new kernel's entry.
        first = before == 0.0
        what, why = STAGES[0][1:] if first else (what, why)
        yield Part(what, at[name] - before, why)
        before = at[name]
    if value.heard is not None:
        yield Part(FIRST_LINE[0], value.heard.seconds - before, FIRST_LINE[1])


class PassedFacts(TypedDict):
    name: str
    step: int | None
    rip: int
    cr3: int
    seconds: float


class WatchedFacts(TypedDict):
    """Everything that `tightrope watch --json` prints."""

    kernel: str
    version: str | None
    text: int
    passed: list[PassedFacts]
    blackout: list[PartFacts]
    ended: str | None
    first_line: str | None
    first_line_seconds: float | None
    standing: bool
    rehearsal: RehearsalFacts


def facts(value: Watched) -> WatchedFacts:
    """The same as values."""
    return {
        "kernel": value.kernel,
        "version": value.version,
        "text": value.text,
        "passed": [
            {
                "name": each.name,
                "step": None if each.step is None else int(each.step),
                "rip": each.rip,
                "cr3": each.cr3,
                "seconds": each.seconds,
            }
            for each in value.passed
        ],
        "blackout": [
            {"what": each.what, "seconds": each.seconds, "why": each.why}
            for each in blackout(value)
        ],
        "ended": value.ended,
        "first_line": None if value.heard is None else value.heard.line,
        "first_line_seconds": None if value.heard is None else value.heard.seconds,
        "standing": value.standing,
        "rehearsal": rehearsal_facts(value.verdict),
    }


VIEW = View(name="watch", version=1, shape=WatchedFacts, sheet=sheet, facts=facts)
