"""A solver's model as an input that a person can read, and that can be run.

Rules: numbers only; everything that the failing obligation does not speak of is whatever the solver
left, or what was preferred: a caller may give values that it would like (a real host's), and gets
as many of them as the failure leaves free.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import z3

from tightrope.prove.isa.state import FLAG_BITS
from tightrope.prove.isa.terms import Truth, Word, value
from tightrope.prove.routine.contract import Contract
from tightrope.prove.routine.decide import Failure
from tightrope.x86 import cpu as x86

CONTROL = ("cr0", "cr4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counterexample:
    """`values` has V, P, K, table_a, table_b, start, head, cr0, cr4, efer and the call's registers.

    `word`, `cursor`, `destination` are the list's where the failure is inside the loop, else None.
    `global_at_p` is where an old global translation of P leads, None when there is none.
    """

    at: str
    says: str
    values: Mapping[str, int]
    flags: Mapping[str, bool]
    word: int | None = None
    cursor: int | None = None
    destination: int | None = None
    global_at_p: int | None = None

    def printed(self) -> dict[str, str]:
        """Every value that a reader needs, as text."""
        out = {name: f"{value:#x}" for name, value in self.values.items()}
        for name, names in (("cr0", x86.CR0_NAMES), ("cr4", x86.CR4_NAMES)):
            out[name] += f" ({' '.join(n for n, bit in names.items() if self.values[name] & bit)})"
        on = [name for name in ("IF", "DF") if self.flags.get(name)]
        out["flags"] = " ".join(on) or "none"
        if self.global_at_p is not None:
            out["old global mapping of P"] = f"leads to {self.global_at_p:#x}"
        if self.word is not None:
            kinds = {1: "DESTINATION", 2: "INDIRECTION", 4: "DONE", 8: "SOURCE"}
            flags = "|".join(name for bit, name in kinds.items() if self.word & bit) or "no flag"
            out["word of the list"] = f"{self.word:#x} ({flags})"
            out["destination"] = f"{self.destination:#x}"
            out["next word at"] = f"{self.cursor:#x}"
        return out


@dataclass(slots=True)
class Wishes:
    """Values that a caller would like: exact ones, and control registers bit by bit."""

    values: Mapping[str, int] = field(default_factory=dict)
    global_frame: int | None = None
    list_state: Mapping[str, int] = field(default_factory=dict)


def concrete(contract: Contract, failure: Failure, wishes: Wishes | None = None) -> Counterexample:
    """The input of a failure that has a model."""
    assert failure.model is not None
    model = failure.model if wishes is None else _preferred(contract, failure, wishes)

    def number(term: Word) -> int:
        found = value(model.eval(term, model_completion=True))
        assert found is not None
        return found

    def truth(term: Truth) -> bool:
        return bool(z3.is_true(model.eval(term, model_completion=True)))

    names, arguments = contract.names, contract.arguments()
    values = {name: number(term) for name, term in names.items()}
    values |= {name: number(arguments.get(name, term)) for name, term in contract.registers.items()}
    P, at = names["P"], failure.segment.list_state
    obligation = failure.obligation
    return Counterexample(
        at="the loop head or the entry" if obligation.at is None else str(obligation.at),
        says=obligation.says,
        values=values,
        flags={name: truth(contract.flags[name]) for name in FLAG_BITS},
        word=None if at is None else number(at.word),
        cursor=None if at is None else number(at.cursor),
        destination=None if at is None else number(at.destination),
        global_at_p=number(contract.global_to(P)) if truth(contract.global_at(P)) else None,
    )


def _preferred(contract: Contract, failure: Failure, wishes: Wishes) -> z3.ModelRef:
    """A model of the failure that grants as many wishes as can be, in their order."""
    solver = z3.SolverFor("QF_AUFBV")
    solver.set("timeout", 5000)
    obligation = failure.obligation
    solver.add(*failure.segment.hypotheses, *obligation.path, z3.Not(obligation.formula))
    best = failure.model
    for wish in _wishes(contract, failure, wishes):
        solver.push()
        solver.add(wish)
        if solver.check() == z3.sat:
            best = solver.model()
        else:
            solver.pop()
    assert best is not None
    return best


def _wishes(contract: Contract, failure: Failure, wishes: Wishes) -> Sequence[Truth]:
    names = {**contract.registers, **contract.names}
    out = []
    at = failure.segment.list_state
    if at is not None:
        for name, value in wishes.list_state.items():
            out.append(getattr(at, name) == value)
        for number in range(4, 12):
            out.append(z3.Extract(number, number, at.word) == 0)
    for name, value in wishes.values.items():
        if name not in names:
            continue
        term = names[name]
        if name in CONTROL:
            defined = (x86.CR0_NAMES if name == "cr0" else x86.CR4_NAMES).values()
            for number in (bit.bit_length() - 1 for bit in defined if not bit >> contract.bits):
                out.append(z3.Extract(number, number, term) == (value >> number & 1))
        out.append(term == value)
    P = contract.names["P"]
    out.append(z3.Not(contract.global_at(P)))
    if wishes.global_frame is not None:
        out.append(contract.global_to(P) == wishes.global_frame)
    return out
