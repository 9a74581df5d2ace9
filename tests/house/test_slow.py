"""tests/slow.txt names test functions that exist, once each: a renamed test does not turn quick unseen."""

from __future__ import annotations

import ast
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LISTED = (REPOSITORY / "tests" / "slow.txt").read_text(encoding="utf-8").split()


def test_every_slow_test_exists() -> None:
    assert LISTED
    missing = [name for name in LISTED if not exists(name)]
    assert missing == []


def test_no_slow_test_is_listed_twice() -> None:
    assert sorted(set(LISTED)) == sorted(LISTED)


def test_a_test_that_is_not_there_is_seen() -> None:
    assert not exists("tests/house/test_slow.py::test_nothing_of_the_kind")
    assert not exists("tests/nowhere.py::test_nothing")
    assert exists("tests/house/test_slow.py::test_every_slow_test_exists")


def exists(name: str) -> bool:
    """Whether FILE::FUNCTION is a function of that file."""
    file, _, function = name.partition("::")
    path = REPOSITORY / file
    if not path.is_file():
        return False
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(each, ast.FunctionDef) and each.name == function for each in tree.body)
