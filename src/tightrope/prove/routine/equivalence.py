"""Whether two routines do the same: their states at every cutpoint, compared term by term.

Rules: nothing is taken from a list.  Terms are compared as they are, after simplification: two that
differ may still be equal, and then the answer is no, which is the careful one.  Only where there is
no loop a solver is asked whether they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import z3

from tightrope.prove.isa.state import ARITHMETIC
from tightrope.prove.isa.symbolic import ENTRY, Symbolic
from tightrope.prove.isa.terms import Truth
from tightrope.prove.routine.cutpoints import Walked


def equivalent(one: Walked, other: Walked) -> str:
    """Why two routines do the same whatever the input; empty where that is not so.

    Both come to the same cutpoints in the same states, term by term.  A control register may differ
    at the loop head if every way round leaves it as it is and the entry does not depend on it.
    """
    if (one.head, one.roles, one.kept) != (other.head, other.roles, other.kept):
        return ""
    dead = set()
    for x, y in _pairs(one.arrivals, other.arrivals):
        dead |= _different(x, y)
    if not dead <= {"control cr3"} or len(one.arrivals) != len(other.arrivals):
        return ""
    if len(one.ways) != len(other.ways):
        return ""
    for x, y in _pairs(one.ways, other.ways):
        different = _different(x, y)
        if different and (not different <= dead or x.offset == ENTRY):
            return ""
    for walked in (one, other):
        first = _terms(walked.arrivals[0])
        for way in walked.ways:
            if way.offset != ENTRY and any(not _eq(_terms(way)[n], first[n]) for n in dead):
                return ""
    note = f", but for {', '.join(sorted(dead))}, which nothing reads" if dead else ""
    return f"the same state at every cutpoint, term by term{note}"


def same_end(one: Symbolic, other: Symbolic, given: Sequence[Truth]) -> bool:
    """Whether code without a loop comes to the same state:
    terms that differ are equal under `given`.
    """
    ones, others = _terms(one), _terms(other)
    solver = z3.SolverFor("QF_AUFBV")
    solver.set("timeout", 2000)
    solver.add(*given)
    for name in _different(one, other):
        x, y = ones.get(name), others.get(name)
        if not isinstance(x, z3.BitVecRef) or not isinstance(y, z3.BitVecRef):
            return False
        if x.size() != y.size() or solver.check(x != y) != z3.unsat:
            return False
    return True


def _pairs(
    ones: tuple[Symbolic, ...], others: tuple[Symbolic, ...]
) -> list[tuple[Symbolic, Symbolic]]:
    return list(zip(ones, others, strict=False))


def _different(one: Symbolic, other: Symbolic) -> set[str]:
    """The names of the terms in which two states differ."""
    ones, others = _terms(one), _terms(other)
    return {
        name
        for name in ones.keys() | others.keys()
        if name not in ones or name not in others or not _eq(ones[name], others[name])
    }


def _terms(state: Symbolic) -> dict[str, object]:
    """All that later instructions can depend on;
    the arithmetic flags are forgotten at cutpoints.
    """
    out: dict[str, object] = {
        "home": state.home,
        "offset": state.offset,
        "tables in use": state.tables_in_use,
        "stale": state.stale,
        "unserialized": state.unserialized,
    }
    out |= {f"condition {n}": each for n, each in enumerate(state.path)}
    parts: dict[str, Mapping[str, object]] = {
        "register": state.registers,
        "control": state.control,
        "segment": state.segments,
        "descriptor": state.hidden,
    }
    for what, part in parts.items():
        out |= {f"{what} {name}": value for name, value in part.items()}
    for name, (base, limit) in state.tables.items():
        out |= {f"{name} base": base, f"{name} limit": limit}
    for name in set(state.flags) - set(ARITHMETIC):
        out[f"flag {name}"] = state.flag(name)
    for number, layer in enumerate(state.memory.layers):
        for name in layer.__slots__:
            value = getattr(layer, name)
            if name == "data":
                out |= {f"memory {number} at {at}": byte for at, byte in value.items()}
            else:
                out[f"memory {number} {name}"] = value
    return out


def _eq(one: object, other: object) -> bool:
    if isinstance(one, z3.AstRef) and isinstance(other, z3.AstRef):
        return bool(z3.eq(one, other))
    return one == other
