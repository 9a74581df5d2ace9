"""The entry stubs, each from its first byte to the new kernel's, on its bytes.

    relocation code --entry contract--> stub --boot protocol--> new kernel
    enter_64           64-bit code all the way
    enter_32           32-bit code, paging off already
    enter_32_from_64   64-bit code --far return--> compatibility mode: paging off, LME off

Rules: a stub may rely on the entry contract alone (routines/relocate_*.S) and on its page being
reachable; the words that the plan fills in are arbitrary, but for what `Part.conditions` says of
them. What it owes is the boot protocol's (Linux Documentation/arch/x86/boot.rst; `plan.entering`
has the others): selectors 0x10 and 0x18 from a gdt in its own page, registers as the plan fills
them in, interrupts off.  Every condition has a name, and a test drops each.  Where the width of
the code changes the walk is cut: two machines, one promise between.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import z3

from tightrope import routines
from tightrope.memory import PAGE_SIZE
from tightrope.prove.isa.memory import Memory
from tightrope.prove.isa.semantics import Refused
from tightrope.prove.isa.symbolic import OFF, TABLE_B, Symbolic
from tightrope.prove.isa.terms import Truth
from tightrope.prove.routine.contract import (
    CODE_SELECTOR,
    CR0_AT_ENTRY,
    DATA_SELECTOR,
    Contract,
    Hypothesis,
)
from tightrope.prove.routine.cutpoints import Segment, Walker
from tightrope.prove.routine.decide import Failure, Known, failures, feasible
from tightrope.prove.routine.stub_walk import Half, entered, quiet, selectors
from tightrope.x86 import cpu as x86

OWN = "the stub's page"
CALLERS_STACK = 32
"""Bytes at the top of the control page that the relocation code
leaves as a stack (relocate_i386.S).
"""
STUBS = {routines.ENTER_64: 64, routines.ENTER_32: 32, routines.ENTER_32_FROM_64: 64}
"""Each stub, and the width of its first instruction."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stub's way through code of one width: `end` is where it came out, None where it did not."""

    segment: Segment
    conditions: tuple[Hypothesis, ...]
    end: Symbolic | None


def parts(
    name: str, contract: Contract, data: bytes, symbols: Mapping[str, int]
) -> tuple[Part, ...]:
    """A stub's way in one part or two; `contract` is as wide as its first instruction.
    Raises Refused.
    """
    if name == routines.ENTER_64:
        return (_in_64_bits(contract, data, symbols),)
    if name == routines.ENTER_32:
        return (_in_32_bits(contract, data, symbols),)
    first = _to_compatibility_mode(contract, data, symbols)
    if first.end is None:
        return (first,)
    return first, _in_compatibility_mode(Contract(32, None), data, symbols)


# ------------------------------------------------------------------------------- the four walks


def _in_64_bits(contract: Contract, data: bytes, symbols: Mapping[str, int]) -> Part:
    half = _begin(contract, data, symbols, TABLE_B)
    half.machine.start = half.word("kernel_entry")
    end = half.walk()
    if end is not None:
        registers = {"rsi": half.word("word_rsi")}
        entered(half, end, registers, half.state.control)
    return _part(half, "the entry stub", end, [_entry_reachable(half)])


def _in_32_bits(contract: Contract, data: bytes, symbols: Mapping[str, int]) -> Part:
    """Called on the relocation code's stack, in a page C of which nothing else is known."""
    half = _begin(contract, data, symbols, OFF)
    control_page = z3.BitVec("C", 32)
    half.machine.lent = (control_page, PAGE_SIZE - CALLERS_STACK)
    half.memory = replace(half.memory, aligned=(contract.names["P"], control_page))
    half.state.memory = half.memory
    half.state.registers["rsp"] = z3.simplify(control_page + (PAGE_SIZE - 4))
    half.state.control |= {
        "cr0": z3.BitVecVal(CR0_AT_ENTRY, 32),
        "cr3": z3.BitVecVal(0, 32),
        "cr4": z3.BitVecVal(0, 32),
        "efer": z3.simplify(contract.names["efer"] & (x86.EFER_SCE | x86.EFER_NXE)),
    }
    stack = [
        Hypothesis(
            "stack-aligned",
            "the relocation code's stack is the top of a page",
            z3.Extract(11, 0, control_page) == 0,
            ("stack-inside",),
        ),
        Hypothesis(
            "stack-no-table",
            "the relocation code's stack lies in no page table",
            z3.Not(half.machine.is_table(control_page)),
            ("frames-distinct",),
        ),
        Hypothesis(
            "stack-reachable",
            "the relocation code's stack is memory",
            half.machine.reachable(control_page),
            ("reachable",),
        ),
    ]
    return _to_the_32_bit_entry(half, "the entry stub", stack)


