"""A kexec watched in a guest: what was said before it was let go, and the places that it came to.

Rules: the verdict is shown as a rehearsal's is, by the same sections; what was seen comes below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from tightrope.model import Outcome
from tightrope.model.sheet import Column, Line, Section, Sheet, Span, Table, Text, Tone
from tightrope.model.watched import Passed, Watched
from tightrope.views import rehearsal
from tightrope.views.rehearsal_facts import RehearsalFacts
from tightrope.views.rehearsal_facts import facts as rehearsal_facts
from tightrope.views.view import View

STAGES = (
    ("the new kernel's entry", "copy and purgatory"),
    ("it is unpacked", "the new kernel unpacks itself"),
    ("its first word", "the new kernel up to its first word"),
)
"""A place, and what is done before it: `plan`'s words for where a blackout goes."""


def sheet(value: Watched) -> Sheet:
    """The verdict, and what then happened."""
    inner = rehearsal.sheet(value.verdict)
    return Sheet((*_seen(value), *inner.sections), headline=headline(value))


def headline(value: Watched) -> Text:
    """The answer in one line: what was said of it, and what it did."""
    version = (value.version or "").split(" ", 1)[0]
    who = f"the guest's Linux {version}"
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
    if value.ended is None:
        return f"let go, and it came to {last}"
    return f"let go, and behind {last} it came no further: {value.ended}"


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
    parts = list(blackout(value.passed))
    if parts:
        lines = tuple(Line(f"{seconds * 1000:9,.1f} ms  {what}", 2) for what, seconds in parts)
        yield Section("where the blackout goes", lines)


def blackout(passed: tuple[Passed, ...]) -> Iterator[tuple[str, float]]:
    """What was done between one place and the next, in seconds, as far as it was seen."""
    at = {each.name: each.seconds for each in passed}
    walk = at.get("the purgatory", at.get("the new kernel's entry"))
    before = 0.0
    if walk is not None:
        yield "relocation: the tables are switched and the pages copied", walk
        before = walk
    for name, what in STAGES:
        if name not in at:
            continue
        if what == "copy and purgatory":
            if "the purgatory" in at:
                yield "purgatory: the digest of what was loaded", at[name] - before
        else:
            yield what, at[name] - before
        before = at[name]


class PassedFacts(TypedDict):
    name: str
    step: int | None
    rip: int
    cr3: int
    seconds: float


class PartFacts(TypedDict):
    what: str
    seconds: float


class WatchedFacts(TypedDict):
    """Everything that `tightrope watch --json` prints."""

    version: str | None
    text: int
    passed: list[PassedFacts]
    blackout: list[PartFacts]
    ended: str | None
    standing: bool
    rehearsal: RehearsalFacts


def facts(value: Watched) -> WatchedFacts:
    """The same as values."""
    return {
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
            {"what": what, "seconds": seconds} for what, seconds in blackout(value.passed)
        ],
        "ended": value.ended,
        "standing": value.standing,
        "rehearsal": rehearsal_facts(value.verdict),
    }


VIEW = View(name="watch", version=1, shape=WatchedFacts, sheet=sheet, facts=facts)
