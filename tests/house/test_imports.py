"""Starting the command is cheap: nothing heavy is imported before somebody needs it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable

from tightrope.cli.commands import FILES

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


ITS_OWN = re.compile(r"tightrope(\.(cli(\..*)?|choices|errors|deeds(\.machines)?|prove(\.says)?))?")
"""Modules of ours that show what can be said, and load no room to do so."""


def help_imports(words: Iterable[str], before: str = "") -> set[str]:
    """What making and showing the help of some commands imports, besides what argparse does."""
    program = (
        "import sys, argparse, shutil, textwrap; before = set(sys.modules)\n"
        f"from tightrope.cli.parser import parser\n{before}\n"
        f"for word in {list(words)!r}:\n"
        "    helps = [parser([word])]\n"
        "    for each in helps:\n"
        "        each.format_help()\n"
        "        for action in each._subparsers._group_actions if each._subparsers else ():\n"
        "            helps += filter(None, action.choices.values())\n"
        "print(*(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return set(done.stdout.split())


def slow(modules: set[str]) -> set[str]:
    """Those of them that `--help` has to do without."""
    return {
        each
        for each in modules
        if each in SLOW | HEAVY or (each.startswith("tightrope") and not ITS_OWN.fullmatch(each))
    }


def test_help_imports_nothing_that_it_does_not_need() -> None:
    assert not slow(help_imports(["--help"]))


def test_nor_does_the_help_of_any_command() -> None:
    words = [word for words in FILES.values() for word in words]
    imported = help_imports(words)
    assert {"tightrope.cli.commands.rehearse", "tightrope.choices"} <= imported
    assert not slow(imported)


def test_help_that_asks_a_room_for_a_name_would_be_seen() -> None:
    asks = "from tightrope.cli import arguments\narguments.new_kernel = lambda _: __import__('tightrope.model.host')"
    assert {"tightrope.model", "dataclasses"} <= slow(help_imports(["rehearse"], asks))


def test_the_version_is_said_without_a_command() -> None:
    assert not {each for each in help_imports(["--version"]) if "commands." in each}
