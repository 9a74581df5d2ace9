"""What a CPU refuses, at the exact instruction; and that Unicorn alone would have let it pass.

Each row is a routine that runs at V under the old kernel's tables: some preparation, the instruction
that must fault, and the legal neighbour in its place, which must reach the `hlt` behind it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from tests.machine import bare
from tests.machine.walks import (
    HLT,
    LRETQ,
    NOP,
    TABLE_A_TO_CR3,
    TO_CR0,
    TO_CR3,
    TO_CR4,
    WRMSR,
    fault_of,
    made,
    put,
    with_registers,
)
from tightrope.machine.unicorn import Emulator
from tightrope.model import Handover, Step, Stop

CR0, CR4, EFER = 0x8005_0033, 0x6F0, 0xD01
"""The small host's own."""
PG, CD, NW, WP, PE = 1 << 31, 1 << 30, 1 << 29, 1 << 16, 1
PAE, LA57, PCIDE, CET, VMXE = 1 << 5, 1 << 12, 1 << 17, 1 << 23, 1 << 13
NOT_ON_THIS_CPU = 1 << 46
GENERAL_PROTECTION = 13

EMULATOR = Emulator()


def cr0(value: int) -> bytes:
    return put("rax", value) + TO_CR0


def cr4(value: int) -> bytes:
    return put("rax", value) + TO_CR4


def cr3(value: int) -> bytes:
    return put("rax", value) + TO_CR3


def efer(value: int) -> bytes:
    return (
        put("rcx", 0xC000_0080) + put("rax", value & 0xFFFF_FFFF) + put("rdx", value >> 32) + WRMSR
    )


PGD = made(HLT).registers.cr3


@dataclass(frozen=True)
class Row:
    """`bad` and `good` end with the instruction in question, `last` bytes long."""

    reason: str
    bad: bytes
    good: bytes
    last: int = 3
    before: bytes = b""
    silent: bool = True
    """Unicorn alone runs on to the hlt behind it as if nothing were wrong."""


ROWS = {
    "CR0 high half": Row("CR0 bits 63:32 must be zero", cr0(CR0 | 1 << 32), cr0(CR0)),
    "PG without PE": Row("CR0.PG needs CR0.PE", cr0(CR0 & ~PE), cr0(CR0), silent=False),
    "NW without CD": Row("CR0.NW needs CR0.CD", cr0(CR0 | NW), cr0(CR0 | NW | CD)),
    "CD without NW is legal": Row("CR0.NW needs CR0.CD", cr0(CR0 | NW), cr0(CR0 | CD)),
    "paging off in 64-bit code": Row(
        "CR0.PG cannot be cleared in 64-bit code", cr0(CR0 & ~PG), cr0(CR0 & ~WP), silent=False
    ),
    "CR3 beyond MAXPHYADDR": Row(
        "CR3 bits 63:46 are reserved on this CPU",
        cr3(PGD | NOT_ON_THIS_CPU),
        cr3(PGD),
        silent=False,
    ),
    "CR3 bit 63 without PCIDE": Row(
        "CR3 bits 63:46 are reserved on this CPU",
        cr3(PGD | 1 << 63),
        cr4(CR4 | PCIDE) + cr3(PGD | 1 << 63),
    ),
    "CR4 reserved": Row("CR4 bits 0x8000 are reserved", cr4(CR4 | 1 << 15), cr4(CR4 | 1 << 20)),
    "CR4 high half": Row("CR4 bits 0x10000000000 are reserved", cr4(CR4 | 1 << 40), cr4(CR4)),
    "LA57 on a CPU without it": Row(
        "CR4.LA57 is reserved on this CPU", cr4(CR4 | LA57), cr4(CR4), silent=False
    ),
    "CET without WP": Row(
        "CR4.CET needs CR0.WP",
        cr4(CR4 | CET),
        cr4(CR4),
        before=cr0(CR0 & ~WP),
    ),
    "PAE off": Row(
        "CR4.PAE cannot be cleared in long mode", cr4(CR4 & ~PAE), cr4(CR4 & ~0x80), silent=False
    ),
    "PCIDE with PWT in CR3": Row(
        "CR4.PCIDE cannot be set while CR3 bits 11:0 are not zero",
        cr3(PGD | 8) + cr4(CR4 | PCIDE),
        cr3(PGD) + cr4(CR4 | PCIDE),
    ),
    "EFER reserved": Row("EFER bits 0x2 are reserved", efer(EFER | 2), efer(EFER), 2),
    "EFER high half": Row(
        "EFER bits 0x10000000000 are reserved", efer(EFER | 1 << 40), efer(EFER), 2
    ),
    "LME off while paging": Row(
        "EFER.LME cannot be changed while paging is on",
        efer(EFER & ~0x100),
        efer(EFER & ~1),
        2,
    ),
}


