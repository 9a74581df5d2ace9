"""Capturing and checking need the standard library alone: a machine that is captured has nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import tightrope
from tests.makers.trees import machine, plant
from tightrope import host
from tightrope.cli import main

SOURCE = Path(tightrope.__file__).parents[1]


def alone(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in an interpreter without site-packages."""
    program = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from tightrope.cli import main;"
        f" sys.exit(main({list(arguments)!r}))"
    )
    return subprocess.run(
        [sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=False
    )


def test_a_machine_is_captured_and_checked_with_the_standard_library_alone(tmp_path: Path) -> None:
    tree = str(plant(tmp_path / "tree", machine()))
    out = tmp_path / "host.toml"
    done = alone("host", "capture", "--from", tree, "-o", str(out))
    assert (done.returncode, done.stdout) == (0, "")
    assert out.read_text() == host.capture(host.read_copy(tree), tree).toml
    checked = alone("host", "check", str(out))
    assert (checked.returncode, checked.stderr) == (0, "")
    assert "private: where the kernel's tables and stack lie" in checked.stdout
    here = alone("host", "capture")
    assert here.returncode == 0
    assert "numpy" not in here.stderr


def test_such_an_interpreter_has_nothing_else() -> None:
    done = alone("rehearse", "--shipped")
    assert done.returncode == 2
    assert "needs " in done.stderr
    assert main(["rehearse", "--shipped"]) == 0
