"""Somebody else's code: .S, .o and raw bytes are read, and what is no code is refused in one line."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import lacking
from tests.prove.routine.mistakes import MISTAKES, ROUTINES, Mistake
from tightrope import routines
from tightrope.cli import main
from tightrope.errors import BadInput, MissingPart
from tightrope.model import Paging
from tightrope.participants import from_file
from tightrope.prove.routine import foreign
from tightrope.prove.routine.source_lines import lines_of

ARM = b"\x7fELF\x02\x01\x01".ljust(16, b"\0") + struct.pack(
    "<HHIQQQIHHHHHH", 1, 183, 1, 0, 0, 0, 0, 64, 0, 0, 64, 0, 0
)
"""The header of an object file for another processor."""


def needs_as() -> None:
    if shutil.which("as") is None:
        lacking("no GNU as here: install binutils")


def prove(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    status = main(["prove", "code", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_our_own_source_holds_in_both_modes(capsys: pytest.CaptureFixture[str]) -> None:
    needs_as()
    status, out, _ = prove(capsys, ROUTINES / "relocate_x86_64.S", "--contract", "two-tables")
    assert status == 0
    assert "x86_64               holds for all values" in out
    assert "la57                 holds for all values" in out


def test_our_own_32_bit_source_holds(capsys: pytest.CaptureFixture[str]) -> None:
    needs_as()
    assert prove(capsys, ROUTINES / "relocate_i386.S", "--mode", "pae")[0] == 0


def test_code_with_other_registers_for_the_list_holds_as_well(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The loop and what is where in it are found, not told."""
    needs_as()
    text = (ROUTINES / "relocate_x86_64.S").read_text()
    for old, new in (
        ("mov\t%rdi, %rcx\n", "mov\t%rdi, %r11\n"), ("(%rbx), %rcx", "(%r14), %r11"),
        ("add\t$8, %rbx", "add\t$8, %r14"), ("%cl", "%r11b"), ("mov\t%rcx, %r", "mov\t%r11, %r"),
        ("%rbx", "%r14"), ("xor\t%ebx, %ebx\n\tjmp", "xor\t%r14d, %r14d\n\tjmp"),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "other.S").write_text(text)
    assert prove(capsys, tmp_path / "other.S", "--mode", "x86_64")[0] == 0


def test_raw_bytes_and_an_object_file_are_the_same_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_as()
    source = ROUTINES / "relocate_x86_64.S"
    subprocess.run(["as", "--64", "-o", tmp_path / "code.o", source], check=True)
    (tmp_path / "code.bin").write_bytes(routines.read(routines.RELOCATE_X86_64).data)
    one, other = (from_file.read(tmp_path / f"code.{kind}", None) for kind in ("o", "bin"))
    assert one.data == other.data
    assert (one.bits, other.bits) == (64, None)
    assert prove(capsys, tmp_path / "code.bin", "--mode", "x86_64")[0] == 0


def test_a_mistake_is_a_line_with_reason_input_and_what_the_emulator_saw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_as()
    (tmp_path / "theirs.S").write_text(MISTAKES[0].source())
    status, out, _ = prove(capsys, tmp_path / "theirs.S", "--mode", "x86_64")
    assert status == 1
    assert "COUNTEREXAMPLE: #GP: CR0.WP cannot be cleared while CR4.CET is set" in out
    assert "in the emulator: legal-writes" in " ".join(out.split())
    assert "\n        and      V = 0x" in out
    assert max(map(len, out.splitlines())) <= 110


def edited(mistake: str) -> str:
    return next(each.source() for each in MISTAKES if each.name == mistake)


def line_of(text: str, wanted: str) -> int:
    return 1 + next(n for n, line in enumerate(text.splitlines()) if wanted in line)


def test_a_mistake_is_told_by_offset_source_line_and_what_it_depends_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_as()
    text = edited("PGE is cleared only after the jump to P")
    (tmp_path / "theirs.S").write_text(text)
    _, out, _ = prove(capsys, tmp_path / "theirs.S", "--mode", "x86_64", "--json")
    told = json.loads(out)["goals"][0]["told"]
    assert f"theirs.S:{line_of(text, 'pushq')} `pushq $0`" in told["at"]
    assert told["at"].startswith("offset 0xc `push $0`")
    assert told["where"] == "from the call to the list"
    assert "P = 0x" in told["when"]
    assert "PGE" in told["when"]
    assert "old global mapping of P" in told["when"]
    assert "rax" not in told["when"]


