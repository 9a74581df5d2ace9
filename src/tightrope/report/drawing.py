"""A map as the shapes of an SVG: bars to scale in lanes, once for all addresses, once a lens.

Rules: numbers in user units, `WIDTH` wide; what is there at all is at least `LEAST` wide.  Patches
closer than a unit are one bar, so that a picture of a million pieces is as small as one of a
hundred.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.errors import visible
from tightrope.model.sheet import Ink, Lane, Map, Window

WIDTH = 960
NAMES = 110
"""Units to the left of the bars, for the lanes' names."""
LANE, GAP, HEAD, BETWEEN = 22, 4, 18, 26
LEAST = 2.0


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle with what it is; `ink` is the class that styles it."""

    x: float
    width: float
    ink: str
    label: str


@dataclass(frozen=True, slots=True)
class Row:
    """A lane's name and bars; `y` is its upper edge."""

    name: str
    y: int
    bars: tuple[Bar, ...]


@dataclass(frozen=True, slots=True)
class Panel:
    """One window: its own title and rows."""

    title: str
    y: int
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Drawing:
    """All panels, the height of the whole, and the inks that were used with their words."""

    panels: tuple[Panel, ...]
    height: int
    inks: tuple[tuple[str, str], ...]
    summary: str
    """What somebody hears who cannot see it."""


def drawing(drawn: Map) -> Drawing:
    """The picture of a map."""
    panels: list[Panel] = []
    used: set[Ink] = set()
    y = 0
    for number, window in enumerate((drawn.whole, *drawn.lenses)):
        title = f"{'lens: ' if number else ''}{window.start:#x} to {window.end:#x}"
        title += f", {window.size}" if window.size else ""
        top, rows = y, []
        y += HEAD
        for lane in drawn.lanes:
            bars, inks = _bars(lane, window)
            if number and not bars:
                continue
            used |= inks
            rows.append(Row(lane.name, y, bars))
            y += LANE + GAP
        panels.append(Panel(title, top, tuple(rows)))
        y += BETWEEN
    lanes = ", ".join(lane.name for lane in drawn.lanes)
    return Drawing(
        panels=tuple(panels),
        height=y - BETWEEN,
        inks=tuple((ink.name.lower(), ink.value) for ink in Ink if ink in used),
        summary=f"physical memory to scale, in lanes: {lanes}",
    )


def _bars(lane: Lane, window: Window) -> tuple[tuple[Bar, ...], set[Ink]]:
    scale = (WIDTH - NAMES) / (window.end - window.start)
    bars: list[Bar] = []
    inks: set[Ink] = set()
    for patch in lane.patches:
        start, end = max(patch.start, window.start), min(patch.end, window.end)
        if start >= end:
            continue
        inks.add(patch.ink)
        x = round(NAMES + (start - window.start) * scale, 1)
        width = round(max((end - start) * scale, LEAST), 1)
        ink = patch.ink.name.lower()
        if bars and bars[-1].ink == ink and x - (bars[-1].x + bars[-1].width) < 1:
            last = bars[-1]
            bars[-1] = Bar(last.x, round(max(x + width - last.x, last.width), 1), ink, last.label)
            if patch.label and patch.label not in last.label:
                label = last.label if last.label.endswith(", ...") else f"{last.label}, ..."
                bars[-1] = Bar(bars[-1].x, bars[-1].width, ink, label)
            continue
        label = f"{visible(patch.label or patch.ink.value)}: {patch.start:#x} to {patch.end:#x}"
        bars.append(Bar(x, width, ink, label))
    return tuple(bars), inks
