"""A walk through one width of an entry stub's code, and what a stub owes at the end of it.

Rules: what is promised is recorded as obligations with a sentence for the breach, as in `promises`;
which stub owes what is `stubs`'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import z3

from tightrope.memory import PAGE_SIZE
from tightrope.prove.isa.machine import Machine
from tightrope.prove.isa.memory import Memory
from tightrope.prove.isa.semantics import Refused
from tightrope.prove.isa.symbolic import ENTRY, Ends, Symbolic
from tightrope.prove.isa.terms import Truth, Word
from tightrope.prove.routine.contract import CODE_SELECTOR, DATA_SELECTOR, Contract
from tightrope.prove.routine.cutpoints import LONGEST
from tightrope.prove.routine.promises import spoken
from tightrope.x86 import cpu as x86


@dataclass(slots=True)
class Half:
    """One machine in a stub: where it begins and what is promised of its end."""

    contract: Contract
    data: bytes
    symbols: Mapping[str, int]
    machine: Machine
    state: Symbolic
    memory: Memory

    def walk(self) -> Symbolic | None:
        """The state at the new kernel's entry, or where the width of the code changes."""
        state = self.state
        for _ in range(LONGEST):
            try:
                states = self.machine.step(state)
            except Ends:
                return None
            if len(states) != 1:
                raise Refused("a stub with branches")
            state = states[0]
            if state.offset == ENTRY or _width(state) not in (0, self.contract.bits):
                return state
        raise Refused("the stub does not come to its end")

    def word(self, symbol: str) -> Word:
        """What the plan fills in."""
        at = z3.simplify(self.state.rip + self.symbols[symbol])
        return self.memory.load(at, self.contract.bits)

    def kept(self, end: Symbolic, says: str) -> None:
        """Memory outside the stub's stack, and the caller's, is what it was."""
        page, bits = self.state.rip, self.contract.bits
        probe = z3.BitVec("probe", bits)
        own = z3.simplify(probe - page)
        free = z3.And(z3.UGE(own, len(self.data)), z3.ULT(own, PAGE_SIZE))
        if self.machine.lent is not None:
            lent, first = self.machine.lent
            there = z3.simplify(probe - lent)
            free = z3.Or(free, z3.And(z3.UGE(there, first), z3.ULT(there, PAGE_SIZE)))
        same = end.memory.byte(probe) == self.memory.byte(probe)
        self.machine.require(end, None, says, z3.Or(free, same))


def entered(
    half: Half, end: Symbolic, registers: Mapping[str, Word], control: Mapping[str, Word]
) -> None:
    """The boot protocol: `registers` as the plan says, the others 0; flat segments;
    a sound stack.
    """

    def must(says: str, formula: Truth) -> None:
        half.machine.require(end, None, f"at the new kernel's entry {says}", formula)

    bits, page = half.contract.bits, half.state.rip
    for name, value in end.registers.items():
        if name in registers:
            what = f"{spoken(half.contract, name)} is not what the plan fills in"
            must(what, value == registers[name])
        elif name != "rsp":
            must(f"{spoken(half.contract, name)} is not 0", value == 0)
    top = PAGE_SIZE - bits // 8
    must("the stack is not the stub's page", end.registers["rsp"] == page + top)
    word = end.memory.load(z3.simplify(end.registers["rsp"]), bits)
    must("the top of the stack is not 0", word == 0)
    quiet(half, end, must)
    for name, value in control.items():
        must(f"{name} is not what the protocol says", end.control[name] == value)
    selectors(half, end, must, x86.SEGMENTS)
    half.kept(end, "at the new kernel's entry memory outside the stub's stack has changed")


def quiet(half: Half, end: Symbolic, must: Callable[[str, Truth], None]) -> None:
    """No interrupt, no trap; the gdt is the stub's own; the idt is nobody's business."""
    for name in ("IF", "DF", "TF", "NT", "AC"):
        must(f"RFLAGS.{name} is set", z3.Not(half.machine.flag(end, name)))
    base, limit = end.tables["gdt"]
    must("the gdt is not in the stub", base == half.state.rip + half.symbols["gdt"])
    must("the gdt is too short", z3.UGE(limit, DATA_SELECTOR | 7))


def selectors(
    half: Half, end: Symbolic, must: Callable[[str, Truth], None], names: Iterable[str]
) -> None:
    """Linux's selectors, of flat segments; CS as wide as the code that runs from here on."""
    for name in names:
        selector = CODE_SELECTOR if name == "cs" else DATA_SELECTOR
        seen = x86.Descriptor.decode(end.hidden.get(name, 0))
        must(f"{name} is not {selector:#x}", end.segments[name] == selector)
        flat = seen.flat and seen.code == (name == "cs") and (seen.long or seen.big)
        must(f"{name} is not a flat segment", z3.BoolVal(flat))


def _width(state: Symbolic) -> int:
    """The width of the code that CS makes; 0 where nothing has been loaded into it."""
    descriptor = state.hidden.get("cs", 0)
    seen = x86.Descriptor.decode(descriptor)
    return 0 if not descriptor else 64 if seen.long else 32
