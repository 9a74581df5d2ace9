"""Control sequences in names and strings reach no terminal: every block of a sheet escapes them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.cli import main
from tightrope.errors import visible
from tightrope.model.sheet import (
    Block,
    Column,
    Line,
    Mark,
    Marked,
    Pairs,
    Section,
    Sheet,
    Span,
    Table,
    Tone,
)
from tightrope.report.text import text

CLEARS = "a\x1b[2Jb"
BLOCKS: tuple[Block, ...] = (
    Line(CLEARS),
    Line(("plain ", Span(CLEARS, Tone.BAD), CLEARS)),
    Marked(CLEARS, Mark.OK),
    Pairs(rows=((CLEARS, CLEARS),), names=8),
    Pairs(rows=(("name", f"{CLEARS} and more words " * 9),), names=8, columns=60),
    Table(columns=(Column(heads=(CLEARS,), width=12),), rows=((CLEARS,),)),
)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_a_block_escapes_them(number: int) -> None:
    shown = text(Sheet((Section(CLEARS, (BLOCKS[number],)),)))
    assert "\x1b" not in shown
    assert shown.count("a\\x1b[2Jb") >= 2


def test_colour_is_our_own_sequence_and_stays() -> None:
    sheet = Sheet((Section(None, (Line((Span("bad", Tone.BAD),)),)),))
    assert text(sheet, colour=True) == "\x1b[31mbad\x1b[0m"


@given(st.text())
def test_what_is_visible_is_printable_and_what_was_stays(said: str) -> None:
    assert visible(said).isprintable()
    assert visible(visible(said)) == visible(said)
    assert (visible(said) == said) == said.isprintable()


def test_a_files_name_is_escaped_in_the_one_line_of_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kernel\x1b]0;owned\x07"
    path.write_bytes(b"nothing")
    assert main(["inspect", str(path)]) == 2
    said = capsys.readouterr().err
    assert "kernel\\x1b]0;owned\\x07" in said
    assert "\x1b" not in said