def is_refused(handover: Handover, at: int, reason: str) -> None:
    """The walk ends at V + `at` with #GP and this reason, and nothing behind it runs."""
    run = EMULATOR.run(handover)
    fault = fault_of(run)
    virt = handover.intent.relocation
    assert (fault.vector, fault.rip - virt, fault.reason) == (GENERAL_PROTECTION, at, reason)
    assert int(run.trace[-1]) == virt + at
    assert fault.instruction == run.instructions - 1
    assert fault.step is (Step.TABLE_A if b"\x0f\x22\xd8" in handover.code.data else Step.CALL)
    assert fault.text == run.texts[virt + at]
    assert run.registers.rip == virt + at


def reaches_halt(handover: Handover) -> None:
    run = EMULATOR.run(handover)
    assert (run.stop, run.fault) == (Stop.HALT, None)
    assert run.texts[int(run.trace[-1])] == "hlt"


@pytest.mark.parametrize("name", ROWS)
def test_the_write_is_refused_at_its_own_instruction(name: str) -> None:
    row = ROWS[name]
    code = row.before + row.bad
    is_refused(made(code + HLT), len(code) - row.last, row.reason)


@pytest.mark.parametrize("name", ROWS)
def test_its_legal_neighbour_passes(name: str) -> None:
    row = ROWS[name]
    reaches_halt(made(row.before + row.good + HLT))


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.silent])
def test_unicorn_alone_lets_it_pass(name: str) -> None:
    row = ROWS[name]
    code = row.before + row.bad + HLT
    handover = made(code)
    alone = bare.run(handover)
    assert alone.error is None
    assert alone.read("rip") == handover.intent.relocation + len(code)


def test_unicorn_alone_turns_paging_off_in_64_bit_code_and_says_nothing() -> None:
    # The classic handover mistake: it leaves long mode in silence.
    code = cr0(CR0 & ~PG)
    alone = bare.run(made(code + HLT), instructions=2)
    assert not alone.read("cr0") & PG
    assert not alone.efer & 0x400


def test_unicorn_alone_clears_pae_in_long_mode() -> None:
    alone = bare.run(made(cr4(CR4 & ~PAE) + HLT), instructions=2)
    assert not alone.read("cr4") & PAE


def test_cr0_wp_cannot_go_while_cet_is_on() -> None:
    code = cr0(CR0 & ~WP)
    is_refused(
        with_registers(made(code + HLT), cr4=CR4 | CET),
        10,
        "CR0.WP cannot be cleared while CR4.CET is set",
    )
    reaches_halt(with_registers(made(cr0(CR0) + HLT), cr4=CR4 | CET))
    reaches_halt(made(code + HLT))


# ------------------------------------------------------------------------------------- segments

CODE64, DATA, CODE32 = 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF, 0x00CF_9B00_0000_FFFF
SYSTEM, READ_ONLY, USER = 0x0000_8900_0000_0067, 0x00CF_9100_0000_FFFF, 0x00CF_F300_0000_FFFF
EXECUTE_ONLY, ABSENT, BOTH = 0x00CF_9900_0000_FFFF, 0x00CF_1300_0000_FFFF, 0x00EF_9B00_0000_FFFF
SLOTS = (0, CODE32, CODE64, DATA, SYSTEM, 0, READ_ONLY, USER, EXECUTE_ONLY, ABSENT, BOTH)
"""Selectors 0x08 CODE32, 0x10 CODE64, 0x18 DATA, 0x20 SYSTEM, 0x30 .. 0x50."""
MOVES = {
    "ds": b"\x8e\xd8",
    "es": b"\x8e\xc0",
    "ss": b"\x8e\xd0",
    "fs": b"\x8e\xe0",
    "gs": b"\x8e\xe8",
}


def with_gdt(handover: Handover) -> Handover:
    """The same handover where the old kernel's gdt has the slots above."""
    gdt = b"".join(slot.to_bytes(8, "little") for slot in SLOTS)
    world = handover.world
    first = replace(world.laid[0], data=gdt)
    assert world.laid[0].what == "the old kernel's gdt"
    base, _ = handover.registers.gdt
    return with_registers(
        replace(handover, world=replace(world, laid=(first, *world.laid[1:]))),
        gdt=(base, len(gdt) - 1),
    )


def load(register: str, selector: int) -> Handover:
    return with_gdt(made(put("rax", selector) + MOVES[register] + HLT))


@pytest.mark.parametrize(
    ("register", "selector", "reason"),
    [
        ("ds", 0x60, "selector 0x60 is beyond the gdt's limit"),
        ("ds", 0x1C, "the selector is in the LDT"),
        ("ds", 0x20, "selector 0x20 names a system descriptor"),
        ("ds", 0x40, "selector 0x40 is not readable"),
        ("ds", 0x48, "selector 0x48 is not present"),
        ("es", 0x1B, "selector 0x1b is not of ring 0"),
        ("fs", 0x60, "selector 0x60 is beyond the gdt's limit"),
        ("gs", 0x20, "selector 0x20 names a system descriptor"),
        ("ss", 0x10, "selector 0x10 is not a writable data segment"),
        ("ss", 0x30, "selector 0x30 is not a writable data segment"),
        ("ss", 0x38, "selector 0x38 is not of ring 0"),
        ("ss", 0x48, "selector 0x48 is not present"),
        ("ss", 0x03, "null selector 0x3 in SS is not of ring 0"),
    ],
)
def test_a_selector_is_refused_at_the_move(register: str, selector: int, reason: str) -> None:
    handover = load(register, selector)
    is_refused(handover, 10, reason)
    fault = fault_of(EMULATOR.run(handover))
    assert fault.error_code == selector & ~3


