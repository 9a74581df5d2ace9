"""The linters are tests: what they find fails, as any other fault does."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = [
    path
    for path in ("src", "tests", "bench", "scripts/build-shipped-kernel")
    if (REPOSITORY / path).exists()
]


def lint(tool: str, *arguments: str) -> None:
    """Run a linter of this environment over the repository; its words are the failure."""
    if importlib.util.find_spec(tool) is None:
        problem = f"{tool} is not installed: run scripts/setup test"
        if "CI" in os.environ:
            pytest.fail(problem)
        pytest.skip(f"{problem} (set CI=1 to fail instead)")
    done = subprocess.run(
        [sys.executable, "-m", tool, *arguments],
        cwd=REPOSITORY,
        env=os.environ | {"MYPYPATH": "src"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_check_is_content() -> None:
    lint("ruff", "check", *SOURCES)


def test_ruff_format_would_change_nothing() -> None:
    lint("ruff", "format", "--check", *SOURCES)


def test_mypy_strict_is_content() -> None:
    # Files are named from here (tests.image.test_elf), so that two folders may have a conftest.py.
    lint("mypy", "--explicit-package-bases")