def _to_compatibility_mode(contract: Contract, data: bytes, symbols: Mapping[str, int]) -> Part:
    half = _begin(contract, data, symbols, TABLE_B)
    half.machine.leaves_long_mode = True
    end = half.walk()
    if end is not None:

        def must(says: str, formula: Truth) -> None:
            half.machine.require(end, None, f"in compatibility mode {says}", formula)

        page, registers = half.state.rip, end.registers
        inside = z3.BoolVal(end.home == "P" and end.offset == symbols["compatibility"])
        must("other code runs than what is meant for it", inside)
        must("addresses lose their upper half", z3.ULT(page, 1 << 32))
        must("rbp is not the stub's page", registers["rbp"] == page)
        must("the stack is not the stub's page", registers["rsp"] == page + PAGE_SIZE)
        quiet(half, end, must)
        for name, value in half.state.control.items():
            must(f"{name} has changed", end.control[name] == value)
        selectors(half, end, must, ("cs",))
        half.kept(end, "memory outside the stub's stack has changed")
    below = Hypothesis(
        "stub-below-4g",
        "the stub's page lies below 4 GiB",
        z3.ULT(contract.names["P"], 1 << 32),
        ("plan.entering.Way.below_4g",),
    )
    return _part(half, "the entry stub's 64-bit half", end, [below])


def _in_compatibility_mode(contract: Contract, data: bytes, symbols: Mapping[str, int]) -> Part:
    """From what `_to_compatibility_mode` promises; addresses are 32 bits wide from here on."""
    half = _begin(contract, data, symbols, TABLE_B)
    P, names, state = contract.names["P"], contract.names, half.state
    state.offset = symbols["compatibility"]
    state.registers |= {"rbp": P, "rsp": z3.simplify(P + PAGE_SIZE)}
    limit = z3.BitVec("gdt limit", 16)
    state.tables = {**state.tables, "gdt": (z3.simplify(P + symbols["gdt"]), limit)}
    state.segments["cs"] = z3.BitVecVal(CODE_SELECTOR, 16)
    selector = symbols["gdt"] + CODE_SELECTOR
    state.hidden["cs"] = int.from_bytes(data[selector : selector + 8], "little")
    state.control |= {
        "cr0": z3.BitVecVal(CR0_AT_ENTRY | x86.CR0_PG, 32),
        "cr4": z3.simplify(names["cr4"] & (x86.CR4_LA57 | x86.CR4_MCE) | x86.CR4_PAE),
        "efer": z3.simplify(
            names["efer"] & (x86.EFER_SCE | x86.EFER_NXE) | x86.EFER_LME | x86.EFER_LMA
        ),
    }
    enough = Hypothesis(
        "gdt-whole",
        "the gdt that was loaded holds the descriptors",
        z3.UGE(limit, DATA_SELECTOR | 7),
        ("prove.routine.stubs.parts",),
    )
    return _to_the_32_bit_entry(half, "the entry stub's 32-bit half", [enough])


# ------------------------------------------------------------------------------ before and after


