"""Whose segments and whose purgatory were walked, in a line each, and what the purgatory did.

Rules: what it did is what the machine saw of it: the pages of other segments that it read are what
it digested.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

import numpy as np

from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent
from tightrope.model import Bare, Kind, Loaded, Loader, Participant, Plan, Sight, Verdict
from tightrope.model.handover import Handover
from tightrope.views import words

RATE = 113 << 20
"""Bytes a second of kexec-tools' SHA-256 on one server (an EPYC, gcc -O2; docs/loaders.md)."""


class SegmentsFacts(TypedDict):
    """Who placed the segments; of a purgatory, what it took in."""

    loader: str
    by: str | None
    purgatory: str | None
    digested: int | None
    instructions: int | None


def lines(verdict: Verdict) -> Iterator[tuple[str, str]]:
    """The two lines of the report's head."""
    built = verdict.handover
    if not isinstance(built.intent.through, Bare):
        return
    loaded = _loaded(built)
    if loaded is None:
        yield (
            "segments",
            f"{words.OURS}; --loader kexec-tools or file-load, or --segments FILE, walks theirs",
        )
    else:
        yield (
            "segments",
            f"{len(built.intent.segments)} of {loaded.by}, {words.size(_room(built))}",
        )
    program = _purgatory(built)
    if program is None:
        what = (
            "Tightrope's entry stub stands in its place"
            if loaded is None
            else "the kernel is entered at once"
        )
        yield "purgatory", f"none: {what}"
        return
    yield "purgatory", f"{program.name}{_did(verdict)}"


def _did(verdict: Verdict) -> str:
    """What it took in and how long that takes a machine, as far as it was seen."""
    took, count = _taken(verdict), _instructions(verdict)
    if took is None or count is None:
        return ""
    if not took:
        return ": it digests nothing"
    return f": digests {words.size(took)}, {_about(count)} instructions, {_time(took / RATE)}"


def _time(seconds: float) -> str:
    return f"about {seconds:.2f} s" if seconds >= 0.1 else f"about {1000 * seconds:.1f} ms"


def _about(count: int) -> str:
    """Three digits of a number."""
    for power, unit in ((9, "billion"), (6, "million"), (3, "thousand")):
        if count >= 10**power:
            return f"{count / 10**power:.3g} {unit}"
    return str(count)


def _loaded(built: Handover) -> Loaded | None:
    return built.intent.loaded if isinstance(built.intent, Plan) else None


def _room(built: Handover) -> int:
    return sum(each.destination.size for each in built.intent.segments)


def _purgatory(built: Handover) -> Participant | None:
    return next((each for each in built.chain if each.kind is Kind.PURGATORY), None)


def _taken(verdict: Verdict) -> int | None:
    """Bytes, in whole pages, of other segments that the purgatory read."""
    run, intent = verdict.run, verdict.handover.intent
    where = intent.purgatory
    if where is None or Sight.LOADS not in run.sees:
        return None
    frames = _frames(verdict)
    mine = where.pages
    others = [each.destination for each in intent.segments if each.destination != where]
    frames = frames[(frames < mine.start) | (frames >= mine.stop)]
    inside = sum(_count(frames, each) for each in others)
    return inside * PAGE_SIZE


def _frames(verdict: Verdict) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Frames that were read, each once, by loads and by stretches."""
    run = verdict.run
    read = [run.loads[:, 2] >> PAGE_SHIFT, *(each.reads for each in run.stretches)]
    return np.unique(np.concatenate(read))


def _count(frames: np.ndarray[tuple[int], np.dtype[np.int64]], extent: Extent) -> int:
    pages = extent.pages
    return int(((frames >= pages.start) & (frames < pages.stop)).sum())


def _instructions(verdict: Verdict) -> int | None:
    """Those in its segment, watched and not; about."""
    run, where = verdict.run, verdict.handover.intent.purgatory
    if where is None or Sight.INSTRUCTIONS not in run.sees:
        return None
    rips = run.trace
    seen = int(((rips >= where.start) & (rips < where.end)).sum())
    return seen + sum(each.instructions for each in run.stretches)


def facts(verdict: Verdict) -> SegmentsFacts:
    """The same as numbers."""
    loaded, program = _loaded(verdict.handover), _purgatory(verdict.handover)
    return {
        "loader": (loaded.loader if loaded else Loader.TIGHTROPE).value,
        "by": loaded.by if loaded else None,
        "purgatory": program.name if program else None,
        "digested": _taken(verdict),
        "instructions": _instructions(verdict),
    }
