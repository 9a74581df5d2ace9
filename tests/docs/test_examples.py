"""The examples in README.md and docs/ are run, and print what they say they print.

Rules: a ```console block holds `$ command` lines, each followed by its output; `...` stands for
anything, also on a line of its own.  A ```python block runs as it stands.
"""

from __future__ import annotations

import doctest
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import lacking

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(console|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(kind: str) -> Iterator[object]:
    for page in PAGES:
        for number, match in enumerate(BLOCK.finditer(page.read_text())):
            if match.group(1) == kind:
                yield pytest.param(match.group(2), id=f"{page.name}-{number}")


def commands(block: str) -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for line in block.splitlines(keepends=True):
        if line.startswith("$ "):
            out.append((line[2:].strip(), ""))
        else:
            out[-1] = (out[-1][0], out[-1][1] + line)
    return out


def run(command: str, folder: Path) -> str:
    name, *arguments = shlex.split(command)
    assert name == "tightrope", "only our own command stands in examples"
    done = subprocess.run(
        [sys.executable, "-m", "tightrope", *arguments],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.parametrize("block", list(blocks("console")))
def test_a_console_example_prints_what_it_says(block: str, tmp_path: Path) -> None:
    for command, wanted in commands(block):
        if "--on qemu" in command and shutil.which("qemu-system-x86_64") is None:
            lacking("no qemu-system-x86_64 here: run scripts/system-packages")
        got = run(command, tmp_path)
        flags = (
            doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        )  # where a line is parted is no content
        matches = doctest.OutputChecker().check_output(wanted, got, flags)
        assert matches, f"$ {command}\n{got}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("block", list(blocks("python")))
def test_a_python_example_runs(block: str) -> None:
    exec(compile(block, "example", "exec"), {})


def test_there_are_examples_to_run() -> None:
    assert len(list(blocks("console"))) >= 3
    assert list(blocks("python"))


def test_a_wrong_example_would_be_noticed() -> None:
    checker = doctest.OutputChecker()
    assert not checker.check_output("holds ...\n", "falls at once\n", doctest.ELLIPSIS)


def test_the_readme_names_the_two_commands() -> None:
    text = (REPOSITORY / "README.md").read_text()
    for target in ("make run", "make test"):
        assert target in text
        name = target.split()[1]
        assert re.search(rf"^{name}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
