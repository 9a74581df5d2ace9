"""A CPU's registers, for people and as numbers.

Rules: a CPU that is not in long mode has 32-bit names and widths, and half as many registers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from tightrope.model import Registers
from tightrope.views import words
from tightrope.x86 import cpu as x86

GENERAL_ROWS = (
    ("rax", "rbx", "rcx"),
    ("rdx", "rsi", "rdi"),
    ("rbp", "rsp"),
    ("r8", "r9", "r10"),
    ("r11", "r12", "r13"),
    ("r14", "r15"),
)
LEGACY_ROWS = 3
"""A CPU that is not in long mode has the first of them, by their 32-bit names."""


class DescriptorTable(TypedDict):
    """A descriptor table register."""

    base: int
    limit: int


class RegisterFacts(TypedDict):
    """Every register, by name."""

    general: dict[str, int]
    rip: int
    rflags: int
    cr0: int
    cr3: int
    cr4: int
    efer: int
    segments: dict[str, int]
    gdt: DescriptorTable
    idt: DescriptorTable


def lines(values: Registers) -> Iterator[str]:
    """The CPU in ten lines; in seven where it is not in long mode."""
    if values.efer & x86.EFER_LMA:
        for row in GENERAL_ROWS:
            yield "  ".join(f"{name:<3} {values.general[name]:#018x}" for name in row)
    else:
        for row in GENERAL_ROWS[:LEGACY_ROWS]:
            yield "  ".join(f"e{name[1:]} {values.general[name]:#010x}" for name in row)
    yield f"cr0 {words.control('cr0', values.cr0)}   cr4 {words.control('cr4', values.cr4)}"
    yield (
        f"cr3 {values.cr3:#x}   efer {words.control('efer', values.efer)}"
        f"   flags {words.control('rflags', values.rflags)}"
    )
    yield " ".join(f"{name} {value:#x}" for name, value in values.segments.items())
    yield f"gdt {values.gdt[0]:#x}/{values.gdt[1]:#x}   idt limit {values.idt[1]:#x}"


def facts(values: Registers) -> RegisterFacts:
    """The same as numbers."""
    return {
        "general": dict(values.general),
        "rip": values.rip,
        "rflags": values.rflags,
        "cr0": values.cr0,
        "cr3": values.cr3,
        "cr4": values.cr4,
        "efer": values.efer,
        "segments": dict(values.segments),
        "gdt": {"base": values.gdt[0], "limit": values.gdt[1]},
        "idt": {"base": values.idt[0], "limit": values.idt[1]},
    }
