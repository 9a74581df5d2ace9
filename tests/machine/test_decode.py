"""What an instruction is about to do, read from its bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.observe.decode import Kind, Operation, decoded
from tightrope.x86.walk import Access

RIP = 0x7000
R, W = Access.READ, Access.WRITE
VALUES = {
    "rax": 0x1000, "rbx": 0x2000, "rcx": 3, "rsp": 0x8000, "rsi": 0x3000, "rdi": 0x4000,
    "eax": 0x1000,
}  # fmt: skip


def operation(text: str) -> Operation:
    return Operation(bytes.fromhex(text), RIP)


@pytest.mark.parametrize(
    ("code", "text", "kind", "target", "source"),
    [
        ("90", "nop", Kind.PLAIN, "", ""),
        ("0f22c0", "mov %rax,%cr0", Kind.CONTROL_WRITE, "cr0", "rax"),
        ("0f22d9", "mov %rcx,%cr3", Kind.CONTROL_WRITE, "cr3", "rcx"),
        ("410f22d8", "mov %r8,%cr3", Kind.CONTROL_WRITE, "cr3", "r8"),
        ("0f22e3", "mov %rbx,%cr4", Kind.CONTROL_WRITE, "cr4", "rbx"),
        ("440f22c0", "mov %rax,%cr8", Kind.CONTROL_WRITE, "cr8", "rax"),
        ("0f20d8", "mov %cr3,%rax", Kind.CONTROL_READ, "cr3", "rax"),
        ("0f23f8", "mov %rax,%dr7", Kind.DEBUG_WRITE, "dr7", "rax"),
        ("0f30", "wrmsr", Kind.WRMSR, "", ""),
        ("0f0110", "lgdt (%rax)", Kind.DESCRIPTOR_TABLE, "gdt", ""),
        ("0f0118", "lidt (%rax)", Kind.DESCRIPTOR_TABLE, "idt", ""),
        ("0f0100", "sgdt (%rax)", Kind.PLAIN, "", ""),
        ("8ed8", "mov %eax,%ds", Kind.SEGMENT_LOAD, "ds", "eax"),
        ("8ed0", "mov %eax,%ss", Kind.SEGMENT_LOAD, "ss", "eax"),
        ("8e18", "mov (%rax),%ds", Kind.SEGMENT_LOAD, "ds", "none"),
        ("8cd8", "mov %ds,%eax", Kind.PLAIN, "", ""),
        ("4889c4", "mov %rax,%rsp", Kind.STACK, "rsp", ""),
        ("bc00100000", "mov $0x1000,%esp", Kind.STACK, "rsp", ""),
        ("488da600100000", "lea 0x1000(%rsi),%rsp", Kind.STACK, "rsp", ""),
        ("4889e0", "mov %rsp,%rax", Kind.PLAIN, "", ""),
        ("48cb", "lretq", Kind.FAR_RETURN, "cs", ""),
        ("cb", "lretl", Kind.FAR_RETURN, "cs", ""),
        ("48cf", "iretq", Kind.FAR_RETURN, "cs", ""),
        ("c3", "ret", Kind.INDIRECT, "", ""),
        ("ffe0", "jmp *%rax", Kind.INDIRECT, "", ""),
        ("ff10", "callq *(%rax)", Kind.INDIRECT, "", ""),
        ("eb00", "jmp 0x0000000000007002", Kind.PLAIN, "", ""),
        ("e800000000", "call 0x0000000000007005", Kind.PLAIN, "", ""),
        ("fa", "cli", Kind.FLAGS, "rflags", ""),
        ("fb", "sti", Kind.FLAGS, "rflags", ""),
        ("9d", "popf", Kind.FLAGS, "rflags", ""),
        ("f348a5", "rep movsq (%rsi),(%rdi)", Kind.STRING, "", ""),
        ("f3a4", "rep movsb (%rsi),(%rdi)", Kind.STRING, "", ""),
        ("f2a4", "repne movsb (%rsi),(%rdi)", Kind.STRING, "", ""),
        ("f348ab", "rep stos %rax,(%rdi)", Kind.STRING, "", ""),
        ("48a5", "movsq (%rsi),(%rdi)", Kind.PLAIN, "", ""),
        ("67f348a5", "rep movsq (%esi),(%edi)", Kind.PLAIN, "", ""),
        ("f3aa", "rep stos %al,(%rdi)", Kind.STRING, "", ""),
        ("f3ac", "rep lods (%rsi),%al", Kind.PLAIN, "", ""),
        ("0f0138", "invlpg (%rax)", Kind.INVLPG, "", ""),
        ("f4", "hlt", Kind.HALT, "", ""),
    ],
)
def test_an_instruction_is_sorted(
    code: str, text: str, kind: Kind, target: str, source: str
) -> None:
    got = operation(code)
    assert (got.text, got.kind, got.target, got.source) == (text, kind, target, source)
    assert got.size == len(code) // 2
    assert got.valid


def test_what_sets_state_is_told() -> None:
    sets = {"0f0110", "0f0118", "8ed8", "4889c4", "488da600100000"}
    for code in (
        "0f0110",
        "0f0118",
        "8ed8",
        "4889c4",
        "488da600100000",
        "0f22c0",
        "fa",
        "48cb",
        "c3",
    ):
        assert operation(code).sets_state is (code in sets), code


@pytest.mark.parametrize(
    ("code", "width"),
    [("f3a4", 1), ("f366a5", 2), ("f3a5", 4), ("f348a5", 8), ("f3aa", -1), ("f366ab", -2),
     ("f3ab", -4), ("f348ab", -8), ("90", 0), ("a4", 0)],
)  # fmt: skip
def test_the_width_of_a_repeated_string_instruction(code: str, width: int) -> None:
    assert operation(code).string_width == width


@pytest.mark.parametrize(
    ("code", "accesses"),
    [
        ("50", [(0x7FF8, 8, W)]),
        ("58", [(0x8000, 8, R)]),
        ("c3", [(0x8000, 8, R)]),
        ("48cb", [(0x8000, 8, R), (0x8008, 8, R)]),
        ("cb", [(0x8000, 4, R), (0x8004, 4, R)]),
        ("0f0154240e", [(0x800E, 10, R)]),
        ("f348a5", [(0x4000, 8, W), (0x3000, 8, R)]),
        ("f366ab", [(0x4000, 2, W)]),
        ("488b849800ffffff", [(0x1000 + 4 * 0x2000 - 0x100, 8, R)]),
        ("480100", [(0x1000, 8, W)]),
        ("ff10", [(0x1000, 8, R), (0x7FF8, 8, W)]),
        ("488b0510000000", [(RIP + 7 + 0x10, 8, R)]),
        ("678b4020", [(0x1020, 4, R)]),
        ("488b80f0efffff", [((1 << 64) - 0x10, 8, R)]),
        ("4889c4", []),
        ("0f22c0", []),
    ],
)
def test_every_memory_access_is_named(code: str, accesses: list[tuple[int, int, Access]]) -> None:
    values = VALUES | ({"rax": 0x1000 - 0x0} if code != "488b80f0efffff" else {"rax": 0x1000})
    assert operation(code).accesses(values.__getitem__) == accesses


@pytest.mark.parametrize(
    ("code", "address"),
    [
        ("0f0110", 0x1000),
        ("0f0154240e", 0x800E),
        ("0f011510000000", RIP + 7 + 0x10),
        ("0f0138", 0x1000),
        ("670f011510000000", RIP + 8 + 0x10),
        ("0f017c9808", 0x1000 + 4 * 0x2000 + 8),
        ("0f22c0", None),
        ("90", None),
    ],
)
def test_the_operand_in_memory_also_where_nothing_is_read(code: str, address: int | None) -> None:
    assert operation(code).memory_operand(VALUES.__getitem__) == address


@pytest.mark.parametrize("code", ["06", "0f3c", "61", "", "48"])
def test_bytes_that_are_no_instruction_are_not_valid(code: str) -> None:
    assert not operation(code).valid


def test_the_same_bytes_elsewhere_are_another_instruction() -> None:
    code = bytes.fromhex("e800000000")
    assert decoded(code, 0x1000).text != decoded(code, 0x2000).text


@given(st.binary(min_size=0, max_size=15), st.integers(0, (1 << 64) - 1))
def test_any_bytes_give_an_operation(code: bytes, rip: int) -> None:
    got = Operation(code, rip)
    assert 0 <= got.size <= len(code)
    for at, size, _ in got.accesses(lambda _name: 0x1234_5678_9ABC_DEF0):
        assert 0 <= at < 1 << 64
        assert size >= 1
    assert got.kind in Kind
