"""A sheet as text, for a terminal or a pipe: the answer first and last, the rest between.

Rules: colour only where it is asked for, and never the only carrier of a meaning.  No line ends in
blanks or is longer than the width, but for a word that is; the text ends without a line break.
What a file's name or a kernel's string has of control sequences reaches no terminal: it is escaped
here, whatever brought it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import Enum, auto
from typing import assert_never

from tightrope.errors import visible
from tightrope.model.sheet import (
    Block,
    Column,
    Line,
    Map,
    Marked,
    Pairs,
    Section,
    Sheet,
    Span,
    Stages,
    Table,
    Text,
    Tone,
)
from tightrope.report.strip import strips

_CODES = {
    Tone.HEAD: "1",
    Tone.GOOD: "32",
    Tone.BAD: "31",
    Tone.WORST: "1;31",
    Tone.FAINT: "2",
}
"""SGR parameters (ECMA-48, 8.3.117)."""
MARKS = 72
"""The column that marks stand behind, where there is room."""
LONGEST_MARK = 6
NARROWEST = 20
"""Columns below which a width is taken for a mistake."""
SCROLLS = 10
"""Lines after which the answer at the top may be out of sight: it is said again at the end."""
UNBOUNDED = 1 << 20


def text(sheet: Sheet, *, colour: bool = False, width: int = UNBOUNDED, detail: bool = True) -> str:
    """The whole screen, no wider than `width` columns; with `detail` all that the sheet has."""
    return _Page(colour, width, detail).sheet(sheet)


def headline(sheet: Sheet, *, colour: bool = False) -> str:
    """The answer alone, on one line; of a sheet without one its first title, or its last line."""
    answer = sheet.headline or (sheet.sections[0].title if sheet.sections else None)
    if answer is not None:
        return _inked(answer, colour)
    return text(sheet, colour=colour).rsplit("\n", 1)[-1]


def block(each: Block, *, colour: bool = False) -> str:
    """One block, for a report that is shown as it comes."""
    return "\n".join(_Page(colour, UNBOUNDED, True).block(each))


class _Page:
    """How wide, how full and how colourful."""

    def __init__(self, colour: bool, width: int, detail: bool) -> None:
        self.colour, self.width, self.detail = colour, max(width, NARROWEST), detail

    def sheet(self, sheet: Sheet) -> str:
        answer = [] if sheet.headline is None else ["\n".join(self._text(sheet.headline, 0))]
        shown = [each for each in sheet.sections if self._shows(each)]
        body = "\n\n".join(filter(None, ("\n".join(self._section(each)) for each in shown)))
        again = answer if body.count("\n") > SCROLLS else []
        return "\n\n".join((*answer, *filter(None, [body]), *again))

    def _shows(self, section: Section) -> bool:
        return not section.folded and (self.detail or not section.detail)

    def _section(self, section: Section) -> Iterator[str]:
        if section.title is not None:
            yield from self._text(section.title, 0, hang=2)
        for each in section.blocks:
            yield from self.block(each)

    def block(self, each: Block) -> Iterator[str]:
        match each:
            case Line():
                if self.detail or not each.detail:
                    yield from self._text(each.text, each.indent, hang=2)
            case Marked():
                yield from self._marked(each)
            case Stages():
                for stage in each.stages:
                    yield from self._marked(Marked(stage.title, stage.mark))
                    if self.detail:
                        for inner in stage.blocks:
                            yield from self.block(inner)
            case Pairs():
                if self.detail or not each.detail:
                    yield from self._pairs(each)
            case Table():
                yield from self._table(each)
            case Map():
                yield from strips(each, self.width)
            case _:
                assert_never(each)

    def _text(self, text: Text, indent: int, *, hang: int = 0) -> Iterator[str]:
        pieces = (text,) if isinstance(text, str) else text
        plain = [(visible(_plain(each)), _tone(each)) for each in pieces]
        for line in _wrapped(plain, self.width - indent, hang):
            yield f"{'':<{indent}}{''.join(_ink(each, tone, self.colour) for each, tone in line)}"

    def _marked(self, each: Marked) -> Iterator[str]:
        mark = _inked((Span(each.mark.value, each.mark.tone),), self.colour)
        column = min(MARKS, self.width - LONGEST_MARK - 2)
        *lines, last = _lines(visible(each.title), column)
        yield from lines
        yield f"{last:<{column}}  {mark}"

    def _pairs(self, pairs: Pairs) -> Iterator[str]:
        width = min(self.width, pairs.columns or self.width)
        for name, text in pairs.rows:
            begin = visible(f"{'':<{pairs.indent}}{name:<{pairs.names}} ")
            if width - len(begin) < NARROWEST:  # beneath the name, where there is no room beside it
                if name:
                    yield begin.rstrip()
                begin = " " * (pairs.indent + 2)
            first, *more = _lines(visible(text), width - len(begin)) or [""]
            yield f"{begin}{first}".rstrip()
            yield from (f"{'':<{len(begin)}}{each}" for each in more)

    def _table(self, table: Table) -> Iterator[str]:
        fit = fitted(table, self.width - table.indent)
        match fit:
            case Fit.AS_IT_IS:
                lines = _as_it_is(table)
            case Fit.NOT_AT_ALL:
                lines = _one_by_one(table, self.width - table.indent)
            case columns:
                lines = _parted_rows(columns, table.rows)
        for line in lines:
            yield f"{'':<{table.indent}}{line}".rstrip()


def _plain(piece: str | Span) -> str:
    return piece.text if isinstance(piece, Span) else piece


def _tone(piece: str | Span) -> Tone | None:
    return piece.tone if isinstance(piece, Span) else None


def _ink(text: str, tone: Tone | None, colour: bool) -> str:
    return f"\033[{_CODES[tone]}m{text}\033[0m" if colour and tone else text


def _inked(text: Text, colour: bool) -> str:
    pieces = (text,) if isinstance(text, str) else text
    return "".join(_ink(visible(_plain(each)), _tone(each), colour) for each in pieces)


Inked = list[tuple[str, Tone | None]]
"""A line in pieces of one tone each."""


def _wrapped(pieces: Inked, width: int, hang: int) -> Iterator[Inked]:
    """Lines of at most `width` characters, parted at blanks; all but the first hang."""
    whole = "".join(text for text, _ in pieces)
    if len(whole) <= width:
        yield pieces
        return
    tones = [tone for text, tone in pieces for _ in text]
    at = 0
    for number, (start, end) in enumerate(_parted(whole, width, width - hang)):
        line: Inked = [(" " * hang, None)] if number else []
        for at in range(start, end):
            if line and line[-1][1] is tones[at] and (number == 0 or len(line) > 1):
                line[-1] = (line[-1][0] + whole[at], tones[at])
            else:
                line.append((whole[at], tones[at]))
        yield line


def _parted(text: str, first: int, rest: int) -> Iterator[tuple[int, int]]:
    """Where each line of a text begins and ends: at blanks, or after a word that is too long."""
    start, width = 0, first
    while len(text) - start > width:
        lead = len(text) - start - len(text[start:].lstrip(" ")) if start == 0 else 0
        end = text.rfind(" ", start + lead + 1, start + width + 1)
        if end < 0:
            end = text.find(" ", start + width)
        if end < 0:
            break
        yield start, len(text[:end].rstrip(" "))
        start, width = len(text) - len(text[end:].lstrip(" ")), rest
    yield start, len(text.rstrip(" "))


def _lines(text: str, width: int) -> list[str]:
    width = max(width, 1)
    return [text[start:end] for start, end in _parted(text, width, width)]


class Fit(Enum):
    """How a table goes on a page, where no column has to give way."""

    AS_IT_IS = auto()
    NOT_AT_ALL = auto()


def fitted(table: Table, width: int) -> tuple[Column, ...] | Fit:
    """The columns as narrow as they have to be; none is narrower than its longest word."""
    heads = [" ".join(each.heads).strip() for each in table.columns]
    widths = [each.width for each in table.columns]
    least = [_longest_word(each) for each in heads]
    for cells in table.rows:
        for number, cell in enumerate(cells[: len(widths)]):
            widths[number] = max(widths[number], len(visible(cell)))
            least[number] = max(least[number], _longest_word(visible(cell)))
    gaps = sum(each.gap for each in table.columns[1:])
    if sum(widths) + gaps <= width:
        return Fit.AS_IT_IS
    if sum(least) + gaps > width:
        return Fit.NOT_AT_ALL
    while (over := sum(widths) + gaps - width) > 0:
        # The column that gives way most easily: the one with most room above its longest word.
        number = max(range(len(widths)), key=lambda at: widths[at] - least[at])
        widths[number] -= max(1, min(over, (widths[number] - least[number]) // 2))
    return tuple(
        replace(column, heads=tuple(_lines(head, size)), width=size)
        for column, head, size in zip(table.columns, heads, widths, strict=True)
    )


def _longest_word(text: str) -> int:
    return max(map(len, text.split()), default=0)


def _as_it_is(table: Table) -> Iterator[str]:
    for cells in (*_heads(table.columns), *table.rows):
        yield _row(table.columns, cells)


def _heads(columns: tuple[Column, ...]) -> Iterator[tuple[str, ...]]:
    for number in range(max((len(each.heads) for each in columns), default=0)):
        yield tuple(each.heads[number] if number < len(each.heads) else "" for each in columns)


def _row(columns: tuple[Column, ...], cells: tuple[str, ...]) -> str:
    return "".join(
        f"{'':<{column.gap if number else 0}}{_cell(visible(cell), column)}"
        for number, (cell, column) in enumerate(zip(cells, columns, strict=False))
    )


def _parted_rows(columns: tuple[Column, ...], rows: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    """Rows whose long cells go on beneath themselves."""
    for cells in _heads(columns):
        yield _row(columns, cells)
    for cells in rows:
        parts = [
            _lines(visible(cell), column.width)
            for cell, column in zip(cells, columns, strict=False)
        ]
        for number in range(max(map(len, parts), default=1)):
            yield _row(columns, tuple(each[number] if number < len(each) else "" for each in parts))


def _one_by_one(table: Table, width: int) -> Iterator[str]:
    """A page too narrow for columns: each row as heads and cells beneath each other."""
    for number, cells in enumerate(table.rows):
        if number:
            yield ""
        for column, cell in zip(table.columns, cells, strict=False):
            name = " ".join(column.heads).strip()
            said = f"{name}: {visible(cell)}"
            for at, (start, end) in enumerate(_parted(said, width, width - 2)):
                yield f"{'  ' if at else ''}{said[start:end]}"


def _cell(text: str, column: Column) -> str:
    return f"{text:>{column.width}}" if column.right else f"{text:<{column.width}}"
