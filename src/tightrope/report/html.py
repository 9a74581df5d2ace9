"""A sheet as one HTML file: no network, no script, light and dark, printable, read by keyboard.

Rules: every text goes through the template's autoescape, after its control characters were made
visible.  Stages are radio buttons, so that the arrow keys step through them; a browser that knows
no CSS shows all of it in order.  Pictures are SVG, made by `drawing` from the values of the sheet.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tightrope.errors import MissingPart, visible
from tightrope.model.sheet import (
    Block,
    Line,
    Map,
    Mark,
    Section,
    Sheet,
    Span,
    Stage,
    Stages,
    Text,
    Tone,
)
from tightrope.report.drawing import Drawing, drawing

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE = "sheet.html.j2"
FELL = (Mark.FELL, Mark.WRONG)
WORDS = {Mark.NEVER: "not reached", Mark.UNSEEN: "not seen"}
"""Marks that a page has room to say."""
ADDRESS = re.compile(r"(\b0x[0-9a-f]+\b)")


def html(sheet: Sheet, *, title: str) -> str:
    """The whole page; `title` is the browser's.  Raises MissingPart without jinja2."""
    return (
        _environment()
        .get_template(TEMPLATE)
        .render(sheet=sheet, sections=rope_first(sheet.sections), title=visible(title))
    )


def _environment() -> Environment:
    try:
        import jinja2
    except ModuleNotFoundError as err:
        raise MissingPart("HTML needs jinja2: install tightrope[html]") from err
    made = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        pieces=pieces,
        plain=plain,
        visible=visible,
        grouped=grouped,
        drawn=drawn,
        first=first_shown,
        addresses=addresses,
        mark=lambda mark: WORDS.get(mark, mark.value),
        split=parted,
        wrong=is_wrong,
        heading=heading,
        rope=_is_rope,
    )
    return made


def pieces(text: Text) -> Iterator[tuple[str, str]]:
    """Each piece of a text, and its tone's word or nothing."""
    for each in (text,) if isinstance(text, str) else text:
        yield (
            (visible(each.text), each.tone.value) if isinstance(each, Span) else (visible(each), "")
        )


def plain(text: Text) -> str:
    """A text without its tones."""
    return "".join(each for each, _ in pieces(text))


def parted(text: Text) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """An answer as its first words and what is said of them: `It falls at step 2`, `the kernel`."""
    first: list[tuple[str, str]] = []
    rest = list(pieces(text))
    while rest:
        said, tone = rest.pop(0)
        head, colon, tail = said.partition(": ")
        first.append((head, tone))
        if colon:
            return first, [(tail, tone), *rest]
    return first, []


def addresses(text: str) -> Iterator[tuple[str, bool]]:
    """A text in pieces, and whether each is an address."""
    yield from (
        (piece, number % 2 == 1) for number, piece in enumerate(ADDRESS.split(text)) if piece
    )


def heading(title: Text) -> list[tuple[str, str]]:
    """A title with a capital, unless it begins with a name: `page_table_a`, `/boot/vmlinuz`."""
    [(first, tone), *rest] = pieces(title)
    word = first.split(" ", 1)[0]
    return [(first[0].upper() + first[1:] if word.isalpha() else first, tone), *rest]


def is_wrong(title: Text) -> bool:
    """Whether a section tells of a finding."""
    return any(tone == Tone.WORST.value for _, tone in pieces(title))


def rope_first(sections: tuple[Section, ...]) -> list[Section]:
    """The sections, the walk's steps before everything else: they are the picture of the answer."""
    return sorted(sections, key=lambda each: not _is_rope(each))


def _is_rope(section: Section) -> bool:
    return any(isinstance(each, Stages) and len(each.stages) > 2 for each in section.blocks)


def grouped(blocks: tuple[Block, ...]) -> Iterator[tuple[str, list[Block]]]:
    """Neighbours of one kind together, each kind by its name: lines are one paragraph."""
    for kind, each in groupby(blocks, key=type):
        if kind is Line:
            yield "Line", list(each)
        else:
            yield from ((kind.__name__, [one]) for one in each)


def drawn(block: Map) -> Drawing:
    """A map's picture."""
    return drawing(block)


def first_shown(stages: tuple[Stage, ...]) -> int:
    """The number of the stage to begin with: the first where something is wrong."""
    return next((number for number, each in enumerate(stages) if each.mark in FELL), 0)
