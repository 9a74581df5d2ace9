"""Starting the command is cheap: nothing heavy is imported before somebody needs it."""

from __future__ import annotations

import subprocess
import sys

HEAVY = frozenset({"numpy", "unicorn", "iced_x86", "tqdm", "lz4", "zstandard", "z3"})


def imported_by(module: str) -> set[str]:
    """Top-level names in sys.modules after a fresh interpreter imported one module."""
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


def test_the_command_line_imports_nothing_heavy() -> None:
    imported = imported_by("tightrope.cli")
    assert "tightrope" in imported
    assert not imported & HEAVY


def test_a_heavy_import_would_be_seen() -> None:
    assert "numpy" in imported_by("numpy.linalg")


SLOW = frozenset(
    [
        "dataclasses",
        "difflib",
        "inspect",
        "json",
        "mmap",
        "pathlib",
        "shutil",
        "tempfile",
        "textwrap",
        "traceback",
    ]
)
"""Of the standard library: what takes long enough to be felt in `tightrope --help`."""


def test_help_imports_nothing_that_it_does_not_need() -> None:
    program = (
        "import sys, argparse, shutil, textwrap; before = set(sys.modules)\n"
        "from tightrope.cli.parser import parser; parser(['--help']).format_help()\n"
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert not set(done.stdout.split()) & SLOW
