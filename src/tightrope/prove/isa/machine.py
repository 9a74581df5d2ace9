"""A machine made of terms: translation, faults, ownership.  Each is an obligation.

    instruction model --asks--> Machine --require(...)--> Obligation: a formula that must hold there

Rules: the TLB is the worst one that the manual allows: after CR3 was loaded an old *global*
translation may still be used, until a write flushes everything (SDM 4.10).  Nothing here decides
anything: obligations are collected and decided by `decide`.  Where code does what the model cannot
follow, the path ends with an obligation that cannot hold, or with Refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import z3

from tightrope.memory import PAGE_SIZE
from tightrope.prove.isa import copying, fetching, old_stack, privileged
from tightrope.prove.isa.decode import Instruction, Undecodable, decode
from tightrope.prove.isa.instructions import execute
from tightrope.prove.isa.memory import same, split
from tightrope.prove.isa.semantics import Model
from tightrope.prove.isa.state import State
from tightrope.prove.isa.symbolic import (
    ENTRY,
    OLD,
    TABLE_A,
    Ends,
    Obligation,
    Symbolic,
)
from tightrope.prove.isa.terms import Terms, Truth, Word, value
from tightrope.x86 import cpu as x86


@dataclass(kw_only=True, slots=True)
class Machine:
    """The port of the instruction model over terms."""

    image: bytes
    bits: int
    V: Word
    P: Word
    K: Word
    table_a: Word
    table_b: Word | None
    start: Word
    physical: Word
    la57: Truth
    reachable: Callable[[Word], Truth]
    is_table: Callable[[Word], Truth]
    global_at: Callable[[Word], Truth]
    global_to: Callable[[Word], Word]
    facts: int = 0
    one_tree: bool = False
    """page_table_b maps V too, and is loaded at V: there is no page_table_a."""
    untracked: bool = False
    """IA32_S_CET is 0: CR4.CET may be set, and no branch is tracked."""
    stack: Word | None = None
    """The old kernel's stack pointer at the call, where what lies below it may be used."""
    arrays: tuple[old_stack.Array, ...] = ()
    """What the caller has on its stack, to be read: arguments, an array of pages."""
    mapped: Word | None = None
    """Where the old tables map the control page, to be written."""
    variables: tuple[int, int] = (0, 0)
    """Offsets of what may be written in the image itself."""
    lent: tuple[Word, int] | None = None
    """Another page and the first offset in it from which its bytes may be written:
    a caller's stack.
    """
    leaves_long_mode: bool = False
    """Whoever walks can follow a far return into 32-bit code: that is for another machine."""
    own: str = "the control page"
    """What the page at P is called."""
    obligations: list[Obligation] = field(default_factory=list)
    window: set[int] = field(default_factory=set)
    """Offsets of the instructions that ran in the fault window."""
    fetches: dict[tuple[object, ...], fetching.Fetch] = field(default_factory=dict)
    """What a fetch owes, by all that it depends on: most instructions change nothing of it."""
    terms: Terms = field(default_factory=Terms)

    def require(self, state: Symbolic, at: Instruction | None, says: str, formula: Truth) -> None:
        """Record an obligation; `says` completes "it is wrong that here ..." ."""
        formula = z3.simplify(formula)
        if not z3.is_true(formula):
            self.record(state, at, says, formula)

    def stop(self, state: Symbolic, at: Instruction | None, says: str) -> Ends:
        """The path cannot go on."""
        self.record(state, at, says, z3.BoolVal(False))
        return Ends(says)

    def record(self, state: Symbolic, at: Instruction | None, says: str, formula: Truth) -> None:
        in_window = self._in_window(state)
        if in_window:
            says = f"{says}; a handler of the old kernel's would run on what is no longer its stack"
        self.obligations.append(Obligation(at, says, state.path, formula, state.turns, in_window))

    def _in_window(self, state: Symbolic) -> bool:
        """The old stack is gone, and an exception may still find the old kernel's handlers.

        It finds them by the idt until that has limit 0, or with CR4.FRED by an MSR whatever the
        idt.
        """
        if not state.stack_gone:
            return False
        base, limit = state.tables["idt"]
        if value(limit) != 0 and not same(split(base)[0], self.P):
            return True
        return not z3.is_false(self.enabled(state, x86.CR4_FRED))

    # ------------------------------------------------------------------------------ one step

    def step(self, state: Symbolic) -> list[Symbolic]:
        """The states after one instruction.  Raises Ends and Refused."""
        try:
            at = decode(self.image, state.offset, self.bits)
        except Undecodable:
            raise self.stop(
                state, None, f"control runs into {state.offset:#x}, where there is no instruction"
            ) from None
        fetching.fetch(self, state, at)
        if self._in_window(state):
            self.window.add(state.offset)
        state = state.copied()
        model = Model(self.terms, self)
        if state.tables_in_use != OLD:
            for name in ("IF", "TF"):
                self.require(
                    state, at, f"RFLAGS.{name} may be set", z3.Not(model.flag(state, name))
                )
        stack = split(state.registers["rsp"])[0]
        flow = execute(model, state, at)
        if not same(split(state.registers["rsp"])[0], stack):
            state.stack_gone = True
        after = at.offset + at.size
        if flow.halts:
            raise self.stop(state, at, "the CPU halts")
        if flow.condition is not None:
            out = []
            for condition, target in (
                (flow.condition, flow.target),
                (z3.simplify(z3.Not(flow.condition)), after),
            ):
                if not z3.is_false(condition):
                    taken = state.copied()
                    if not z3.is_true(condition):
                        taken.path = (*state.path, condition)
                        taken.turns = (*state.turns, (at, target is not None and target != after))
                    taken.offset = target if target is not None else after
                    out.append(taken)
            return out
        if flow.address is not None:
            self._arrive(state, at, flow.address)
        else:
            state.offset = after if flow.target is None else flow.target
        return [state]

    def _arrive(self, state: Symbolic, at: Instruction, address: Word) -> None:
        """Control goes to a computed address: the entry, or an offset of the image at V or P."""
        tracked = self.enabled(state, x86.CR4_CET)
        self.require(
            state,
            at,
            "CR4.CET may be set: #CP, the target has no ENDBR and the shadow stack no such return",
            z3.Not(tracked) if not self.untracked else z3.BoolVal(True),
        )
        address = self._whole(state, at, address)
        if z3.eq(address, self.start):
            entry = z3.simplify(self.start & ~(PAGE_SIZE - 1))
            self.require(state, at, "the entry is not reachable", self.reachable(entry))
            state.offset = ENTRY
            return
        base, offset = split(address)
        for home, where in (("P", self.P), ("V", self.V)):
            if base is not None and z3.eq(base, where) and 0 <= offset < len(self.image):
                state.home, state.rip, state.offset = home, where, offset
                return
        raise self.stop(
            state, at, f"control goes to {address}, which is neither the entry nor in its own page"
        )

    def _whole(self, state: Symbolic, at: Instruction, address: Word) -> Word:
        """What a 32-bit offset was the low half of: that nothing was lost is an obligation."""
        parts = address.children() if address.decl().kind() == z3.Z3_OP_CONCAT else []
        if len(parts) != 2 or value(parts[0]) != 0:
            return address
        low, more = split(parts[1])
        if low is None or low.decl().kind() != z3.Z3_OP_EXTRACT or low.params() != [31, 0]:
            return address
        whole: Word = z3.simplify(low.arg(0) + more)
        says = "the offset of a far jump has 32 bits, and its target may lie above 4 GiB"
        self.require(state, at, says, z3.ULT(whole, 1 << 32))
        return whole

    def flag(self, state: Symbolic, name: str) -> Truth:
        """A flag as it is now; one that is undefined may be anything."""
        return Model(self.terms, self).flag(state, name)

    def enabled(self, state: Symbolic, bit: int) -> Truth:
        """Whether a bit of CR4 is set; 32-bit code has none above bit 31."""
        if bit >> self.bits:
            return z3.BoolVal(False)
        return self.terms.bit(state.control["cr4"], bit.bit_length() - 1)

    # --------------------------------------------------------------------------- translation

    def translate(self, state: Symbolic, at: Instruction, la: Word, size: int, verb: str) -> Word:
        """The physical address of `size` bytes at linear `la`, none of them in another page."""
        base, offset = split(la)
        page = z3.simplify(la & ~(PAGE_SIZE - 1))
        low = z3.simplify(la & (PAGE_SIZE - 1))
        known = base if any(same(base, each) for each in (self.P, self.V, self.mapped)) else None
        if known is not None and 0 <= offset <= PAGE_SIZE - size:
            # Needs no solver: V and P are page aligned, and that is an obligation of its own.
            self.require(state, at, "its page is not page aligned", z3.Extract(11, 0, known) == 0)
            page, low = known, z3.BitVecVal(offset, self.bits)
        elif size > 1:
            self.require(
                state,
                at,
                f"it {verb} {size} bytes that may cross a page",
                z3.ULE(low, PAGE_SIZE - size),
            )
        if state.tables_in_use == OLD and self.mapped is not None and same(known, self.mapped):
            phys = self.P + low
        elif state.tables_in_use == OLD:
            if verb == "writes":
                raise self.stop(state, at, "it writes into the old kernel's memory")
            self.require(state, at, f"it {verb} the old kernel's memory", page == self.V)
            inside = base is not None and z3.eq(base, self.V) and offset + size <= len(self.image)
            phys = (self.P if inside else self.K) + low
        elif state.tables_in_use == TABLE_A:
            self.require(
                state,
                at,
                f"it {verb} an address that page_table_a does not map",
                z3.Or(page == self.V, page == self.P),
            )
            phys = self.P + low
        elif self.one_tree and same(known, self.V):
            phys = self.P + low
        else:
            self.require(
                state,
                at,
                f"it {verb} an address that is not reachable with {state.tables_in_use}",
                self.reachable(page),
            )
            phys = la
        phys = z3.simplify(phys)
        if not z3.is_false(state.stale):
            frame = z3.simplify(phys & ~(PAGE_SIZE - 1))
            self.require(
                state,
                at,
                f"it {verb} through what may be an old global translation",
                z3.Implies(
                    z3.And(state.stale, self.global_at(page)), self.global_to(page) == frame
                ),
            )
        # Data is let through while RFLAGS.AC is set, but for what the CPU reads by itself.
        quiet = z3.BoolVal(True) if "loading" in verb else z3.Not(self.flag(state, "AC"))
        smap = z3.And(self.enabled(state, x86.CR4_SMAP), quiet)
        for says, formula in fetching.kept_apart(self, state, la, f"it {verb}", smap):
            self.require(state, at, says, formula)
        return phys

    def load(self, state: State[Word, Truth], at: Instruction, address: Word, width: int) -> Word:
        assert isinstance(state, Symbolic)
        there = old_stack.read(self.stack, self.arrays, state, address, width)
        if there is not None:
            return there
        phys = self.translate(state, at, address, width // 8, "reads")
        return state.memory.load(phys, width)

    def store(
        self, state: State[Word, Truth], at: Instruction, address: Word, width: int, value: Word
    ) -> None:
        assert isinstance(state, Symbolic)
        size = width // 8
        below = old_stack.distance(self.stack, state, address, size)
        if below is not None:
            old_stack.put(state, below, value, size)
            return
        phys = self.translate(state, at, address, size, "writes")
        into = z3.simplify(phys - self.P)
        owned = z3.And(z3.ULE(len(self.image), into), z3.ULE(into, PAGE_SIZE - size))
        if self.variables[1]:
            first, end = self.variables
            owned = z3.Or(owned, z3.And(z3.ULE(first, into), z3.ULE(into, end - size)))
        if self.lent is not None:
            page, first = self.lent
            there = z3.simplify(phys - page)
            owned = z3.Or(owned, z3.And(z3.ULE(first, there), z3.ULE(there, PAGE_SIZE - size)))
        self.require(state, at, f"it writes outside the free part of {self.own}", owned)
        self.require(
            state, at, "it writes into a page table", z3.Not(self.is_table(page_of(phys, self.P)))
        )
        state.memory = state.memory.store(phys, value, width)

    def copy(self, state: State[Word, Truth], at: Instruction) -> None:
        """REP MOVS of a page: theorem 4's lemma says that it is one page copy."""
        assert isinstance(state, Symbolic)
        copying.copy_page(self, state, at)

    def serialize(self, state: State[Word, Truth]) -> None:
        assert isinstance(state, Symbolic)
        state.unserialized = False

    # ---------------------------------------------------------------------------- privileged

    def control(
        self, state: State[Word, Truth], at: Instruction, register: str, written: Word
    ) -> None:
        assert isinstance(state, Symbolic)
        privileged.write_control(self, state, at, register, written)

    def table(
        self, state: State[Word, Truth], at: Instruction, name: str, base: Word, limit: Word
    ) -> None:
        """LGDT and LIDT (serializing)."""
        assert isinstance(state, Symbolic)
        if self.bits == 64:
            for levels, bits in ((self.la57, 57), (z3.Not(self.la57), 48)):
                top = z3.Extract(63, bits - 1, base)
                canonical = z3.Or(top == 0, top == (1 << (65 - bits)) - 1)
                says = f"#GP: the base of the {name} may be no canonical address"
                self.require(state, at, says, z3.Implies(levels, canonical))
        state.tables = {**state.tables, name: (base, limit)}
        state.unserialized = False

    def read_msr(
        self, state: State[Word, Truth], at: Instruction, number: Word
    ) -> tuple[Word, Word]:
        assert isinstance(state, Symbolic)
        return privileged.read_msr(self, state, at, number)

    def write_msr(
        self, state: State[Word, Truth], at: Instruction, number: Word, low: Word, high: Word
    ) -> None:
        assert isinstance(state, Symbolic)
        privileged.write_msr(self, state, at, number, low, high)

    def segment(
        self, state: State[Word, Truth], at: Instruction, register: str, selector: Word
    ) -> None:
        assert isinstance(state, Symbolic)
        privileged.load_segment(self, state, at, register, selector)


def page_of(phys: Word, home: Word) -> Word:
    """The page of an address that is known to be on `home`, or may be anywhere."""
    base, offset = split(phys)
    if base is not None and z3.eq(base, home) and 0 <= offset < PAGE_SIZE:
        return home
    return z3.simplify(phys & ~(PAGE_SIZE - 1))
