"""A sheet as one HTML file: no network, no script, light and dark, printable, read by keyboard.

Rules: every text goes through the template's autoescape, after its control characters were made
visible.  Stages are radio buttons, so that the arrow keys step through them; a browser that knows
no CSS shows all of it in order.  Pictures are SVG, made by `drawing` from the values of the sheet.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from tightrope.errors import MissingPart, visible
from tightrope.model.sheet import Block, Line, Map, Mark, Sheet, Span, Stage, Text
from tightrope.report.drawing import Drawing, drawing

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATE = "sheet.html.j2"
FELL = (Mark.FELL, Mark.WRONG)


def html(sheet: Sheet, *, title: str) -> str:
    """The whole page; `title` is the browser's.  Raises MissingPart without jinja2."""
    return _environment().get_template(TEMPLATE).render(sheet=sheet, title=visible(title))


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
        pieces=pieces, plain=plain, visible=visible, grouped=grouped, drawn=drawn, first=first_shown
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