def _begin(contract: Contract, data: bytes, symbols: Mapping[str, int], tables_in_use: str) -> Half:
    """The entry contract's state.  Nothing is known of general registers: no stub needs them."""
    page = contract.names["P"]
    # The plan's words are no constants: memory beyond the gdt is arbitrary.
    memory = Memory(first=contract.first_memory, home=page, image=data[: symbols["gdt_end"]])
    machine = contract.machine(data)
    machine.own = OWN
    called = Walker(contract, data).called()
    control = dict(called.control)
    if contract.bits == 64:
        control["cr3"] = contract.names["table_b"]
        kept = x86.CR4_PAE | x86.CR4_LA57 | x86.CR4_MCE
        control["cr4"] = contract.names["cr4"] & kept
    off = z3.BoolVal(False)
    state = replace(
        called,
        registers=dict(contract.registers),
        flags={**called.flags, **dict.fromkeys(("IF", "DF", "TF", "NT", "AC"), off)},
        control=control,
        tables={**called.tables, "idt": (z3.BitVecVal(0, contract.bits), z3.BitVecVal(0, 16))},
        memory=memory,
        tables_in_use=tables_in_use,
        home="P",
        rip=page,
    )
    return Half(contract, data, symbols, machine, state, memory)


def _to_the_32_bit_entry(half: Half, name: str, more: list[Hypothesis]) -> Part:
    half.machine.start = half.word("kernel_entry")
    known = half.word("known_cr0")
    end = half.walk()
    if end is not None:
        words = {"rax": "word_eax", "rbx": "word_ebx", "rsi": "word_esi"}
        registers = {name: half.word(symbol) for name, symbol in words.items()}
        zero = z3.BitVecVal(0, 32)
        control = {"cr0": known, "cr3": zero, "cr4": zero, "dr7": half.state.control["dr7"]}

        def must(says: str, formula: Truth) -> None:
            half.machine.require(end, None, f"at the new kernel's entry {says}", formula)

        must("paging is on", z3.BoolVal(end.tables_in_use == OFF))
        long = x86.EFER_LME | x86.EFER_LMA
        must("EFER.LME or LMA is set", end.control["efer"] & long == 0)
        kept = half.state.control["efer"] & ~long
        must("another bit of EFER has changed", end.control["efer"] == kept)
        entered(half, end, registers, control)
    legal = Hypothesis(
        "cr0-word",
        "the plan's word for CR0 has PE, not PG, and NW only with CD",
        z3.And(
            known & (x86.CR0_PE | x86.CR0_PG) == x86.CR0_PE,
            z3.Or(known & x86.CR0_NW == 0, known & x86.CR0_CD != 0),
        ),
        ("plan.entering.filled",),
    )
    return _part(half, name, end, [legal, _entry_reachable(half), *more])


def _entry_reachable(half: Half) -> Hypothesis:
    return Hypothesis(
        "entry-reachable",
        "the new kernel's entry is reachable",
        half.machine.reachable(z3.simplify(half.machine.start & ~(PAGE_SIZE - 1))),
        ("reachable",),
    )


def _part(half: Half, name: str, end: Symbolic | None, more: list[Hypothesis]) -> Part:
    """What was walked, under the conditions that every stub has and its own."""
    P, machine = half.contract.names["P"], half.machine
    given = (
        Hypothesis(
            "stub-aligned",
            "the stub begins a page, at an address that is a linear one, too",
            z3.simplify(z3.And(z3.Extract(11, 0, P) == 0, *half.contract.identity(P))),
            ("plan.prepare.prepare",),
        ),
        Hypothesis(
            "stub-no-table",
            "the stub's page is no page table",
            z3.Not(machine.is_table(P)),
            ("frames-distinct",),
        ),
        Hypothesis(
            "stub-reachable", "the stub's page is reachable", machine.reachable(P), ("reachable",)
        ),
    )
    conditions = (*given, *more)
    formulas = tuple(each.formula for each in conditions)
    return Part(Segment(name, formulas, tuple(machine.obligations)), conditions, end)


# ------------------------------------------------------------------------------------- answers


def first_failure(
    walked: tuple[Part, ...], seconds: float, known: Known | None = None
) -> tuple[int, Failure | None]:
    """How many obligations, and the first that does not hold.  Raises Refused."""
    deadline = time.perf_counter() + seconds
    count = 0
    for part in walked:
        if not feasible(part.segment):
            raise Refused("the conditions cannot hold together")
        count += len(part.segment.obligations)
        for failure in failures(part.segment, deadline=deadline, known=known):
            return count, failure
    return count, None
