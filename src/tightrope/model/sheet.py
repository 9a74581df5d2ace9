"""What a reader is shown, before anybody has decided how: sections of lines, pairs and tables.

    Sheet -- headline             the answer, in one line that stands alone
          |- Section -- Line      text that stands alone
          |          |- Marked    a title, and how it went
          |          |- Stages    marked titles, one after the other, each with blocks of its own
          |          |- Pairs     names and what is said of each
          |          |- Table     columns under heads
          |          `- Map       addresses to scale: lanes of named spans
          `- Section ...          a blank line, or whatever else parts two sections

What is `detail` is for who asks for it: a reader who does not still has the whole answer.

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
    detail: bool = False


@dataclass(frozen=True, slots=True)
class Marked:
    """A title with a mark beside it."""

    title: str
    mark: Mark


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One of several that follow each other: how it went, and what was seen of it."""

    title: str
    mark: Mark
    blocks: tuple[Line | Pairs | Table, ...] = ()


@dataclass(frozen=True, slots=True)
class Stages:
    """Stages in their order."""

    stages: tuple[Stage, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """A name and a text a row; a row without a name goes on with what the one above it says."""

    rows: tuple[tuple[str, str], ...]
    names: int
    """Characters that the longest name may have."""
    indent: int = 0
    columns: int | None = None
    """Where a text is wrapped, beneath itself; None: where the page ends."""
    detail: bool = False


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


class Ink(StrEnum):
    """What a span of a map is; the value is the word that a legend has for it."""

    RAM = "RAM"
    RESERVED = "reserved"
    OLD = "the old kernel"
    CRASH = "the crash region"
    NEW = "the new kernel's place"
    SOURCE = "where its pages wait"
    CONTROL = "the control page"
    TABLE_A = "page_table_a"
    TABLE_B = "page_table_b"
    TABLE = "page tables in use"
    MAPPED = "mapped"


@dataclass(frozen=True, slots=True)
class Patch:
    """Addresses from `start` up to `end`, and what they are; `label` is for who points at it."""

    start: int
    end: int
    ink: Ink
    label: str = ""


@dataclass(frozen=True, slots=True)
class Lane:
    """Patches in the order of their addresses, under one name."""

    name: str
    patches: tuple[Patch, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the addresses that a map shows: from `start` up to `end`."""

    start: int
    end: int
    size: str = ""
    """How much that is, for people."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Map:
    """Lanes over the same addresses, to scale: once all of them, and once for each lens."""

    lanes: tuple[Lane, ...]
    whole: Window
    lenses: tuple[Window, ...] = ()


Block = Line | Marked | Stages | Pairs | Table | Map


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks that belong together; the title is a line above them, None where they need none."""

    title: Text | None
    blocks: tuple[Block, ...]
    detail: bool = False
    folded: bool = False
    """Long, and the same in every report of the kind: a page has it folded away beneath its title,
    and text not at all, as a terminal has a command for it."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """All that is shown, in the order in which it is read; the headline is its answer."""

    sections: tuple[Section, ...]
    headline: Text | None = None
