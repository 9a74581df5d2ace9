"""What a routine owes at each cutpoint: the loop head, one way round, the entry.

Rules: every promise is recorded as an obligation with a sentence for its breach; nothing is
decided.
"""

from __future__ import annotations

from dataclasses import dataclass

import z3

from tightrope.memory import PAGE_SIZE
from tightrope.prove.isa.machine import Machine
from tightrope.prove.isa.symbolic import OFF, TABLE_B, Symbolic
from tightrope.prove.isa.terms import Truth
from tightrope.prove.routine.contract import (
    CR0_AT_ENTRY,
    DATA_SELECTOR,
    Contract,
    ListState,
    is_copy,
    is_done,
    jumps,
)
from tightrope.x86 import cpu as x86


@dataclass(frozen=True, slots=True)
class Roles:
    """Which registers hold the list interpreter's state at the loop head."""

    word: str = "rcx"
    cursor: str = "rbx"
    destination: str = "rdi"


def spoken(c: Contract, name: str) -> str:
    """A register's name in code of this width."""
    return name if c.bits == 64 else f"e{name[1:]}"


def established(c: Contract, machine: Machine, state: Symbolic, roles: Roles) -> None:
    """What must hold whenever the loop head is first reached."""
    registers = state.registers

    def must(says: str, formula: Truth) -> None:
        machine.require(state, None, f"at the loop head {says}", formula)

    last = TABLE_B if c.bits == 64 else OFF
    must(f"{state.tables_in_use} is in use", z3.BoolVal(state.tables_in_use == last))
    must("the code runs at V", z3.BoolVal(state.home == "P"))
    must("old global translations are still allowed", z3.Not(state.stale))
    must(
        f"{spoken(c, roles.word)} is not the head of the list",
        registers[roles.word] == c.names["head"],
    )
    must(
        f"{spoken(c, roles.destination)} is not 0: a list that begins with a source would be copied"
        " anywhere",
        z3.Or(registers[roles.destination] == 0, z3.BoolVal(not c.owed.destination)),
    )
    begins = (
        z3.BoolVal(False)
        if c.owed.cursor
        else z3.Or(jumps(c.names["head"]), is_done(c.names["head"]))
    )
    must(
        f"{spoken(c, roles.cursor)} is not 0: a list that does not begin with an indirection is"
        " read anywhere",
        z3.Or(registers[roles.cursor] == 0, begins),
    )
    must("DR7 is not 0: an old breakpoint may fire", state.control["dr7"] == 0)


def stepped(
    c: Contract,
    image: bytes,
    machine: Machine,
    way: Symbolic,
    at: ListState,
    before: Symbolic,
    roles: Roles,
) -> None:
    """One way round is one step of the list interpreter."""
    size = c.bits // 8
    copies = is_copy(at.word)

    def must(says: str, formula: Truth) -> None:
        machine.require(way, None, f"after one word of the list {says}", formula)

    must("it goes on behind IND_DONE", z3.Not(is_done(at.word)))
    probe = z3.BitVec("probe", c.bits)
    meant = z3.If(copies, c.asked(before.memory, at, probe), before.memory.byte(probe))
    own = z3.simplify(probe - c.names["P"])
    free = z3.And(z3.UGE(own, len(image)), z3.ULT(own, PAGE_SIZE))
    must("memory is not what the list asks for", z3.Or(free, way.memory.byte(probe) == meant))
    for kind, after in c.steps(at):

        def meets(says: str, formula: Truth, kind: Truth = kind) -> None:
            must(says, z3.Implies(kind, formula))

        destination, cursor = z3.simplify(after.destination), z3.simplify(after.cursor)
        behind = z3.simplify(cursor + size)
        meets(
            f"{spoken(c, roles.destination)} is not the next destination",
            way.registers[roles.destination] == destination,
        )
        meets(
            f"{spoken(c, roles.cursor)} is not behind the next word",
            way.registers[roles.cursor] == behind,
        )
        # Memory is what the list asks for: so the word is read from it as it is now.
        now = way.memory.load(cursor, c.bits)
        meets(f"{spoken(c, roles.word)} is not the next word", way.registers[roles.word] == now)
        meets("the destination is unaligned", z3.Extract(11, 0, destination) == 0)
        meets("the cursor is unaligned", behind & (size - 1) == 0)
    for name, value in before.control.items():
        must(f"{name} has changed", way.control[name] == value)
    for name, selector in before.segments.items():
        must(f"{name} has changed", way.segments[name] == selector)
    for name, (base, limit) in before.tables.items():
        must(
            f"the {name} has changed",
            z3.And(way.tables[name][0] == base, way.tables[name][1] == limit),
        )
    same = (way.home, way.tables_in_use) == (before.home, before.tables_in_use)
    must("it runs elsewhere", z3.BoolVal(same))