def test_a_mistake_in_the_loop_says_which_branches_lead_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_as()
    text = edited("the flags are tested in another order")
    (tmp_path / "theirs.S").write_text(text)
    _, out, _ = prove(capsys, tmp_path / "theirs.S", "--mode", "x86_64", "--json")
    told = json.loads(out)["goals"][0]["told"]
    assert f"theirs.S:{line_of(text, 'jnz	done')} `jnz done` taken" in told["way"]
    assert "(INDIRECTION|DONE)" in told["when"]


@pytest.mark.parametrize(
    ("mode", "text", "says"),
    [
        ("x86_64", "push %rbx\npushfq\nmov 8(%rsi), %r11\nmov %r11, %cr3\nhlt\n", "Linux's"),
        ("i386", "push %ebx\nmov 8(%esp), %edx\nmov %edx, %cr3\nhlt\n", "through esp"),
    ],
)
def test_code_for_another_contract_is_told_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: str, text: str, says: str
) -> None:
    needs_as()
    (tmp_path / "linux.S").write_text(text)
    status, out, _ = prove(capsys, tmp_path / "linux.S", "--mode", mode, "--json")
    told = json.loads(out)["goals"][0]["told"]
    assert status == 1
    assert next(iter(told)) == "contract"
    assert says in told["contract"]
    assert "--contract two-tables does not fit" in told["contract"]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_in_code_for_this_contract_is_not_taken_for_another(mistake: Mistake) -> None:
    needs_as()
    bits = 64 if mistake.mode.long_mode else 32
    made = from_file.assemble(mistake.source().encode(), "mistake", bits)
    assert foreign.misfit(from_file.code_of(made, "mistake").data, bits) == ""


def test_an_object_file_with_lines_has_them_and_one_without_has_not(tmp_path: Path) -> None:
    needs_as()
    (tmp_path / "some.S").write_text("\tnop\n\n\tcli\n\tcld\n")
    for flag, said in (("-g", "some.S:3"), ("--64", "")):
        made = ["as", "--64", flag, "-o", "some.o", "some.S"]
        subprocess.run(made, check=True, cwd=tmp_path)
        assert foreign.read(tmp_path / "some.o", None).lines.at(1) == said


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 2000), value=st.integers(0, 255))
def test_a_broken_line_table_is_no_lines_and_no_error(at: int, value: int) -> None:
    needs_as()
    made = bytearray(with_lines())
    made[at % len(made)] = value
    assert isinstance(lines_of(bytes(made)).at(0), str)


@cache
def with_lines() -> bytes:
    return from_file.assemble(b"\tnop\n\tcli\n", "some.S", 64)


def test_the_counterexample_is_in_the_json_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "halt.bin").write_bytes(b"\xf4")
    status, out, _ = prove(capsys, tmp_path / "halt.bin", "--mode", "la57", "--json")
    (goal,) = json.loads(out)["goals"]
    assert (status, goal["answer"]) == (1, "fails")
    assert "the CPU halts" in goal["detail"]
    assert goal["counterexample"]["V"].startswith("0x")


def test_code_that_the_model_does_not_know_is_not_decided(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cpuid.bin").write_bytes(b"\x0f\xa2\xf4")
    status, out, _ = prove(capsys, tmp_path / "cpuid.bin", "--mode", "x86_64")
    assert status == 2
    assert "the model refuses it: the model has no cpuid" in out


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("none.S", None, "No such file"),
        ("empty.bin", b"", "there is no code"),
        ("long.bin", bytes(4096), "do not fit on a control page"),
        ("bad.o", b"\x7fELF", "not an object file"),
        ("bad.S", b"\tmov %rax\n", "GNU as refuses it: line 1"),
        ("far.S", b"\tjmp elsewhere\n", "relocations"),
        ("arm.o", ARM, "not x86"),
    ],
)
def test_what_is_no_code_is_refused_in_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    data: bytes | None,
    says: str,
) -> None:
    if name.endswith(".S") and data:
        needs_as()
    if data is not None:
        (tmp_path / name).write_bytes(data)
    status, out, err = prove(capsys, tmp_path / name)
    assert (status, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_an_unknown_contract_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.bin").write_bytes(b"\x90")
    assert "there are two-tables" in prove(capsys, tmp_path / "a.bin", "--contract", "none")[2]


def test_without_an_assembler_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    (tmp_path / "a.S").write_text("nop\n")
    with pytest.raises(MissingPart, match="install binutils"):
        foreign.read(tmp_path / "a.S", None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.binary(min_size=1, max_size=200), header=st.booleans())
def test_any_bytes_are_code_or_a_typed_error(tmp_path: Path, data: bytes, header: bool) -> None:
    (tmp_path / "any.o").write_bytes((b"\x7fELF\x02\x01\x01" if header else b"") + data)
    with suppress(BadInput):
        assert foreign.read(tmp_path / "any.o", Paging.X86_64).code.data
