"""A sheet as text, for a terminal or a pipe.

Rules: colour only where it is asked for, and never the only carrier of a meaning.  No line ends in
blanks; the text ends without a line break.  What a file's name or a kernel's string has of control
sequences reaches no terminal: it is escaped here, whatever brought it.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import assert_never

from tightrope.errors import visible
from tightrope.model.sheet import (
    Block,
    Column,
    Line,
    Marked,
    Pairs,
    Section,
    Sheet,
    Span,
    Table,
    Text,
    Tone,
)

_CODES = {
    Tone.HEAD: "1",
    Tone.GOOD: "32",
    Tone.BAD: "31",
    Tone.WORST: "1;31",
    Tone.FAINT: "2",
}
"""SGR parameters (ECMA-48, 8.3.117)."""
MARKS = 72
"""The column that marks stand behind."""


def text(sheet: Sheet, *, colour: bool = False) -> str:
    """The whole screen."""
    sections = ("\n".join(_section(each, colour)) for each in sheet.sections)
    return "\n\n".join(sections)


def block(each: Block, *, colour: bool = False) -> str:
    """One block, for a report that is shown as it comes."""
    return "\n".join(_block(each, colour))


def _section(section: Section, colour: bool) -> Iterator[str]:
    if section.title is not None:
        yield _inked(section.title, colour)
    for each in section.blocks:
        yield from _block(each, colour)


def _block(each: Block, colour: bool) -> Iterator[str]:
    match each:
        case Line():
            yield f"{'':<{each.indent}}{_inked(each.text, colour)}"
        case Marked():
            mark = _inked((Span(each.mark.value, each.mark.tone),), colour)
            yield f"{visible(each.title):<{MARKS}}  {mark}"
        case Pairs():
            yield from _pairs(each)
        case Table():
            yield from _table(each)
        case _:
            assert_never(each)


def _inked(text: Text, colour: bool) -> str:
    if isinstance(text, str):
        return visible(text)
    return "".join(
        f"\033[{_CODES[each.tone]}m{visible(each.text)}\033[0m"
        if colour and isinstance(each, Span)
        else visible(each.text if isinstance(each, Span) else each)
        for each in text
    )


def _pairs(pairs: Pairs) -> Iterator[str]:
    for name, text in pairs.rows:
        begin = f"{'':<{pairs.indent}}{name:<{pairs.names}} "
        if pairs.columns is None:
            yield visible(f"{begin}{text}").rstrip()
            continue
        yield from wrap(
            visible(text),
            pairs.columns,
            initial_indent=begin,
            subsequent_indent=" " * len(begin),
            break_long_words=False,
            break_on_hyphens=False,
        )


def _table(table: Table) -> Iterator[str]:
    heads = max((len(each.heads) for each in table.columns), default=0)
    lines = [
        tuple(each.heads[number] if number < len(each.heads) else "" for each in table.columns)
        for number in range(heads)
    ]
    for cells in (*lines, *table.rows):
        row = "".join(
            f"{'':<{column.gap if number else 0}}{_cell(visible(cell), column)}"
            for number, (cell, column) in enumerate(zip(cells, table.columns, strict=False))
        )
        yield f"{'':<{table.indent}}{row}".rstrip()


def _cell(text: str, column: Column) -> str:
    return f"{text:>{column.width}}" if column.right else f"{text:<{column.width}}"
