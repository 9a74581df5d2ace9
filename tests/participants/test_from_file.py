"""A user's own relocation code in place of ours: the same walk where it is the same code, one line else."""

from __future__ import annotations

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import lacking
from tests.makers.designs import DESIGNS, IN_PLACE, ONE_TABLE, SPLIT_FUNCTION, TWO_TABLES
from tests.modes.runs import kernel, request
from tests.modes.runs import shared as machine
from tightrope import host as host_room
from tightrope import routines
from tightrope.check import check
from tightrope.cli import main
from tightrope.deeds.rehearse import build, prepare
from tightrope.errors import BadInput
from tightrope.model import Outcome, Paging, Plan, Step, Stop
from tightrope.participants import from_file
from tightrope.participants.from_file import Written

SOURCES = Path(routines.__file__).parent


def source(paging: Paging) -> Path:
    return SOURCES / f"relocate_{'x86_64' if paging.long_mode else 'i386'}.S"


def needs_as() -> None:
    if shutil.which("as") is None:
        lacking("no GNU as here: install binutils")


def plan_on(paging: Paging) -> Plan:
    old = host_room.read(host_room.example(paging), "example")
    return prepare(kernel(), old, request())


@pytest.mark.parametrize("contract", sorted(set(DESIGNS) - {IN_PLACE, SPLIT_FUNCTION}))
@pytest.mark.parametrize("paging", Paging)
def test_our_own_source_is_walked_as_ours(paging: Paging, contract: str) -> None:
    needs_as()
    plan = plan_on(paging)
    code = from_file.relocation(from_file.read(source(paging), paging), contract, paging)
    theirs, ours = build(plan, design=code), build(plan, design=contract)
    assert theirs.design == f"{contract} by {source(paging).name}"
    assert theirs.code.data == ours.code.data
    assert theirs.code.symbols == ours.code.symbols
    assert (theirs.pieces, theirs.registers) == (ours.pieces, ours.registers)
    assert code.begins(Step.STATE) == ours.relocation_code.begins(Step.STATE)
    assert check(theirs, machine().run(theirs)) == ()


def test_raw_bytes_have_no_labels_and_are_walked_all_the_same() -> None:
    data = routines.read(routines.RELOCATE_X86_64).data
    raw = Written(source="theirs.bin", data=data, bits=None)
    code = from_file.relocation(raw, TWO_TABLES, Paging.X86_64)
    assert all(code.begins(step) is None for step in Step)
    built = build(plan_on(Paging.X86_64), design=code)
    assert check(built, machine().run(built)) == ()


def test_code_that_halts_is_told_by_its_hlt_and_not_by_what_lies_behind_it() -> None:
    raw = Written(source="halts.bin", data=b"\xfa\xfc\xf4\x90", bits=None)  # cli, cld, hlt, nop
    code = from_file.relocation(raw, TWO_TABLES, Paging.X86_64)
    built = build(plan_on(Paging.X86_64), design=code)
    [arrived] = [each for each in check(built, machine().run(built)) if each.rule == "arrived"]
    assert f"halted at {built.registers.rip + 2:#x} and never" in arrived.message
    assert arrived.evidence["instruction"] == "hlt"


@given(
    at=st.integers(0, 3),
    value=st.sampled_from([b"\x0f\x0b", b"\xf4\xf4", b"\xcc\xcc"]),
    paging=st.sampled_from(Paging),
)
@settings(max_examples=20, deadline=None)
def test_code_that_is_broken_falls(at: int, value: bytes, paging: Paging) -> None:
    """#UD, a halt or a breakpoint over one of the first instructions."""
    name = routines.RELOCATE_X86_64 if paging.long_mode else routines.RELOCATE_I386
    data = bytearray(routines.read(name).data)
    data[at : at + 2] = value
    written = Written(source="broken.bin", data=bytes(data), bits=None)
    built = build(plan_on(paging), design=from_file.relocation(written, TWO_TABLES, paging))
    run = machine().run(built)
    assert run.stop is not Stop.ENTRY
    assert check(built, run)


def test_a_contract_is_only_what_code_in_the_control_page_can_keep() -> None:
    for paging in Paging:
        known = from_file.contracts(paging)
        assert not {IN_PLACE, SPLIT_FUNCTION} & set(known)
        assert {TWO_TABLES, ONE_TABLE} <= set(known)


