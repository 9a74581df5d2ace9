"""The routines: the checked-in bytes are what GNU as makes of the sources that a reader sees."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tightrope import routines
from tightrope.memory import PAGE_SIZE

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY / "src" / "tightrope" / "routines"
NAMES = sorted(path.stem for path in FOLDER.glob("*.S"))
LARGEST = 2048
"""Bytes of code: the other half of the control page is the stack's."""


@pytest.fixture(scope="module")
def assembled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what scripts/assemble makes."""
    tools = [tool for tool in ("bash", "as", "objcopy", "nm", "readelf") if not shutil.which(tool)]
    if tools:
        problem = f"no {', '.join(tools)} here: install GNU binutils"
        if "CI" in os.environ:
            pytest.fail(problem)
        pytest.skip(f"{problem} (set CI=1 to fail instead)")
    out = tmp_path_factory.mktemp("assembled")
    done = subprocess.run(
        ["bash", REPOSITORY / "scripts" / "assemble", out], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out


def test_there_are_the_routines_that_the_package_names() -> None:
    named = {value for name, value in vars(routines).items() if name.isupper()}
    assert routines.RELOCATE_X86_64 in named
    assert named <= set(NAMES)


def test_every_source_has_its_bytes_and_symbols_and_nothing_else_lies_there() -> None:
    made = {path.name for path in FOLDER.iterdir() if path.suffix in (".S", ".bin", ".sym")}
    assert made == {f"{name}.{kind}" for name in NAMES for kind in ("S", "bin", "sym")}


@pytest.mark.parametrize("kind", ["bin", "sym"])
@pytest.mark.parametrize("name", NAMES)
def test_the_assembler_makes_the_checked_in_bytes(name: str, kind: str, assembled: Path) -> None:
    file = f"{name}.{kind}"
    assert (assembled / file).read_bytes() == (FOLDER / file).read_bytes()


def test_assembling_elsewhere_makes_these_files_and_no_others(assembled: Path) -> None:
    assert {path.name for path in assembled.iterdir()} == {
        f"{name}.{kind}" for name in NAMES for kind in ("bin", "sym")
    }


@pytest.mark.parametrize("name", NAMES)
def test_the_code_leaves_room_for_the_stack_and_its_symbols_lie_inside(name: str) -> None:
    code = routines.read(name)
    assert code.name == name
    assert code.data == (FOLDER / f"{name}.bin").read_bytes()
    # A purgatory has a segment of its own: three pages, the last KiB of which is the stack's.  What makes
    # its digests is in a process, with a stack of that process's.
    apart = name in (routines.PURGATORY_64, routines.DIGEST_64)
    assert 0 < len(code.data) <= (3 * PAGE_SIZE - 1024 if apart else LARGEST - 1)
    assert code.symbols
    assert all(0 <= offset <= len(code.data) for offset in code.symbols.values())
    assert 0 in code.symbols.values()


def test_the_symbols_are_those_of_the_file() -> None:
    symbols = routines.read(routines.RELOCATE_X86_64).symbols
    lines = (FOLDER / "relocate_x86_64.sym").read_text().splitlines()
    assert len(symbols) == len(lines) > 5
    assert symbols["relocate"] == 0
    assert symbols["gdt_end"] - symbols["gdt"] == 4 * 8
    # The data descriptor and the code descriptor, as the routine's own comments name them.
    data = routines.read(routines.RELOCATE_X86_64).data
    assert data[symbols["gdt"] + 0x10 :][:8] == 0x00AF_9B00_0000_FFFF.to_bytes(8, "little")


STUBS = {
    routines.ENTER_64: ("kernel_entry", "word_rsi"),
    routines.ENTER_32: ("known_cr0", "kernel_entry", "word_eax", "word_ebx", "word_esi"),
    routines.ENTER_32_FROM_64: ("known_cr0", "kernel_entry", "word_eax", "word_ebx", "word_esi"),
}


@pytest.mark.parametrize("name", STUBS)
def test_the_words_that_a_plan_fills_in_are_inside_the_stub_and_empty(name: str) -> None:
    stub = routines.read(name)
    for symbol in STUBS[name]:
        at = stub.symbols[symbol]
        assert at + 8 <= len(stub.data)
        assert stub.data[at : at + 8] == bytes(8)


def test_a_routine_that_is_not_there_is_not_found() -> None:
    with pytest.raises(FileNotFoundError):
        routines.read("relocate_vax")