def entered(
    c: Contract, image: bytes, machine: Machine, way: Symbolic, at: ListState, before: Symbolic
) -> None:
    """The state in which the new kernel's stub is entered (routines/relocate_*.S)."""
    names, size = c.names, c.bits // 8
    P = names["P"]

    def must(says: str, formula: Truth) -> None:
        machine.require(way, None, f"at the entry {says}", formula)

    must("the list has not ended", is_done(at.word))
    top = z3.simplify(P + PAGE_SIZE - size)
    must("the stack is not at the top of the control page", way.registers["rsp"] == top)
    zero = z3.BitVecVal(0, c.bits)
    must("the word on the stack is not 0", way.memory.load(top, c.bits) == zero)
    for name, value in way.registers.items():
        if name != "rsp":
            must(f"{spoken(c, name)} is not 0", value == 0)
    for name in ("IF", "DF", "TF", "NT", "AC"):
        must(f"RFLAGS.{name} is set", z3.Not(machine.flag(way, name)))
    if c.bits == 64:
        kept = x86.CR4_PAE | x86.CR4_LA57
        wanted = {
            "cr0": z3.BitVecVal(CR0_AT_ENTRY | x86.CR0_PG, 64),
            "cr4": names["cr4"] & kept,
            "cr3": names["table_b"],
        }
    else:
        wanted = {"cr0": z3.BitVecVal(CR0_AT_ENTRY, 32), "cr4": zero, "cr3": zero}
    for name, value in wanted.items():
        right = way.control[name] == value
        if name == "cr0" and c.owed.cr0_kept:
            # The bits that no CPU has read as 0, whatever the model's old kernel had.
            asked = x86.CR0_DEFINED & ~c.owed.cr0_kept | 0xFFFF_FFFF << 32
            right = way.control[name] & asked == value & asked
        if name == "cr4":
            # Kept as it was, it is right as well: a TDX guest may not clear it.
            right = z3.Or(right, way.control[name] == value | names["cr4"] & x86.CR4_MCE)
        must(f"{name} is not what the contract says", right)
    must("DR7 is not 0", way.control["dr7"] == 0)
    idt, gdt = way.tables["idt"], way.tables["gdt"]
    if c.owed.idt is None:
        must("the idt is not empty", z3.And(idt[0] == 0, idt[1] == 0))
    else:
        gates = z3.And(idt[0] == P + c.owed.idt[0], idt[1] == c.owed.idt[1])
        must("the idt is not the control page's", gates)
    if c.owed.gdt:
        inside = z3.simplify(gdt[0] - P)
        must("the gdt is not on the control page", z3.ULT(inside, PAGE_SIZE - 32))
        must("the gdt is shorter than its descriptors", z3.UGE(gdt[1], DATA_SELECTOR | 7))
    else:
        must("the gdt is not empty", z3.And(gdt[0] == 0, gdt[1] == 0))
    for name in x86.SEGMENTS:
        selector = c.owed.selectors[name != "cs"]
        seen = x86.Descriptor.decode(way.hidden.get(name, 0))
        must(f"{name} is not {selector:#x}", way.segments[name] == selector)
        flat = seen.flat and seen.code == (name == "cs") and (seen.long or seen.big)
        must(f"{name} is not a flat segment", z3.BoolVal(flat))
    must(
        "nothing has serialized since the last copy: old bytes may be executed",
        z3.BoolVal(not way.unserialized),
    )
    probe = z3.BitVec("probe", c.bits)
    own = z3.simplify(probe - P)
    free = z3.And(z3.UGE(own, len(image)), z3.ULT(own, PAGE_SIZE))
    must(
        "memory has changed since the list ended",
        z3.Or(free, way.memory.byte(probe) == before.memory.byte(probe)),
    )