@pytest.mark.parametrize("contract", ["", "three-tables", IN_PLACE])
def test_a_contract_that_is_none_is_refused_with_those_that_are(contract: str) -> None:
    written = Written(source="x.bin", data=b"\xf4", bits=None)
    with pytest.raises(
        BadInput, match="is not a contract; there are two-tables, one-table, damm-v4"
    ):
        from_file.relocation(written, contract, Paging.X86_64)


def test_code_of_another_width_is_refused() -> None:
    written = Written(source="x.o", data=b"\xf4", bits=32)
    with pytest.raises(BadInput, match="its code is 32-bit, and la57 is not"):
        from_file.relocation(written, TWO_TABLES, Paging.LA57)
    wide = replace(written, bits=64)
    with pytest.raises(BadInput, match="its code is 64-bit, and pae is not"):
        from_file.relocation(wide, TWO_TABLES, Paging.PAE)


# ------------------------------------------------------------------------------ on the command line


def run(capsys: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str, str]:
    status = main(["rehearse", "--shipped", *map(str, words)])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_report_says_whose_code_was_walked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theirs.bin").write_bytes(routines.read(routines.RELOCATE_X86_64).data)
    words = ("--relocation", tmp_path / "theirs.bin", "--contract", "one-table")
    status, out, _ = run(capsys, *words)
    assert status == 0
    assert "one-table by theirs.bin" in out
    code = f"the relocation code of {tmp_path / 'theirs.bin'};"
    assert code in " ".join(out.split())
    assert "Tightrope's own relocation code" not in " ".join(out.split())
    assert Outcome.HOLDS.value in out


def object_file(machine: int) -> bytes:
    """An ELF64 header of an object file with its null section and nothing else (System V ABI)."""
    head = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\2\1\1" + bytes(9),
        1,
        machine,
        1,
        0,
        0,
        64,
        0,
        64,
        0,
        0,
        64,
        1,
        0,
    )
    return head + bytes(64)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("foo %rax\n", "GNU as refuses it: line 1: Error: no such instruction"),
        ("call elsewhere\n", "its .text has relocations"),
        (".data\n.quad 1\n", "there is no code in it"),
        (".fill 4000, 1, 0x90\n", "do not fit on a control page"),
    ],
)
def test_a_source_that_is_no_code_for_a_page_is_one_line(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    needs_as()
    (tmp_path / "theirs.S").write_text(text)
    status, out, err = run(
        capsys, "--relocation", tmp_path / "theirs.S", "--contract", "two-tables"
    )
    assert (status, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1
    assert [each.name for each in tmp_path.iterdir()] == ["theirs.S"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--relocation", "code.bin"], "needs --contract"),
        (["--contract", "two-tables"], "needs --relocation"),
        (["--relocation", "code.bin", "--contract", "four"], "'four' is not a contract"),
        (["--relocation", "none.bin", "--contract", "two-tables"], "No such file"),
        (["--relocation", "empty.bin", "--contract", "two-tables"], "there is no code in it"),
        (["--relocation", "large.bin", "--contract", "two-tables"], "do not fit on a control page"),
        (["--relocation", "other.o", "--contract", "two-tables"], "not an object file"),
        (["--relocation", "arm.o", "--contract", "two-tables"], "machine EM_AARCH64 is not x86"),
        (["--relocation", "huge.bin", "--contract", "two-tables"], "too large a file for code"),
        (["--relocation", "/dev/zero", "--contract", "two-tables"], "too large a file for code"),
        (["--relocation", ".", "--contract", "two-tables"], "Is a directory"),
        (
            ["--xen", "v2", "--relocation", "code.bin", "--contract", "two-tables"],
            "no hypervisor calls two-tables by code.bin",
        ),
    ],
)
def test_what_cannot_be_walked_is_one_line_and_no_verdict(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("code.bin").write_bytes(b"\xf4")
    Path("empty.bin").write_bytes(b"")
    Path("large.bin").write_bytes(bytes(4096))
    Path("other.o").write_bytes(b"\x7fELF" + bytes(10))
    Path("arm.o").write_bytes(object_file(machine=183))
    Path("huge.bin").write_bytes(bytes((4 << 20) + 1))
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


def test_the_list_of_contracts_has_each_register_with_what_it_holds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["contracts"]) == 0
    text = capsys.readouterr().out
    for name, each in from_file.contracts(Paging.X86_64).items():
        assert f"{name}\n" in text
        for register, what in each.contract.arguments.items():
            assert any(register in line and what in line for line in text.splitlines())
