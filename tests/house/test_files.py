"""What every file keeps to: rules at the top, a readable length, nothing of one machine."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "src" / "tightrope"
MODULES = sorted(SOURCE.rglob("*.py"))
WRITTEN = sorted([*MODULES, *SOURCE.rglob("*.S")])
LONGEST = 400

# Put together from pieces, so that this file does not contain what it forbids.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"(?<![\w.])/" + r"(?:work|root)/",
            r"\b(?:files\.)?python" + r"hosted\.org",
            r"\bpypi" + r"\.(?:org|python\.org|io)",
            r"\bfile:" + r"///",
        ]
    )
)


def tracked_text_files() -> Iterator[tuple[Path, str]]:
    """Files that are in the repository or would be with the next commit, unless they are binary."""
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        problem = "git is missing, or this is no clone: what is tracked cannot be told"
        if "CI" in os.environ:
            pytest.fail(problem)
        pytest.skip(f"{problem} (set CI=1 to fail instead)")
    listed = subprocess.run(
        # A container may run as another user than the clone's owner.
        [
            "git",
            "-c",
            "safe.directory=*",
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        path = REPOSITORY / name
        if path.is_file() and b"\0" not in (data := path.read_bytes()):
            yield path, data.decode("utf-8")


def without_rules(files: Mapping[str, str]) -> list[str]:
    """Modules, by name and text, that state no rules at their top."""
    return [name for name, text in files.items() if not ast.get_docstring(ast.parse(text))]


def too_long(files: Mapping[str, str]) -> list[str]:
    """Those that nobody reads to their end, with their length."""
    counted = {name: text.count("\n") for name, text in files.items()}
    return [f"{name}: {lines} lines" for name, lines in counted.items() if lines > LONGEST]


def read(paths: Iterable[Path]) -> dict[str, str]:
    return {each.relative_to(SOURCE).as_posix(): each.read_text(encoding="utf-8") for each in paths}


def test_every_module_states_its_rules_at_the_top() -> None:
    assert len(MODULES) > 200
    assert without_rules(read(MODULES)) == []


def test_every_file_is_short_enough_to_be_read() -> None:
    assert len(WRITTEN) > len(MODULES)
    assert too_long(read(WRITTEN)) == []


def test_a_module_without_rules_and_one_line_too_many_are_found_by_name() -> None:
    files = {"a.py": '"""Rules."""\n', "b.py": "# Rules.\n", "c.py": "x = 1\n" * LONGEST}
    assert without_rules(files) == ["b.py", "c.py"]
    assert too_long(files) == []
    assert too_long({"c.py": files["c.py"] + "\n"}) == [f"c.py: {LONGEST + 1} lines"]


def test_no_file_names_one_machine_or_a_package_registry() -> None:
    files = list(tracked_text_files())
    assert REPOSITORY / "pyproject.toml" in [path for path, _ in files]
    named = [
        f"{path.relative_to(REPOSITORY)}: {found[0]}"
        for path, text in files
        for found in FORBIDDEN.finditer(text)
    ]
    assert named == []


@pytest.mark.parametrize(
    "text",
    ["cd /" + "work/main", "'/" + "root/x'", "https://pypi" + ".org/simple", "file:" + "///x"],
)
def test_what_is_forbidden_is_found(text: str) -> None:
    assert FORBIDDEN.search(text)


@pytest.mark.parametrize("text", ["the /boot/ folder", "network/root/", "a/work/b", "pypi"])
def test_what_is_allowed_is_not_found(text: str) -> None:
    assert not FORBIDDEN.search(text)


def test_the_package_says_that_it_is_typed() -> None:
    assert (SOURCE / "py.typed").is_file()
