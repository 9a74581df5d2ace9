"""A sheet as text: the answer first and last, no line wider than the page, nothing lost on the way."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.model.sheet import (
    Column,
    Ink,
    Lane,
    Line,
    Map,
    Mark,
    Marked,
    Pairs,
    Patch,
    Section,
    Sheet,
    Span,
    Stage,
    Stages,
    Table,
    Tone,
    Window,
)
from tightrope.report.text import headline, text

WORDS = st.lists(st.text("abcXYZ0189/", min_size=1, max_size=11), min_size=1, max_size=40).map(
    " ".join
)
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def page(*blocks: object, **options: object) -> str:
    return text(Sheet((Section(None, blocks),)), **options)  # type: ignore[arg-type]


def long_sheet(lines: int) -> Sheet:
    body = tuple(Line(f"line {number}") for number in range(lines))
    return Sheet((Section("body", body),), headline=(Span("It holds", Tone.GOOD), ": all of it"))


def test_the_answer_is_first_and_where_it_may_have_scrolled_by_last_as_well() -> None:
    long = text(long_sheet(30)).splitlines()
    assert long[0] == long[-1] == "It holds: all of it"
    short = text(long_sheet(3)).splitlines()
    assert short[0] == "It holds: all of it"
    assert short[-1] == "line 2"


def test_the_answer_alone_is_one_line_however_narrow_the_page() -> None:
    assert headline(long_sheet(3)) == "It holds: all of it"
    assert headline(Sheet((Section(None, (Line("only this"), Line("and this"))),))) == "and this"


def test_detail_is_for_who_asks() -> None:
    sheet = Sheet(
        (
            Section(None, (Line("always"), Line("rarely", detail=True))),
            Section("never mind", (Line("inside"),), detail=True),
            Section(None, (Stages((Stage(title="1 go", mark=Mark.OK, blocks=(Line("how"),)),)),)),
        )
    )
    assert "\n".join(text(sheet, detail=False).split()) == "always\n1\ngo\nok"
    assert [each.strip() for each in text(sheet).splitlines() if each] == [
        "always",
        "rarely",
        "never mind",
        "inside",
        text(sheet, detail=False).splitlines()[-1],
        "how",
    ]


@given(WORDS, st.integers(24, 120), st.integers(0, 8))
def test_a_line_is_parted_at_blanks_and_loses_no_word(words: str, width: int, indent: int) -> None:
    lines = page(Line(words, indent), width=width).splitlines()
    assert " ".join(lines).split() == words.split()
    assert all(len(each) <= width for each in lines)
    assert all(each.startswith(" " * indent) for each in lines)


@given(st.lists(WORDS, min_size=1, max_size=4), st.integers(20, 100))
def test_colour_parts_no_line_otherwise(pieces: list[str], width: int) -> None:
    tones = [*Tone]
    spans = tuple(Span(each, tones[at % len(tones)]) for at, each in enumerate(pieces))
    plain = page(Line(spans), width=width)
    assert ESCAPE.sub("", page(Line(spans), width=width, colour=True)) == plain


@given(
    st.lists(st.tuples(st.text("abc", max_size=9), WORDS), min_size=1, max_size=5),
    st.integers(20, 100),
)
def test_pairs_are_wrapped_beneath_themselves(rows: list[tuple[str, str]], width: int) -> None:
    shown = page(Pairs(rows=tuple(rows), names=10, indent=2), width=width)
    wanted = [word for name, said in rows for word in (*name.split(), *said.split())]
    assert shown.split() == wanted
    assert all(len(each) <= width for each in shown.splitlines())


CELLS = st.lists(
    st.tuples(WORDS, st.integers(0, 10**6).map(str), WORDS), min_size=1, max_size=6
).map(tuple)


@given(CELLS, st.integers(20, 160))
def test_a_table_fits_its_page_and_keeps_every_word(
    rows: tuple[tuple[str, str, str], ...], width: int
) -> None:
    columns = (
        Column(heads=("first",), width=8),
        Column(heads=("how", "many"), width=7, right=True),
        Column(heads=("last",), width=12, gap=2),
    )
    shown = page(Table(columns=columns, rows=rows), width=width)
    assert all(len(each) <= width for each in shown.splitlines())
    words = shown.replace(":", " ").split()
    for cells in rows:
        for word in " ".join(cells).split():
            assert word in words


def test_a_table_that_fits_is_left_as_it_is() -> None:
    table = Table(
        columns=(Column(heads=("a",), width=4), Column(heads=("b",), width=3, right=True)),
        rows=(("x", "1"), ("y", "22")),
    )
    assert page(table, width=20) == page(table) == "a      b\nx      1\ny     22"


def test_a_page_too_narrow_for_columns_has_one_cell_a_line() -> None:
    table = Table(
        columns=(
            Column(heads=("what a long", "head"), width=20),
            Column(heads=("undividable-head",), width=3),
        ),
        rows=(("one", "two"), ("three", "four")),
    )
    assert page(table, width=20).splitlines() == [
        "what a long head:",
        "  one",
        "undividable-head:",
        "  two",
        "",
        "what a long head:",
        "  three",
        "undividable-head:",
        "  four",
    ]


def test_a_mark_stays_on_a_narrow_page() -> None:
    line = page(Marked("copy the pages, enter the new kernel", Mark.FELL), width=30)
    assert line.splitlines()[-1].endswith(" FELL")
    assert all(len(each) <= 30 for each in line.splitlines())


def memory() -> Map:
    return Map(
        lanes=(
            Lane("memory", (Patch(0, 0x8000_0000, Ink.RAM),)),
            Lane("walk", (Patch(0x4000_0000, 0x4000_1000, Ink.CONTROL, "P"),)),
            Lane("elsewhere", (Patch(0x7000_0000, 0x7000_1000, Ink.OLD),)),
        ),
        whole=Window(0, 0x8000_0000),
        lenses=(Window(0x3FFF_0000, 0x4001_0000),),
    )


def test_a_map_is_to_scale_and_what_is_small_is_there() -> None:
    whole, *_ = page(memory(), width=80).split("lens")
    head, ram, walk, old = whole.splitlines()
    assert head == "[0x0, 0x80000000)"
    bar = ram[15:]
    assert set(bar) == {"-"}
    assert walk[15:].index("P") == len(bar) // 2
    assert old[15:].index("o") == len(bar) * 7 // 8


def test_a_lens_shows_only_lanes_that_have_something_there() -> None:
    lens = page(memory(), width=80).split("lens ")[1].splitlines()
    assert lens[0] == "[0x3fff0000, 0x40010000)"
    assert [line.split()[0] for line in lens[1:3]] == ["memory", "walk"]
    assert [line.strip() for line in lens[3:]] == [
        "- RAM",
        "o the old kernel",
        "P the control page",
    ]


@pytest.mark.parametrize("width", [1, 20, 33, 79, 80, 200])
def test_a_map_fits_its_page(width: int) -> None:
    assert all(len(each) <= max(width, 40) for each in page(memory(), width=width).splitlines())
