"""Licence, decision records and hooks say the same thing wherever they say it.

Rules: only files of the repository are read; what a hook runs is compared with what the linters' own test runs.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
RECORDS = sorted((REPOSITORY / "docs" / "decisions").glob("[0-9]*.md"))
HOOKS = re.findall(
    r"^ +entry: (.+)$", (REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"), re.M
)


def test_the_licence_is_one_everywhere() -> None:
    text = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert PROJECT["license"] == "GPL-2.0-only"
    assert PROJECT["license-files"] == ["LICENSE"]
    assert text.split()[:6] == ["GNU", "GENERAL", "PUBLIC", "LICENSE", "Version", "2,"]
    assert "END OF TERMS AND CONDITIONS" in text
    assert "GPL-2.0-only" in (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_decision_is_listed_under_its_title() -> None:
    index = (REPOSITORY / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\d+)\]\((.+?)\) \| (.+?) \|$", index, re.M)
    assert [path.name for path in RECORDS] == [name for _, name, _ in listed]
    for path, (number, _, title) in zip(RECORDS, listed, strict=True):
        assert path.read_text(encoding="utf-8").splitlines()[0] == f"# {number} {title}"


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_decision_says_what_forced_it_what_was_chosen_and_what_it_costs(path: Path) -> None:
    parts = re.findall(r"^\*\*(.+?)\.\*\*", path.read_text(encoding="utf-8"), re.M)
    assert parts == ["What forced a choice", "Chosen", "Costs"]


def test_hooks_run_what_the_linters_test_runs() -> None:
    words = [shlex.split(entry) for entry in HOOKS]
    modules = {each[each.index("-m") + 1] for each in words if "-m" in each}
    assert ["make", "--no-print-directory", "quick"] in words
    assert {"ruff", "mypy", "pytest"} <= modules
    linters = (REPOSITORY / "tests" / "house" / "test_linters.py").read_text(encoding="utf-8")
    assert '"mypy", "--explicit-package-bases"' in linters
    assert any("mypy --explicit-package-bases" in entry for entry in HOOKS)


@pytest.mark.parametrize("entry", HOOKS)
def test_the_files_that_a_hook_names_are_there(entry: str) -> None:
    named = [word for word in shlex.split(entry) if "/" in word and not word.startswith(".venv/")]
    assert [word for word in named if not (REPOSITORY / word).exists()] == []


def test_every_kernel_that_a_test_asks_for_is_fetched() -> None:
    script = (REPOSITORY / "scripts" / "fetch-kernels").read_text(encoding="utf-8")
    fetched = set(re.findall(r'^    "([a-z0-9.-]+) +\S', script, re.M))
    asked = {
        flavour
        for path in (REPOSITORY / "tests").rglob("*.py")
        for flavour in re.findall(r'debian_kernel\("([^"]+)"\)', path.read_text(encoding="utf-8"))
    }
    assert {"amd64", "686", "amd64-7.3"} <= fetched
    assert asked
    assert asked <= fetched
