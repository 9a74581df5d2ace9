"""What the fetch of an instruction owes: its page is mapped, and by the tables that are in use.

Rules: as in `machine`.  Most instructions change nothing that a fetch depends on, so its formulas
are made once for each condition of the machine, and recorded for each instruction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import z3

from tightrope.prove.isa.decode import Instruction
from tightrope.prove.isa.symbolic import OFF, OLD, TABLE_B, Symbolic
from tightrope.prove.isa.terms import Truth, Word
from tightrope.x86 import cpu as x86

if TYPE_CHECKING:
    from tightrope.prove.isa.machine import Machine


@dataclass(frozen=True, slots=True)
class Fetch:
    """(sentence, formula) of each fetch in one condition of the machine.

    `held` are the terms whose identities are the key: as long as they live, nothing else has those.
    """

    owed: tuple[tuple[str, Truth], ...]
    held: tuple[object, ...]


def fetch(machine: Machine, state: Symbolic, at: Instruction) -> None:
    """Record what the fetch of `at` owes.  Raises Ends where it cannot be followed."""
    held = (state.stale, state.control["cr4"])
    key = (state.home, state.tables_in_use, *(each.get_id() for each in held))
    found = machine.fetches.get(key)
    if found is None:
        simple = [(says, z3.simplify(formula)) for says, formula in _owed(machine, state)]
        owed = tuple(each for each in simple if not z3.is_true(each[1]))
        found = machine.fetches[key] = Fetch(owed, held)
    for says, formula in found.owed:
        machine.record(state, at, says, formula)
    if state.tables_in_use == OLD and state.home != "V":
        raise machine.stop(state, at, "the old tables need not map P: this fetch may fault")


def _owed(machine: Machine, state: Symbolic) -> Iterator[tuple[str, Truth]]:
    here = machine.V if state.home == "V" else machine.P
    yield f"{state.home} is not page aligned", z3.Extract(11, 0, here) == 0
    if state.tables_in_use == OLD and state.home != "V":
        return
    if state.tables_in_use in (TABLE_B, OFF):
        if state.home == "V" and not machine.one_tree:
            yield (
                f"the code still runs at V, no address of it with {state.tables_in_use}",
                z3.And(machine.V == machine.P, machine.reachable(machine.P)),
            )
        else:
            yield f"{machine.own} is not reachable", machine.reachable(machine.P)
    if not z3.is_false(state.stale):
        same = machine.global_to(here) == machine.P
        if state.home == "V":
            same = z3.Or(same, machine.global_to(here) == machine.K)
        yield (
            f"this fetch at {state.home} may use an old global translation (PGE not cleared yet)",
            z3.Implies(z3.And(state.stale, machine.global_at(here)), same),
        )
    yield from kept_apart(machine, state, here, "this fetch is in", z3.BoolVal(True))


def kept_apart(
    machine: Machine, state: Symbolic, address: Word, says: str, when: Truth
) -> Iterator[tuple[str, Truth]]:
    """No LASS violation: with CR4.LASS long mode's kernel has no business in the lower half."""
    if machine.bits == 64:
        lass = z3.And(machine.enabled(state, x86.CR4_LASS), when)
        upper = z3.Extract(63, 63, address) == 1
        says = f"#GP: CR4.LASS may be set: {says} the lower half"
        yield says, z3.Implies(lass, upper)
