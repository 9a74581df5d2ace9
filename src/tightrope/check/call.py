"""The rule about the call: the CPU is as the old kernel has it, but for what the contract hands
over.

Rules: the world says what the old kernel's CPU holds; a register that the contract names is judged
by whoever uses it.  A state that no CPU can be in is told here, before a machine is asked to be in
it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.model import Registers, Step
from tightrope.model.participant import Done
from tightrope.x86.cpu import CR4_CET, RFLAGS_IF

KERNEL_DATA: Mapping[int, int] = {8: 3 << 3, 4: 13 << 3}
"""__KERNEL_DS by bytes of a word: GDT_ENTRY_KERNEL_DS (Linux arch/x86/include/asm/segment.h)."""
LOADED = {8: ("ds", "es", "fs", "gs", "ss"), 4: ("ds", "es", "ss")}
"""What load_segments() loads: a 32-bit kernel keeps fs, its per-CPU data's (machine_kexec_32.c of
6.1; seen in a guest: 0xd8)."""


@rule(
    "call-state",
    Step.CALL,
    says="At the call the CPU is as the old kernel left it, but for the arguments.",
    source="SDM volume 3, 26.3.1: the state that a CPU can be in; Linux machine_kexec_64.c, machine_kexec_32.c",
    mend="call with the CPU as it is; arguments are in the registers of the contract",
)
def call_state(case: Case) -> Iterator[Found]:
    """Every register of the call that is no argument, against the world's."""
    handed = case.contract.arguments  # a word on the stack, "rsp+8", leaves rsp the old kernel's
    left = _left(case.handover.world.registers, case.contract.done, case.intent.word)
    for name, got, wanted in _differences(case.handover.registers, left):
        if name not in handed:
            yield finding(f"{name} is {got} at the call, and the old kernel has {wanted} there")
            return


def _left(registers: Registers, done: frozenset[Done], word: int) -> Registers:
    """The world's registers as the old kernel's own C code leaves them to this contract's code."""
    if Done.INTERRUPTS_OFF in done:
        registers = replace(registers, rflags=registers.rflags & ~RFLAGS_IF)
    if Done.DESCRIPTORS_GONE in done:
        registers = replace(registers, gdt=(0, 0), idt=(0, 0))
    if Done.CET_OFF in done:
        registers = replace(registers, cr4=registers.cr4 & ~CR4_CET)
    if Done.SEGMENTS_LOADED in done:
        data = dict.fromkeys(LOADED[word], KERNEL_DATA[word])
        registers = replace(registers, segments={**registers.segments, **data})
    return registers


def _differences(now: Registers, old: Registers) -> Iterator[tuple[str, str, str]]:
    for name in old.general:
        if now.general[name] != old.general[name]:
            yield name, f"{now.general[name]:#x}", f"{old.general[name]:#x}"
    for name in old.segments:
        if now.segments[name] != old.segments[name]:
            yield name, f"{now.segments[name]:#x}", f"{old.segments[name]:#x}"
    for name, got, wanted in (
        ("RFLAGS", now.rflags, old.rflags),
        ("CR0", now.cr0, old.cr0),
        ("CR3", now.cr3, old.cr3),
        ("CR4", now.cr4, old.cr4),
        ("EFER", now.efer, old.efer),
    ):
        if got != wanted:
            yield name, f"{got:#x}", f"{wanted:#x}"
    for name, table, own in (("gdt", now.gdt, old.gdt), ("idt", now.idt, old.idt)):
        if table != own:
            yield (
                f"the {name}",
                f"at {table[0]:#x}, limit {table[1]:#x}",
                f"one at {own[0]:#x}, limit {own[1]:#x}",
            )
