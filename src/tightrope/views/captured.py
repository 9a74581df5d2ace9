"""What a capture has put on the disk.

Rules: as every view: the sheet and the facts say the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from tightrope.errors import visible
from tightrope.kdump.capture import Captured
from tightrope.model.sheet import Pairs, Section, Sheet, Span, Text, Tone
from tightrope.views import words
from tightrope.views.view import View

_NAMES = 8


def sheet(done: Captured) -> Sheet:
    """Where it is, how large, and what is known of it."""
    return Sheet(
        (Section(None, (Pairs(rows=tuple(_rows(done)), names=_NAMES),)),), headline=headline(done)
    )


def headline(done: Captured) -> Text:
    """Where it is, and whether its tables are whole."""
    tone = Tone.WORST if done.whole is False else Tone.GOOD
    return (f"{done.copied.path}: ", Span("saved", tone), f"; the pgd: {done.verdict}")


def _rows(done: Captured) -> Iterator[tuple[str, str]]:
    size = f"{words.size(done.copied.size)}, {words.size(done.taken)} on the disk"
    yield "dump", f"{done.copied.path}: {size}, in {done.seconds:.1f} s"
    if done.copied.resumed:
        yield "", f"{words.size(done.copied.resumed)} of it were there from an earlier try"
    yield "sha256", done.copied.sha256 or "not computed, as asked"
    if done.log is None:
        yield "log", f"none: {done.no_log}"
    else:
        yield "log", f"{done.log}: {words.count(done.log_lines, 'line')}"
    if done.panic:
        yield "panic", visible(done.panic)
    yield "pgd", done.verdict


class CapturedFacts(TypedDict):
    """Everything that `tightrope kdump capture --json` prints."""

    dump: str
    size: int
    taken: int
    resumed: int
    seconds: float
    sha256: str | None
    log: str | None
    log_lines: int
    no_log: str
    panic: str | None
    whole: bool | None
    verdict: str


def facts(done: Captured) -> CapturedFacts:
    """The same as plain data."""
    return {
        "dump": str(done.copied.path),
        "size": done.copied.size,
        "taken": done.taken,
        "resumed": done.copied.resumed,
        "seconds": done.seconds,
        "sha256": done.copied.sha256,
        "log": None if done.log is None else str(done.log),
        "log_lines": done.log_lines,
        "no_log": done.no_log,
        "panic": done.panic,
        "whole": done.whole,
        "verdict": done.verdict,
    }


VIEW = View(name="kdump capture", version=1, shape=CapturedFacts, sheet=sheet, facts=facts)
