"""Prose is wrapped: no line of a docstring or a comment is longer than a page is wide.

Rules: sources are parsed, never imported.  A drawing or a table, which no wrapping mends, may be a little
wider; a word that is longer than a line, such as an address on the web, stands alone.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "tightrope"
WIDTH = 100
DRAWN = 130
COLUMNS = re.compile(r"[^\s.:;!?)`\"'] {2,}\S|^[|+]|-+>|~|=")
"""What prose does not have within a line: aligned columns, arrows, boxes."""


def long_lines(source: str, *, prose: int, drawn: int) -> Iterator[int]:
    """The numbers of lines of docstrings and comments that are too long."""
    lines = source.split("\n")
    for number in sorted({*docstring_lines(source), *comment_lines(source)}):
        line = lines[number - 1]
        text = line.strip().strip('"#').strip()
        limit = drawn if COLUMNS.search(text) else prose
        if len(line) > limit and " " in text:
            yield number


def docstring_lines(source: str) -> Iterator[int]:
    """Lines of strings that stand alone: docstrings, and what says what a name above them is."""
    for node in ast.walk(ast.parse(source)):
        text = node.value if isinstance(node, ast.Expr) else None
        if isinstance(text, ast.Constant) and isinstance(text.value, str):
            yield from range(text.lineno, (text.end_lineno or text.lineno) + 1)


def comment_lines(source: str) -> Iterator[int]:
    """Lines with nothing but a comment."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            yield token.start[0]


def test_prose_is_wrapped() -> None:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        found += [
            f"{path.relative_to(SOURCE)}:{number}"
            for number in long_lines(path.read_text(encoding="utf-8"), prose=WIDTH, drawn=DRAWN)
        ]
    assert found == []


LONG = "word " * 25
DRAWING = "bytes " * 8 + "  -->  " + "more " * 9


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        (f'"""Short.\n\n{LONG}\n"""\n', [3]),
        (f'X = 1\n"""{LONG}"""\n', [2]),
        (f"# {LONG}\nX = 1\n", [1]),
        (f"def f():\n    # {LONG}\n    return 1\n", [2]),
        (f'"""{DRAWING}"""\n', []),
        (f'"""{DRAWING * 2}"""\n', [1]),
        ('"""See ' + "\n" + "https://" + "x" * 120 + '\n"""\n', []),
        (f'X = "{LONG}"\n', []),
        ('"""Short."""\nX = 1  # short\n', []),
    ],
)
def test_a_line_that_is_too_long_is_found(source: str, lines: list[int]) -> None:
    assert list(long_lines(source, prose=WIDTH, drawn=DRAWN)) == lines
