"""tests/slow.txt names test functions that exist, once each: a renamed test does not turn quick unseen."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
LINES = (REPOSITORY / "tests" / "slow.txt").read_text(encoding="utf-8").splitlines()
LISTED = [line.partition(" ")[0] for line in LINES]


def test_every_slow_test_exists() -> None:
    assert LISTED
    missing = [name for name in LISTED if not exists(name)]
    assert missing == []


def test_they_are_listed_once_each_by_name_so_that_two_additions_merge() -> None:
    assert sorted(set(LISTED)) == LISTED


def test_behind_a_name_stand_whole_seconds_or_nothing() -> None:
    told = [line.partition(" ")[2] for line in LINES if " " in line]
    assert [each for each in told if not each.isdigit()] == []
    assert sum(map(int, told)) > 100


def test_a_test_that_is_not_there_is_seen() -> None:
    assert not exists("tests/house/test_slow.py::test_nothing_of_the_kind")
    assert not exists("tests/nowhere.py::test_nothing")
    assert exists("tests/house/test_slow.py::test_every_slow_test_exists")


def exists(name: str) -> bool:
    """Whether FILE::FUNCTION is a function of that file."""
    file, _, function = name.partition("::")
    return function in functions(REPOSITORY / file)


@cache
def functions(path: Path) -> frozenset[str]:
    """The names of a file's functions; none where there is no file."""
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(each.name for each in tree.body if isinstance(each, ast.FunctionDef))
