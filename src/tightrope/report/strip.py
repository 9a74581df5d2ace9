"""A map as text: a lane a line, a character for each share of its addresses.

    lens [0x100000000, 0x101000000)
      memory     ................................
      new        .....NNNNNNNN...................

Rules: what is there at all is drawn, however small its share; where several meet in one character
the one that says most is drawn.  A legend names the characters that were drawn, and no others.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.model.sheet import Ink, Lane, Map, Window

LETTERS = {
    Ink.RAM: "-",
    Ink.MAPPED: "=",
    Ink.RESERVED: "x",
    Ink.OLD: "o",
    Ink.CRASH: "c",
    Ink.TABLE: "t",
    Ink.SOURCE: "s",
    Ink.NEW: "N",
    Ink.TABLE_B: "b",
    Ink.TABLE_A: "a",
    Ink.CONTROL: "P",
}
"""In rising order of what they say: a later one covers an earlier one."""
WEIGHT = {ink: number for number, ink in enumerate(LETTERS)}
NAMES = 12
"""Characters of a lane's name."""
WIDEST = 100
"""Characters of a bar on the widest screen."""
INDENT = 2


def strips(drawn: Map, width: int) -> Iterator[str]:
    """All lanes over the whole map, and over each lens."""
    bar = max(8, min(WIDEST, width - NAMES - 2 * INDENT))
    inks: set[Ink] = set()
    for number, window in enumerate((drawn.whole, *drawn.lenses)):
        yield f"{'lens ' if number else ''}[{window.start:#x}, {window.end:#x})"
        for lane in drawn.lanes:
            row = cells(lane, window, bar)
            if number and not any(row):
                continue
            inks.update(each for each in row if each is not None)
            text = "".join(" " if each is None else LETTERS[each] for each in row)
            yield f"{'':<{INDENT}}{lane.name:<{NAMES}} {text}".rstrip()
    for ink in LETTERS:
        if ink in inks:
            yield f"{'':<{INDENT}}{LETTERS[ink]} {ink.value}"


def cells(lane: Lane, window: Window, count: int) -> list[Ink | None]:
    """What stands in each of `count` equal shares of the window."""
    size = window.end - window.start
    row: list[Ink | None] = [None] * count
    for patch in lane.patches:
        start, end = max(patch.start, window.start), min(patch.end, window.end)
        if start >= end:
            continue
        first = (start - window.start) * count // size
        last = (end - 1 - window.start) * count // size
        for at in range(first, last + 1):
            there = row[at]
            if there is None or WEIGHT[there] < WEIGHT[patch.ink]:
                row[at] = patch.ink
    return row
