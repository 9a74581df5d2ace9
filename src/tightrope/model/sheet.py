"""What a reader is shown, before anybody has decided how: sections of lines, pairs and tables.

    Sheet -- Section -- Line      text that stands alone
          |          |- Marked    a title, and how it went
          |          |- Pairs     names and what is said of each
          |          `- Table     columns under heads
          `- Section ...          a blank line, or whatever else parts two sections

Rules: frozen, keyword-only, slotted; nouns only, see the package.  A tone says what a piece of text
means, never how it looks, and the text means the same without it.  Widths and indents are in
characters: a writer of text counts them, others may take them as hints.

May import: nothing
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Tone(StrEnum):
    """What a piece of text means."""

    HEAD = "head"
    GOOD = "good"
    BAD = "bad"
    WORST = "worst"
    FAINT = "faint"


class Mark(StrEnum):
    """How a step went; the value is the word that people read."""

    OK = "ok"
    FELL = "FELL"
    WRONG = "wrong"
    NEVER = "-"
    UNSEEN = "?"

    @property
    def tone(self) -> Tone:
        """What the mark means."""
        return {
            Mark.OK: Tone.GOOD,
            Mark.FELL: Tone.WORST,
            Mark.WRONG: Tone.BAD,
            Mark.NEVER: Tone.FAINT,
            Mark.UNSEEN: Tone.FAINT,
        }[self]


@dataclass(frozen=True, slots=True)
class Span:
    """Text with a tone."""

    text: str
    tone: Tone


Text = str | tuple[str | Span, ...]
"""A line's text: plain, or pieces of which some have a tone."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line, however long."""

    text: Text
    indent: int = 0


@dataclass(frozen=True, slots=True)
class Marked:
    """A title with a mark beside it."""

    title: str
    mark: Mark


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """A name and a text a row; a row without a name goes on with what the one above it says."""

    rows: tuple[tuple[str, str], ...]
    names: int
    """Characters that the longest name may have."""
    indent: int = 0
    columns: int | None = None
    """Where a text is wrapped, beneath itself; None: it stays on its line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """A column of a table: its head, one line of it or several."""

    heads: tuple[str, ...]
    width: int
    right: bool = False
    gap: int = 1
    """Characters between this column and the one before it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows of cells under heads; a row may end early."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    indent: int = 0


Block = Line | Marked | Pairs | Table


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks that belong together; the title is a line above them, None where they need none."""

    title: Text | None
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Sheet:
    """All that is shown, in the order in which it is read."""

    sections: tuple[Section, ...]
