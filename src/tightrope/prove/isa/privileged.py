"""Control registers, DR7, EFER and segment registers of a machine made of terms.

Rules: a write that the CPU refuses is an obligation that it is not refused, in the manual's words
(`legality`); what a write does to translations is done here (SDM 4.10.4.1).  That the PDPTEs of
page_table_a are good when PAE paging reads them is theorem 1's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import z3

from tightrope.prove.isa.decode import Instruction
from tightrope.prove.isa.legality import Now, flushes_everything, refusals
from tightrope.prove.isa.semantics import Refused
from tightrope.prove.isa.symbolic import OFF, OLD, TABLE_A, TABLE_B, Symbolic
from tightrope.prove.isa.terms import Word, value
from tightrope.x86 import cpu as x86
from tightrope.x86.control import IN_SEV_ES

ACCESS_BYTE = 5
"""Of a descriptor: type, S, DPL, P (SDM figure 3-8)."""

if TYPE_CHECKING:
    from tightrope.prove.isa.machine import Machine


def write_control(
    machine: Machine, state: Symbolic, at: Instruction, register: str, written: Word
) -> None:
    """MOV to CR0, CR3, CR4, DR7."""
    if register == "dr7":
        if machine.facts & IN_SEV_ES:
            says = "#VC: DR7 cannot be written in a SEV-ES guest"
            machine.require(state, at, says, z3.BoolVal(False))
        if machine.bits == 64:
            high = z3.Extract(63, 32, written) == 0
            machine.require(state, at, "#GP: DR7 bits 63:32 must be zero", high)
        state.control["dr7"] = written
        return
    _legal(machine, state, at, register, written)
    state.unserialized = False
    {"cr0": _write_cr0, "cr3": _write_cr3, "cr4": _write_cr4}[register](machine, state, at, written)
    state.control = {**state.control, register: written}


def _legal(
    machine: Machine, state: Symbolic, at: Instruction, register: str, written: Word
) -> None:
    """None of the manual's reasons for #GP applies."""
    now = Now(
        control=state.control,
        bits=machine.bits,
        code64=machine.bits == 64,
        physical=machine.physical,
        la57=machine.la57,
        facts=machine.facts,
    )
    for reason, when in refusals(machine.terms, now, register, written):
        machine.require(state, at, f"#GP: {reason}", z3.Not(when))


def _write_cr0(machine: Machine, state: Symbolic, at: Instruction, written: Word) -> None:
    paging = machine.terms.bit(written, 31)
    if state.tables_in_use == OFF:
        if z3.is_true(paging):
            raise Refused("paging is turned on again")
        machine.require(state, at, "paging may be turned on again", z3.Not(paging))
    elif machine.bits == 64 or z3.is_true(paging):
        return
    else:
        says = "CR0.PG stays what the old kernel had: paging stays on"
        machine.require(state, at, says, z3.Not(paging))
    protected = machine.terms.bit(written, 0)
    machine.require(state, at, "protected mode is left", protected)
    # Clearing PG drops every translation (SDM 4.10.4.1), and EFER.LMA with it (SDM 9.8.5.4).
    state.tables_in_use, state.stale = OFF, z3.BoolVal(False)
    active = machine.terms.const(~x86.EFER_LMA, machine.bits)
    state.control["efer"] = machine.terms.both(state.control["efer"], active)


def _write_cr3(machine: Machine, state: Symbolic, at: Instruction, written: Word) -> None:
    if state.tables_in_use == OFF:
        return
    tables = {TABLE_A: machine.table_a, TABLE_B: machine.table_b}
    loaded = [name for name, root in tables.items() if root is not None and z3.eq(root, written)]
    if not loaded:
        raise machine.stop(
            state, at, f"CR3 becomes {written}, which is neither page_table_a nor page_table_b"
        )
    machine.require(state, at, "CR3 is not a frame", z3.Extract(11, 0, written) == 0)
    if state.tables_in_use == OLD:
        # Global translations survive (SDM 4.10.4.1); without PGE there are none.
        state.stale = machine.enabled(state, x86.CR4_PGE)
    state.tables_in_use = loaded[0]


