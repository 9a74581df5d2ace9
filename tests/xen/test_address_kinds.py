"""A mix-up of pseudo-physical and machine addresses is a type error before it is a triple fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
GOOD = """
from tightrope.memory import Machine, Phys, PseudoPhys, Virt
from tightrope.model import Piece, PieceRole, XenPage
from tightrope.model.p2m import P2m

def list_word(frame: Machine) -> int:
    return frame | 8

def loads_cr3(root: Phys) -> None: ...

def sound(p2m: P2m, own: PseudoPhys, machine: Machine, virt: Virt) -> None:
    loads_cr3(p2m.machine(own))
    loads_cr3(machine)
    list_word(p2m.machine(own))
    Piece(phys=machine, data=b"", role=PieceRole.OTHER, which="a page")
    back = p2m.pseudo(machine)
    XenPage(name="PGD", slot=2, machine=machine, pseudo=back, fixmap=virt)
"""
MIX_UPS = (
    "    loads_cr3(own)",
    "    list_word(own)",
    "    list_word(Phys(1))",
    '    Piece(phys=own, data=b"", role=PieceRole.OTHER, which="a page")',
    '    XenPage(name="PGD", slot=2, machine=own, pseudo=own, fixmap=virt)',
    '    XenPage(name="PGD", slot=2, machine=machine, pseudo=machine, fixmap=virt)',
    "    p2m.machine(machine)",
    "    p2m.pseudo(own)",
    "    p2m.machine(0x1000)",
)


@pytest.fixture(scope="module")
def complaints(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """mypy's errors by line, for the sound lines with all mix-ups behind them."""
    path = tmp_path_factory.mktemp("kinds") / "kinds.py"
    path.write_text(GOOD + "\n".join(MIX_UPS) + "\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "kinds.py" in done.stdout, done.stdout + done.stderr
    rows = (line.split(":", 3) for line in done.stdout.splitlines() if "kinds.py" in line)
    return {int(number): text for _path, number, _severity, text in rows}


FIRST = GOOD.count("\n") + 1


def test_what_is_sound_passes(complaints: dict[int, str]) -> None:
    assert [line for line in complaints if line < FIRST] == []


@pytest.mark.parametrize(
    ("number", "line"), list(enumerate(MIX_UPS)), ids=lambda it: str(it).strip()
)
def test_a_mix_up_is_a_type_error(complaints: dict[int, str], number: int, line: str) -> None:
    assert "incompatible type" in complaints.get(FIRST + number, ""), line