@pytest.mark.parametrize(
    ("register", "selector"),
    [("ds", 0x18), ("ds", 0), ("ds", 3), ("ds", 0x10), ("ds", 0x30), ("ds", 0x38), ("es", 0x3B),
     ("fs", 0x18), ("gs", 0x0), ("ss", 0x18), ("ss", 0)],
)  # fmt: skip
def test_a_selector_of_a_good_slot_is_loaded(register: str, selector: int) -> None:
    handover = load(register, selector)
    reaches_halt(handover)
    assert EMULATOR.run(handover).registers.segments[register] == selector


def far_return(selector: int, *, narrow: bool = False) -> Handover:
    """push selector; push the address of the hlt behind the far return; return there."""
    if narrow:
        # sub $8, %rsp; movl $selector, 4(%rsp); movl $here, (%rsp); lretl
        here = 4 + 8 + 7 + 1
        code = b"\x48\x83\xec\x08" + b"\xc7\x44\x24\x04" + selector.to_bytes(4, "little")
        low = (made(HLT).intent.relocation + here) & 0xFFFF_FFFF
        return with_gdt(made(code + b"\xc7\x04\x24" + low.to_bytes(4, "little") + b"\xcb" + HLT))
    pushes = b"\x68" + selector.to_bytes(4, "little") + b"\x48\x8d\x05"
    # lea 3(%rip), %rax; push %rax; lretq; hlt
    return with_gdt(made(pushes + (3).to_bytes(4, "little") + b"\x50" + LRETQ + HLT))


@pytest.mark.parametrize(
    ("selector", "reason"),
    [
        (0, "a null selector in CS"),
        (0x18, "selector 0x18 is not a code segment"),
        (0x50, "selector 0x50 has both L and D set"),
        (0x60, "selector 0x60 is beyond the gdt's limit"),
        (0x20, "selector 0x20 names a system descriptor"),
    ],
)
def test_a_far_return_is_refused_where_it_stands(selector: int, reason: str) -> None:
    is_refused(far_return(selector), 5 + 7 + 1, reason)


def test_a_far_return_to_64_bit_code_passes() -> None:
    handover = far_return(0x10)
    reaches_halt(handover)
    writes = [each for each in EMULATOR.run(handover).register_writes if each.register == "cs"]
    assert [(each.before, each.after) for each in writes] == [(0x10, 0x10)]


def test_a_narrow_far_return_takes_cs_from_its_own_frame() -> None:
    # Four bytes each: CS is at 4(%rsp), not at 8(%rsp).
    is_refused(far_return(0x18, narrow=True), 19, "selector 0x18 is not a code segment")
    writes = EMULATOR.run(far_return(0x10, narrow=True)).register_writes
    assert [each.after for each in writes if each.register == "cs"] == [0x10]


def test_a_gdt_that_is_not_mapped_faults_as_the_cpu_reads_it() -> None:
    # Step 2 without step 3: the old gdt is gone when a selector is loaded.
    handover = made(TABLE_A_TO_CR3 + put("rax", 0x18) + MOVES["ds"] + HLT)
    fault = fault_of(EMULATOR.run(handover))
    assert fault.vector == 14
    assert fault.rip == handover.intent.relocation + 13
    assert (fault.address or 0) & -4096 == handover.registers.gdt[0]


def test_a_selector_is_looked_up_in_the_gdt_that_was_loaded_last() -> None:
    # sub $16, %rsp; movw $7, 6(%rsp); mov $0, 8(%rsp): a gdt with the null slot only.
    smaller = (
        b"\x48\x83\xec\x10"
        + b"\x66\xc7\x44\x24\x06\x07\x00"
        + b"\x48\xc7\x44\x24\x08\x00\x00\x00\x00"
        + b"\x0f\x01\x54\x24\x06"
    )
    code = smaller + put("rax", 0x18)
    is_refused(
        with_gdt(made(code + MOVES["ds"] + HLT)),
        len(code),
        "selector 0x18 is beyond the gdt's limit",
    )


def test_other_machine_registers_are_recorded_and_not_judged() -> None:
    handover = made(put("rcx", 0xC000_0100) + put("rax", 5) + put("rdx", 1) + WRMSR + NOP + HLT)
    run = EMULATOR.run(handover)
    assert run.stop is Stop.HALT
    (write,) = run.register_writes
    assert (write.register, write.after) == ("msr 0xc0000100", 1 << 32 | 5)
