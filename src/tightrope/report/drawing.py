"""A map as the shapes of an SVG: bars to scale in lanes, once for all addresses, once a lens.

    0        0x40000000   0x80000000
    memory      [=====================]
    old kernel  [ =  ==               ] <- a bar says what it is beside it, where there is room
                   A  B                 <- where the lenses lie

Rules: numbers in user units, `WIDTH` wide; what is there at all is at least `LEAST` wide.  Patches
closer than a unit are one bar, so that a picture of a million pieces is as small as one of a
hundred.  No two texts of a line may touch: what has no room is left to the bar's title.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tightrope.errors import visible
from tightrope.model.sheet import Ink, Lane, Map, Window

WIDTH = 960
NAMES = 92
"""Units to the left of the bars, for the lanes' names."""
LANE, GAP, TITLE, TICKS, BRACKETS, BETWEEN = 20, 6, 22, 18, 22, 20
LEAST = 2.0
LETTER = 6.0
"""Units that a letter of a bar's label takes at the most, in the page's 11 unit sans serif."""
DIGIT = 6.8
"""The same of the digits of an address, in its 11 unit monospace."""
PAD = 6.0
"""Units between a bar's edge, or the next bar, and a label."""
QUIET = (Ink.RAM, Ink.MAPPED)
"""What goes without saying: its bars have no label."""
APART = 18.0
"""Units between the middles of two lenses' letters."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A rectangle with what it is; `ink` is the class that styles it."""

    x: float
    width: float
    ink: str
    label: str
    name: str = ""
    """`label` without its addresses."""


@dataclass(frozen=True, slots=True)
class Note:
    """A text on the picture, from `x` on or up to it; `ink` is that of the bar behind it."""

    x: float
    text: str
    ink: str = ""
    anchor: str = "start"


@dataclass(frozen=True, slots=True)
class Row:
    """A lane's name and bars; `y` is its upper edge."""

    name: str
    y: int
    bars: tuple[Bar, ...]
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Bracket:
    """Where on the whole map a lens lies."""

    x: float
    width: float
    letter: Note


@dataclass(frozen=True, slots=True)
class Panel:
    """One window: its title, its scale and its rows; `bottom` is the lower edge of the last."""

    title: str
    y: int
    ticks: tuple[Note, ...]
    rows: tuple[Row, ...]
    bottom: int
    brackets: tuple[Bracket, ...] = ()

    @property
    def top(self) -> int:
        """The upper edge of the first lane."""
        return self.y + TITLE + TICKS


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
        top, rows = y, []
        y += TITLE + TICKS
        for lane in drawn.lanes:
            bars, inks = _bars(lane, window)
            if number and not bars:
                continue
            used |= inks
            rows.append(Row(lane.name, y, bars, tuple(_notes(bars))))
            y += LANE + GAP
        panels.append(
            Panel(_title(number, window), top, tuple(_ticks(window)), tuple(rows), y - GAP)
        )
        if number == 0 and drawn.lenses:
            brackets = tuple(_brackets(drawn.whole, drawn.lenses))
            panels[0] = replace(panels[0], brackets=brackets)
            y += BRACKETS
        y += BETWEEN
    lanes = ", ".join(lane.name for lane in drawn.lanes)
    return Drawing(
        panels=tuple(panels),
        height=y - BETWEEN,
        inks=tuple((ink.name.lower(), ink.value) for ink in Ink if ink in used),
        summary=f"physical memory to scale, in lanes: {lanes}",
    )


def _letter(number: int) -> str:
    return chr(ord("A") + number - 1)


def _title(number: int, window: Window) -> str:
    what = f"lens {_letter(number)}, " if number else ""
    size = f"{window.size}, " if window.size else ""
    return f"{what}{size}{window.start:#x} to {window.end:#x}"


def _place(address: int, window: Window) -> float:
    return NAMES + (address - window.start) * (WIDTH - NAMES) / (window.end - window.start)


def _ticks(window: Window) -> Iterator[Note]:
    """Round addresses, as many as can be read: a power of two apart."""
    size = window.end - window.start
    room = DIGIT * len(f"{window.end:#x}") + 4 * PAD
    step = 1
    while step * (WIDTH - NAMES) < room * size:
        step <<= 1
    for address in range(-(-window.start // step) * step, window.end, step):
        x, text = round(_place(address, window), 1), f"{address:#x}"
        if x + DIGIT * len(text) <= WIDTH:
            yield Note(x, text)


def _brackets(whole: Window, lenses: Sequence[Window]) -> Iterator[Bracket]:
    """Each lens on the whole map, its letter beneath; letters that would meet give way."""
    spans = [(_place(each.start, whole), _place(each.end, whole)) for each in lenses]
    middles = [(start + end) / 2 for start, end in spans]
    for at in range(1, len(middles)):
        middles[at] = max(middles[at], middles[at - 1] + APART)
    over = max(0.0, middles[-1] - (WIDTH - APART / 2))
    for number, ((start, end), middle) in enumerate(zip(spans, middles, strict=True), 1):
        width = max(end - start, LEAST)
        letter = Note(round(middle - over, 1), _letter(number), anchor="middle")
        yield Bracket(round(start, 1), round(width, 1), letter)


def _notes(bars: tuple[Bar, ...]) -> Iterator[Note]:
    """What each bar is: inside it, else to its right, else to its left, else nowhere."""
    quiet = [each.name.lower() for each in QUIET]
    starts = [each.x for each in bars[1:]] + [float(WIDTH)]
    reached = float(NAMES)  # where the bars before this one end, and their labels
    for bar, after in zip(bars, starts, strict=True):
        start, end = bar.x, bar.x + bar.width
        room = len(bar.name) * LETTER + 2 * PAD
        label = None
        if bar.name and bar.ink not in quiet:
            if bar.width >= room and start >= reached and after >= start + room:
                label, reached = Note(round(start + PAD, 1), bar.name, bar.ink), start + room
            elif end >= reached and after >= end + room:
                label, reached = Note(round(end + PAD, 1), bar.name), end + room
            elif start - room >= reached:
                label = Note(round(start - PAD, 1), bar.name, anchor="end")
        reached = max(reached, end)
        if label is not None:
            yield label


def _bars(lane: Lane, window: Window) -> tuple[tuple[Bar, ...], set[Ink]]:
    scale = (WIDTH - NAMES) / (window.end - window.start)
    bars: list[Bar] = []
    inks: set[Ink] = set()
    ink, x, end, label, name = None, 0.0, 0.0, "", ""

    def done() -> None:
        if ink is not None:
            width = round(max(end - x, LEAST), 1)
            bars.append(Bar(round(x, 1), width, ink.name.lower(), label, name))

    for patch in lane.patches:
        start, stop = max(patch.start, window.start), min(patch.end, window.end)
        if start >= stop:
            continue
        left = NAMES + (start - window.start) * scale
        right = max(NAMES + (stop - window.start) * scale, left + LEAST)
        if patch.ink is ink and left - end < 1:  # one bar with what is before it
            end = max(end, right)
            if patch.label and patch.label not in label:
                label = label if label.endswith(", ...") else f"{label}, ..."
                name = ink.value
            continue
        done()
        ink, x, end = patch.ink, left, right
        inks.add(ink)
        said = visible(patch.label or ink.value)
        label, name = f"{said}: {patch.start:#x} to {patch.end:#x}", said.partition(":")[0]
    done()
    return tuple(bars), inks
