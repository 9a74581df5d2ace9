"""REP MOVS of a machine made of terms: one page, whole, or nothing that the model follows.

Rules: as in `machine`; that a REP MOVS is one page copy is theorem 4's lemma.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import z3

from tightrope.memory import PAGE_SIZE
from tightrope.prove.isa.decode import Instruction
from tightrope.prove.isa.semantics import Model
from tightrope.prove.isa.symbolic import OLD, TABLE_A, Symbolic
from tightrope.prove.isa.terms import value

if TYPE_CHECKING:
    from tightrope.prove.isa.machine import Machine


def copy_page(machine: Machine, state: Symbolic, at: Instruction) -> None:
    """REP MOVS of a page: theorem 4's lemma says that it is one page copy."""
    a, bits = machine.terms, machine.bits
    into, out_of = state.registers["rdi"], state.registers["rsi"]
    count, size = value(state.registers["rcx"]), at.width // 8
    if state.tables_in_use in (OLD, TABLE_A):
        raise machine.stop(state, at, f"it copies with {state.tables_in_use} in use")
    model = Model(a, machine)
    machine.require(state, at, "the direction flag may be set", z3.Not(model.flag(state, "DF")))
    if count is None or count * size != PAGE_SIZE:
        what = "an unknown number of" if count is None else f"{count * size}"
        raise machine.stop(state, at, f"it copies {what} bytes, not one page")
    machine.require(
        state,
        at,
        "source or destination is not page aligned",
        z3.And(z3.Extract(11, 0, into) == 0, z3.Extract(11, 0, out_of) == 0),
    )
    for address, verb in ((out_of, "copies from"), (into, "copies to")):
        machine.require(
            state, at, f"it {verb} a page that is not reachable", machine.reachable(address)
        )
    machine.require(state, at, "the copy overwrites the control page", into != machine.P)
    machine.require(state, at, "the copy overwrites a page table", z3.Not(machine.is_table(into)))
    state.unserialized = True
    state.memory = state.memory.copied(into, out_of)
    page = a.const(PAGE_SIZE, bits)
    state.registers["rdi"] = a.add(into, page, bits)
    state.registers["rsi"] = a.add(out_of, page, bits)
    state.registers["rcx"] = a.const(0, bits)
