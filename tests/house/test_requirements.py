"""The requirements are pinned, hashed, free of hosts, and cover what pyproject.toml declares."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
GROUPS = {"run": ["build"], "test": ["build", "test", "lint", "docs"]}
EXTRAS = ["inspect", "rehearse", "prove", "html", "fleet", "shell"]

REQUIREMENT = re.compile(r"(?P<name>[a-z0-9-]+)==(?P<version>[0-9][0-9a-z.]*)(?: ; [^;\\]+)?")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def requirements(kind: str) -> list[list[str]]:
    """Each requirement as [what, hash, hash...]."""
    text = (REPOSITORY / "requirements" / f"{kind}.txt").read_text(encoding="utf-8")
    joined = text.replace("\\\n", "\0")
    return [[part.strip() for part in line.split("\0")] for line in joined.splitlines()]


def pins(kind: str) -> set[tuple[str, str]]:
    found = [REQUIREMENT.fullmatch(what) for what, *_ in requirements(kind)]
    return {(match["name"], match["version"]) for match in found if match}


def declared(kind: str) -> set[str]:
    """The normalized names that pyproject.toml asks for, for this kind of environment."""
    lists = [PROJECT["project"]["dependencies"]]
    lists += [PROJECT["project"]["optional-dependencies"][extra] for extra in EXTRAS]
    lists += [PROJECT["dependency-groups"][group] for group in GROUPS[kind]]
    names = [re.split(r"[^\w.-]", entry)[0] for entries in lists for entry in entries]
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


@pytest.mark.parametrize("kind", GROUPS)
def test_every_requirement_is_pinned_and_hashed(kind: str) -> None:
    for what, *hashes in requirements(kind):
        assert REQUIREMENT.fullmatch(what), what
        assert hashes, what
        assert all(HASH.fullmatch(one) for one in hashes), what


@pytest.mark.parametrize("kind", GROUPS)
def test_every_declared_dependency_is_there(kind: str) -> None:
    assert declared(kind) >= {"numpy", "unicorn", "uv-build"}
    assert declared(kind) <= {name for name, _ in pins(kind)}


def test_all_extras_are_covered() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert set(EXTRAS) == set(extras) - {"all"}
    assert extras["all"] == [f"tightrope[{','.join(EXTRAS)}]"]


def test_what_runs_is_what_was_tested() -> None:
    assert pins("run") <= pins("test")