def _write_cr4(machine: Machine, state: Symbolic, at: Instruction, written: Word) -> None:
    before = state.control["cr4"]
    if state.tables_in_use == OFF:
        return
    if machine.bits == 32:
        changed = machine.terms.bit(machine.terms.differ(before, written), 5)
        machine.require(
            state,
            at,
            "CR4.PAE changes while paging is on: tables of one format are read as the other",
            z3.Not(changed),
        )
    gone = flushes_everything(machine.terms, before, written, machine.bits)
    state.stale = z3.simplify(z3.And(state.stale, z3.Not(gone)))


def _only_efer(number: Word) -> None:
    if value(number) != x86.MSR_EFER:
        raise Refused("the model has no model-specific register but EFER")


def read_msr(machine: Machine, state: Symbolic, at: Instruction, number: Word) -> tuple[Word, Word]:
    """RDMSR: EFER alone, whose upper half is reserved (SDM volume 4)."""
    _only_efer(number)
    return machine.terms.low(state.control["efer"], 32), machine.terms.const(0, 32)


def write_msr(
    machine: Machine, state: Symbolic, at: Instruction, number: Word, low: Word, high: Word
) -> None:
    """WRMSR: EFER alone; LMA is the CPU's to set (SDM 2.2.1).  Serializing."""
    _only_efer(number)
    a = machine.terms
    machine.require(state, at, "#GP: EFER bits 63:32 are reserved", high == 0)
    now = a.low(state.control["efer"], 32)
    _legal(machine, state, at, "efer", a.wide(low, 32, machine.bits))
    active = a.both(now, a.const(x86.EFER_LMA, 32))
    kept = a.either(a.both(low, a.const(~x86.EFER_LMA, 32)), active)
    state.control = {**state.control, "efer": a.wide(kept, 32, machine.bits)}
    state.unserialized = False


def load_segment(
    machine: Machine, state: Symbolic, at: Instruction, register: str, selector: Word
) -> None:
    """A selector is loaded: the CPU reads its descriptor from the gdt."""
    number = value(selector)
    if number is None:
        raise machine.stop(state, at, f"the selector that goes to {register} is not known")
    descriptor = None
    if number & ~3:
        base, limit = state.tables["gdt"]
        machine.require(
            state,
            at,
            f"#GP: selector {number:#x} may be beyond the gdt's limit",
            z3.ULE(number | 7, limit),
        )
        where = z3.simplify(base + (number & ~7))
        phys = machine.translate(state, at, where, 8, f"(loading {register}) reads")
        descriptor = value(state.memory.load(phys, 64))
        if descriptor is None:
            raise machine.stop(state, at, f"the descriptor that {register} gets is not known")
    reason = x86.segment_refusal(register, number, descriptor)
    if reason:
        raise machine.stop(state, at, f"#GP: {reason}")
    if descriptor is not None and not descriptor >> 40 & x86.TYPE_ACCESSED:
        if not machine.variables[1]:
            raise Refused("a descriptor without its accessed bit: the CPU writes into the gdt")
        descriptor |= x86.TYPE_ACCESSED << 40
        access = machine.terms.const(descriptor >> 40 & 0xFF, 8)
        machine.store(state, at, z3.simplify(where + ACCESS_BYTE), 8, access)
    if register == "cs" and descriptor is not None:
        seen = x86.Descriptor.decode(descriptor)
        if (64 if seen.long else 32) != machine.bits and not machine.leaves_long_mode:
            raise Refused(f"CS becomes a segment of other than {machine.bits}-bit code")
    state.segments = {**state.segments, register: machine.terms.const(number, 16)}
    state.hidden[register] = descriptor or 0
