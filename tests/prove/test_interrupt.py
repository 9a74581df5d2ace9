"""A signal ends a proof at once, inside z3 too, and what it had made is gone.

Rules: each case is a process of its own; what it does when the signal comes is known from its
output.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import gone
from tightrope.cli.signals import HEEDED

PATIENCE = 240.0
"""Seconds for a loaded machine to answer; what is interrupted would take hours."""
FOR_HOURS = """
from tightrope.cli.signals import Signals
from tightrope.prove.solver import solver_library
z3 = solver_library()
x, y = z3.BitVecs("x y", 128)
wide = z3.ZeroExt(128, x) * z3.ZeroExt(128, y) == 2**201 - 20 * 2**80 + 1
solver = z3.Solver()
solver.add(wide, z3.UGT(x, 1), z3.UGT(y, 1))
with Signals() as heard, heard.raising():
    print("asked", flush=True)
    print(solver.check(), flush=True)
"""


def ended(process: subprocess.Popen[str], number: signal.Signals) -> tuple[int, str]:
    """Its status and the rest of its output, after its first line and then the signal."""
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(number)
    rest, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, rest


@pytest.mark.parametrize("number", HEEDED, ids=lambda number: number.name)
def test_a_signal_ends_a_question_to_z3(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FOR_HOURS],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        status, rest = ended(process, number)
    # Without `main` around it KeyboardInterrupt is Python's to tell, and so is its subclass.
    assert status == (-signal.SIGINT if number is signal.SIGINT else 1)
    assert rest == ""


@pytest.mark.parametrize("number", HEEDED, ids=lambda number: number.name)
def test_a_signal_ends_the_command(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "tightrope", "prove", "--mutants"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        status, rest = ended(process, number)
    assert status == 128 + number
    assert "mutants" not in rest.splitlines()[-1:]


@pytest.mark.parametrize("number", HEEDED, ids=lambda number: number.name)
def test_the_assembler_and_its_folder_are_gone(number: signal.Signals, tmp_path: Path) -> None:
    tools, folder = tmp_path / "tools", tmp_path / "folder"
    tools.mkdir()
    folder.mkdir()
    told = tmp_path / "told"
    os.mkfifo(told)
    fake = tools / "as"
    # It reads to the end, as the real one does: by then whoever started it waits for it.
    fake.write_text(f'#!/bin/sh\ncat > /dev/null\necho $$ > "{told}"\nexec sleep 1000\n')
    fake.chmod(0o755)
    source = tmp_path / "code.S"
    source.write_text("ret\n")
    environment = {**os.environ, "PATH": f"{tools}:/usr/bin:/bin", "TMPDIR": str(folder)}
    with subprocess.Popen(
        [sys.executable, "-m", "tightrope", "prove", "code", source],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        child = int(told.read_text())
        assert list(folder.iterdir())
        process.send_signal(number)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 128 + number
    assert list(folder.iterdir()) == []
    assert gone(child)
