"""Signposts: a package's card names all that is in it, and a path that a page names is there.

    package  --its docstring-->  first word of an indented line, or a word of an arrow diagram
    docs/theory.md, "where it is decided"  --the paths in its rows-->  a file or a folder of the tree

Rules: sources are parsed, never imported.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "src" / "tightrope"
THEORY = REPOSITORY / "docs" / "theory.md"

FIRST = re.compile(r" {4,}(\w+)(?:\.py|/)?(?:\s+\S|$)")
ARROW = re.compile(r"--?>|<-|--\w+--")
QUESTIONS = "| question | where it is decided |\n"


def named_by(card: str) -> frozenset[str]:
    """What a card names; a word in the middle of its prose names nothing."""
    found: set[str] = set()
    for line in card.split("\n"):
        if line.startswith("    ") and ARROW.search(line):
            found.update(re.findall(r"\w+", line))
        elif first := FIRST.match(line):
            found.add(first[1])
    return frozenset(found)


def unnamed(root: Path) -> Iterator[str]:
    """Modules and packages below `root` that the card of the package around them does not name."""
    for init in sorted(root.rglob("__init__.py")):
        card = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        here = init.parent
        inside = [each.stem for each in here.glob("*.py") if not each.stem.startswith("__")]
        inside += [each.parent.name for each in here.glob("*/__init__.py")]
        named = named_by(card)
        for name in sorted(set(inside) - named):
            yield f"{here.relative_to(root).as_posix()}: {name}"


def places(page: str) -> list[str]:
    """The paths in the right column of the page's table of questions."""
    rows = page.partition(QUESTIONS)[2].partition("\n\n")[0].split("\n")[1:]
    cells = (row.split(" | ", 1)[1] for row in rows if " | " in row)
    return [path for cell in cells for path in re.findall(r"`([\w/]+(?:\.py|/))`", cell)]


def gone(page: str, root: Path) -> list[str]:
    """Those that are not in the tree; one without a folder may lie beside the one before it."""
    missing: list[str] = []
    beside = root
    for path in places(page):
        found = [each for each in (root / path, beside / path) if each.exists()]
        if found:
            beside = found[0].parent
        else:
            missing.append(path)
    return missing


def test_every_card_names_all_that_is_in_its_package() -> None:
    assert list(unnamed(SOURCE)) == []


GOOD = '''"""What a room does.

    one      the first thing
    two/     a package of others
      four   what is drawn in

    bytes --three--> value

May import: nothing
"""
'''


def _package(root: Path, card: str) -> Path:
    (root / "two").mkdir()
    (root / "__init__.py").write_text(card, encoding="utf-8")
    (root / "two" / "__init__.py").write_text('"""Nothing is in it."""\n', encoding="utf-8")
    for name in ("one", "three", "four"):
        (root / f"{name}.py").touch()
    return root


def test_a_card_with_a_line_or_an_arrow_for_each_is_whole(tmp_path: Path) -> None:
    assert list(unnamed(_package(tmp_path, GOOD))) == []


@pytest.mark.parametrize(
    ("was", "now", "missing"),
    [
        ("    one      the first thing\n", "", ". one"),
        ("    one      the first thing\n", "    first    one\n", ". one"),
        ("    one      the first thing\n", "one is the first thing\n", ". one"),
        ("    two/     a package of others\n", "", ". two"),
        ("--three-->", "three", ". three"),
        ("four   what", "what", ". four"),
    ],
    ids=["no line", "last word", "prose", "a package", "no arrow", "drawn in"],
)
def test_what_a_card_leaves_out_is_named(tmp_path: Path, was: str, now: str, missing: str) -> None:
    assert was in GOOD
    found = list(unnamed(_package(tmp_path, GOOD.replace(was, now))))
    assert found == [missing.replace(" ", ": ")]


def test_every_place_that_the_table_of_questions_names_is_there() -> None:
    page = THEORY.read_text(encoding="utf-8")
    assert len(places(page)) > 20
    assert gone(page, SOURCE) == []


@pytest.mark.parametrize(
    ("cell", "missing"),
    [
        ("`two/`, `one.py`", []),
        ("`two/__init__.py`; and the package's `__init__.py`", []),
        ("`one.py`, `five.py`", ["five.py"]),
        ("`six/`", ["six/"]),
    ],
)
def test_a_place_that_is_gone_is_named(tmp_path: Path, cell: str, missing: list[str]) -> None:
    page = f"{QUESTIONS}| --- | --- |\n| what it is | {cell} |\n\n`elsewhere.py`\n"
    assert gone(page, _package(tmp_path, GOOD)) == missing
