"""The entry stub of a 64-bit entry, from its first byte to the new kernel's, on its bytes.

    relocation code --entry contract--> stub --64-bit boot protocol--> new kernel

Rules: the stub may rely on the entry contract alone (routines/relocate_x86_64.S) and on its page being
reachable; the two words that the plan fills in are arbitrary.  What it owes is the boot protocol's
(Linux Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"): selectors 0x10 and 0x18 from a gdt in
its own page, rsi as the plan fills it in (boot_params), interrupts off, paging and the control registers as they were.
"""

from __future__ import annotations

import time
from dataclasses import replace

import z3

from tightrope import routines
from tightrope.memory import PAGE_SIZE
from tightrope.prove.code.contract import CODE_SELECTOR, DATA_SELECTOR, Contract
from tightrope.prove.code.cutpoints import LONGEST, Segment, Walker
from tightrope.prove.code.decide import Failure, failures, feasible
from tightrope.prove.code.memory import Memory
from tightrope.prove.code.semantics import Refused
from tightrope.prove.code.symbolic import ENTRY, TABLE_B, Ends, Symbolic
from tightrope.x86 import cpu as x86


def walk(contract: Contract, data: bytes, symbols: dict[str, int]) -> Segment:
    """All obligations of a stub: `symbols` has kernel_entry and word_rsi.  Raises Refused."""
    machine = contract.machine(data)
    page = contract.names["P"]
    # The plan's two words are no constants: memory beyond the gdt is arbitrary.
    memory = Memory(first=contract.first_memory, home=page, image=data[: symbols["kernel_entry"]])
    machine.start = memory.load(z3.simplify(page + symbols["kernel_entry"]), 64)
    params = memory.load(z3.simplify(page + symbols["word_rsi"]), 64)
    called = Walker(contract, data).called()
    control = {**called.control, "cr3": contract.names["table_b"]}
    state: Symbolic = replace(
        called,
        registers=dict(contract.registers),
        flags={**called.flags, "IF": z3.BoolVal(False), "TF": z3.BoolVal(False)},
        control={**control, "cr4": contract.names["cr4"] & (x86.CR4_PAE | x86.CR4_LA57)},
        memory=memory,
        tables_in_use=TABLE_B,
        home="P",
        rip=page,
    )
    before = state
    for _ in range(LONGEST):
        try:
            states = machine.step(state)
        except Ends:
            break
        if len(states) != 1:
            raise Refused("a stub with branches")
        state = states[0]
        if state.offset == ENTRY:
            break
    else:
        raise Refused("the stub does not come to its end")

    def must(says: str, formula: z3.BoolRef) -> None:
        machine.require(state, None, f"at the new kernel's entry {says}", formula)

    if state.offset == ENTRY:
        must("rsi is not what the plan fills in", state.registers["rsi"] == params)
        for name, value in state.registers.items():
            if name not in ("rsi", "rsp"):
                must(f"{name} is not 0", value == 0)
        must("the stack is not the stub's page", state.registers["rsp"] == page + PAGE_SIZE - 8)
        top = state.memory.load(z3.simplify(state.registers["rsp"]), 64)
        must("the top of the stack is not 0", top == 0)
        for name in ("IF", "DF", "TF"):
            flag = state.flags[name]
            must(f"RFLAGS.{name} is set", z3.Not(flag() if callable(flag) else flag))
        for name, value in before.control.items():
            must(f"{name} has changed", state.control[name] == value)
        for name in x86.SEGMENTS:
            selector = CODE_SELECTOR if name == "cs" else DATA_SELECTOR
            seen = x86.Descriptor.decode(state.hidden.get(name, 0))
            must(f"{name} is not {selector:#x}", state.segments[name] == selector)
            flat = seen.flat and seen.code == (name == "cs") and (seen.long or seen.big)
            must(f"{name} is not a flat segment", z3.BoolVal(flat))
        base, limit = state.tables["gdt"]
        must("the gdt is not in the stub", base == page + symbols["gdt"])
        must("the gdt is too short", z3.UGE(limit, DATA_SELECTOR | 7))
        probe = z3.BitVec("probe", 64)
        own = z3.simplify(probe - page)
        free = z3.And(z3.UGE(own, len(data)), z3.ULT(own, PAGE_SIZE))
        same = state.memory.byte(probe) == memory.byte(probe)
        must("memory outside the stub's stack has changed", z3.Or(free, same))
    # The entry's own page has to be reachable, as every address that the plan names.
    entry = contract.reachable(z3.simplify(machine.start & ~(PAGE_SIZE - 1)))
    given = [h.formula for h in contract.hypotheses if h.name != "entry-reachable"]
    return Segment("the entry stub", (*given, entry), tuple(machine.obligations))


def first_failure(
    contract: Contract, data: bytes, symbols: dict[str, int], seconds: float
) -> tuple[int, Failure | None]:
    """How many obligations, and the first that does not hold.  Raises Refused."""
    segment = walk(contract, data, symbols)
    if not feasible(segment):
        raise Refused("the hypotheses cannot hold together")
    deadline = time.perf_counter() + seconds
    return len(segment.obligations), next(failures(segment, deadline=deadline), None)


def shipped() -> tuple[bytes, dict[str, int]]:
    """The stub's bytes and symbols."""
    code = routines.read(routines.ENTER_64)
    return code.data, dict(code.symbols)
