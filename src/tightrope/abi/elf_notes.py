"""Notes of an ELF core: how they lie one behind the other, VMCOREINFO's text, and NT_PRSTATUS.

    name size, description size, type (4 bytes each); name, description, each padded to 4 bytes

Sources: System V ABI (gABI) chapter 5; Linux Documentation/admin-guide/kdump/vmcoreinfo.rst;
include/linux/elfcore.h (struct elf_prstatus_common, elf_prstatus) and asm/user_64.h, user_32.h
(struct user_regs_struct).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

NT_PRSTATUS = 1


def each(segment: memoryview) -> Iterator[tuple[bytes, int, memoryview]]:
    """(name without its zero, type, description) of each note; one that is cut short ends it."""
    at = 0
    while at + 12 <= len(segment):
        name_size, size, kind = (
            int.from_bytes(segment[at + n : at + n + 4], "little") for n in (0, 4, 8)
        )
        name = at + 12
        description = name + (name_size + 3 & ~3)
        end = description + size
        if end > len(segment):
            return
        yield (
            bytes(segment[name : name + min(name_size, 64)]).rstrip(b"\0"),
            kind,
            segment[description:end],
        )
        at = description + (size + 3 & ~3)


def lines(text: bytes) -> Iterator[tuple[str, str]]:
    """KEY=VALUE of each line of VMCOREINFO."""
    for line in text.split(b"\0", 1)[0].decode("latin-1").split("\n"):
        key, equals, value = line.partition("=")
        if equals:
            yield key, value


@dataclass(frozen=True, kw_only=True, slots=True)
class Prstatus:
    """Where an NT_PRSTATUS has what; `word` is the bytes of a register."""

    word: int
    pid: int
    registers: int
    names: tuple[str, ...]


PRSTATUS = {
    8: Prstatus(
        word=8,
        pid=32,
        registers=112,
        names=(
            *("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx"),
            *("rdx", "rsi", "rdi", "orig_rax", "rip", "cs", "rflags", "rsp", "ss"),
            *("fs_base", "gs_base", "ds", "es", "fs", "gs"),
        ),
    ),
    4: Prstatus(
        word=4,
        pid=24,
        registers=72,
        names=(
            *("ebx", "ecx", "edx", "esi", "edi", "ebp", "eax", "ds", "es", "fs", "gs"),
            *("orig_eax", "eip", "cs", "eflags", "esp", "ss"),
        ),
    ),
}
"""Bytes of a word -> the layout."""
