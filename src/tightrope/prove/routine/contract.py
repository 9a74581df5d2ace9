"""The contract of the two-tables handover, in terms: what a relocation routine may rely on, what it
owes.

    before   registers as machine_kexec loads them, page_table_a and page_table_b as theorem 1 has
             them, a page list as theorem 4 wants it
    after    the entry state that routines/relocate_*.S promises at its top

Rules: every hypothesis has a name, a sentence and a formula; a test drops each and sees a proof
fail. Nothing here executes code.  An i386 contract has 32-bit words and no page_table_b: step 5
turns paging off, and `reachable` says which pages are memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import z3

from tightrope.memory import PAGE_SIZE
from tightrope.model import Paging
from tightrope.prove.isa.machine import Machine
from tightrope.prove.isa.memory import Memory
from tightrope.prove.isa.state import FLAG_BITS, general
from tightrope.prove.isa.terms import Truth, Word
from tightrope.x86 import cpu as x86
from tightrope.x86.control import IN_TDX

CODE_SELECTOR, DATA_SELECTOR = 0x10, 0x18
CR0_AT_ENTRY = x86.CR0_PE | x86.CR0_MP | x86.CR0_ET | x86.CR0_NE


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """`name` is what tests and docs call it.

    `kept_by` says who sees to it: rows of `prove.theorems.hypotheses`, ids of check rules, dotted
    names below tightrope.  docs/proof.md has them all.
    """

    name: str
    says: str
    formula: Truth
    kept_by: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ListState:
    """The list interpreter between two words: `word` is next,
    `cursor` where the one after it is.
    """

    word: Word
    cursor: Word
    destination: Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Owed:
    """What code owes at the entry where it is not what our own does."""

    cr0_kept: int = 0
    """Bits of CR0 that may be as they were; 0: CR0 is a constant."""
    idt: tuple[int, int] | None = None
    """Where in the control page its idt lies, and its limit; None: it is empty."""
    destination: bool = True
    """The list's destination is 0 until one is set."""
    selectors: tuple[int, int] = (CODE_SELECTOR, DATA_SELECTOR)
    """Of flat code and flat data."""
    gdt: bool = True
    """It has a gdt in the control page; else C has dropped all descriptor tables before the call.
    """
    cursor: bool = True
    """The list's cursor is 0 until an indirection sets it."""


@dataclass
class Contract:
    """Names of everything that is arbitrary, and the hypotheses about it.

    `paging` None leaves open which of the two formats of this width it is.
    """

    bits: int
    paging: Paging | None
    names: dict[str, Word] = field(default_factory=dict)
    hypotheses: list[Hypothesis] = field(default_factory=list)
    owed: Owed = Owed()
    facts: int = 0
    """Whose CPU it is, and what guest runs on it: IS_INTEL to IN_SEV_ES of `x86.control`; 0, any.
    """

    def __post_init__(self) -> None:
        bits = self.bits
        if self.paging is not None and self.paging.long_mode != (bits == 64):
            raise ValueError(f"{self.paging} is not of {bits} bits")
        word = z3.BitVecSort(bits)
        plain = ("V", "P", "K", "table_a", "start", "head", "physical", "cr0", "cr3", "cr4", "efer")
        for name in (*plain, "table_b") if bits == 64 else plain:
            self.names[name] = z3.BitVec(name, bits)
        self.reachable = z3.Function("reachable", word, z3.BoolSort())
        self.is_table = z3.Function("is_table", word, z3.BoolSort())
        self.global_at = z3.Function("global_at", word, z3.BoolSort())
        self.global_to = z3.Function("global_to", word, word)
        self.first_memory = z3.Array("memory", word, z3.BitVecSort(8))
        self.la57 = z3.Bool("cpu has LA57")
        self.flags = {name: z3.Bool(f"flag {name}") for name in FLAG_BITS}
        self.registers = {name: z3.BitVec(name, bits) for name in general(bits)}
        self.hypotheses = list(self._hypotheses())

    # --------------------------------------------------------------------------------- before

    def _hypotheses(self) -> Iterator[Hypothesis]:
        n = self.names
        V, P, K, a = n["V"], n["P"], n["K"], n["table_a"]

        def aligned(x: Word) -> Truth:
            return z3.Extract(11, 0, x) == 0

        def bit(x: Word, mask: int) -> Truth:
            number = mask.bit_length() - 1
            return z3.Extract(number, number, x) == 1

        cr0, cr4, efer = n["cr0"], n["cr4"], n["efer"]
        yield Hypothesis(
            "V-aligned",
            "V is page aligned, and a linear address of the mode",
            z3.simplify(z3.And(aligned(V), *self._canonical(V))),
            ("v-canonical",),
        )
        yield Hypothesis(
            "P-aligned",
            "P is page aligned, and below the limit of addresses that are linear ones, too",
            z3.simplify(z3.And(aligned(P), *self.identity(P))),
            ("p-identity",),
        )
        frames = [a] if self.bits == 32 else [a, n["table_b"]]
        roots = list(map(aligned, frames))
        if self.bits == 64:
            roots += [z3.ULT(root, n["physical"]) for root in frames]
            # MAXPHYADDR is 52 at most (SDM 4.1.4).
            roots.append(z3.ULE(n["physical"], 1 << 52))
        yield Hypothesis(
            "roots",
            "the roots of the tables are frames of this CPU",
            z3.And(*roots),
            ("frames-distinct", "root-in-cr3"),
        )
        yield Hypothesis(
            "P-no-table", "P is no page table", z3.Not(self.is_table(P)), ("frames-distinct",)
        )
        yield Hypothesis(
            "P-reachable",
            "page_table_b maps the control page to itself"
            if self.bits == 64
            else "the control page is memory",
            self.reachable(P),
            ("reachable",),
        )
        yield Hypothesis(
            "entry-reachable",
            "the entry is reachable after step 5",
            self.reachable(page_of(n["start"])),
            ("reachable",),
        )
        yield Hypothesis(
            "V-global",
            "an old global translation of V leads to the old kernel's copy of the code",
            z3.Implies(self.global_at(V), self.global_to(V) == K),
            ("v-mapped",),
        )
        legal = [
            z3.Implies(bit(cr4, x86.CR4_CET), bit(cr0, x86.CR0_WP)),
            z3.Implies(bit(cr0, x86.CR0_NW), bit(cr0, x86.CR0_CD)),
            bit(cr0, x86.CR0_PG),
            bit(cr0, x86.CR0_PE),
            cr4 & ~x86.CR4_DEFINED & ((1 << self.bits) - 1) == 0,
            z3.Implies(bit(cr4, x86.CR4_LA57), self.la57),
        ]
        if self.facts & IN_TDX:
            legal += [bit(cr4, x86.CR4_MCE), bit(cr0, x86.CR0_NE)]
        if self.bits == 64:
            legal += [
                z3.Extract(63, 32, cr0) == 0,
                bit(efer, x86.EFER_LMA),
                bit(efer, x86.EFER_LME),
                bit(cr4, x86.CR4_PAE),
                z3.Implies(bit(cr4, x86.CR4_LASS), bit(V, 1 << 63)),
            ]
            if self.paging is not None:
                legal.append(bit(cr4, x86.CR4_LA57) == z3.BoolVal(self.paging is Paging.LA57))
        else:
            legal += [
                z3.Not(bit(efer, x86.EFER_LMA)),
                z3.Not(bit(efer, x86.EFER_LME)),
                z3.Not(bit(cr4, x86.CR4_PCIDE)),
                z3.Not(bit(cr4, x86.CR4_LA57)),
            ]
            if self.paging is not None:
                legal.append(bit(cr4, x86.CR4_PAE) == z3.BoolVal(self.paging is Paging.PAE))
        yield Hypothesis(
            "old-state-legal",
            "the old kernel's control registers are ones that the CPU allows, with paging on, at V",
            z3.And(*legal),
            ("old-state",),
        )
        yield Hypothesis(
            "no-single-step",
            "the old kernel does not single-step",
            z3.Not(self.flags["TF"]),
            ("old-state",),
        )

    def _canonical(self, address: Word) -> Iterator[Truth]:
        """SDM volume 1, 3.3.7.1; every address is a linear one where they have 32 bits."""
        if self.bits == 64:
            five = bit_of(self.names["cr4"], x86.CR4_LA57.bit_length() - 1)
            for levels, bits in ((five, 57), (z3.Not(five), 48)):
                top = z3.Extract(63, bits - 1, address)
                ones = (1 << (65 - bits)) - 1
                yield z3.Implies(levels, z3.Or(top == 0, top == ones))
            yield z3.Implies(five, self.la57)

    def identity(self, address: Word) -> Iterator[Truth]:
        """A physical address that is a linear one, too: canonical, in the lower half."""
        yield from self._canonical(address)
        if self.bits == 64:
            yield z3.Extract(63, 63, address) == 0

    def formulas(self) -> list[Truth]:
        """The hypotheses' formulas."""
        return [each.formula for each in self.hypotheses]

    def machine(self, image: bytes) -> Machine:
        """A machine in the old kernel's world."""
        n = self.names
        return Machine(
            image=image,
            bits=self.bits,
            V=n["V"],
            P=n["P"],
            K=n["K"],
            table_a=n["table_a"],
            table_b=n.get("table_b"),
            start=n["start"],
            physical=n["physical"],
            la57=self.la57,
            facts=self.facts,
            reachable=self.reachable,
            is_table=self.is_table,
            global_at=self.global_at,
            global_to=self.global_to,
        )

    def at_call(self) -> dict[str, Word]:
        """DR7 at the call."""
        return {"dr7": z3.BitVec("dr7", self.bits)}

    def selectors(self) -> tuple[dict[str, Word], dict[str, int]]:
        """The segment registers at the call, and the descriptors that are known to be in them."""
        return {name: z3.BitVec(name, 16) for name in x86.SEGMENTS}, {}

    def tables(self) -> dict[str, tuple[Word, Word]]:
        """Base and limit of the descriptor tables at the call."""
        return {
            name: (z3.BitVec(f"{name} base", self.bits), z3.BitVec(f"{name} limit", 16))
            for name in ("gdt", "idt")
        }

    def arguments(self) -> dict[str, Word]:
        """The registers of the call (handover/build.py, and the routines' own comments)."""
        n = self.names
        out = {"rdi": n["head"], "rsi": n["P"], "rdx": n["start"], "rcx": n["table_a"]}
        if self.bits == 64:
            out["r8"] = n["table_b"]
        return out

    def memory(self, image: bytes) -> Memory:
        """Memory at the call: the image on the control page, the rest arbitrary."""
        return Memory(first=self.first_memory, home=self.names["P"], image=image)

    # ------------------------------------------------------------------------------- the list

    def list_hypotheses(self, at: ListState) -> list[Hypothesis]:
        """What the plan promises about one word of a list, met in this state."""
        P = self.names["P"]
        copies, source = is_copy(at.word), page_of(at.word)
        low = 7 if self.bits == 64 else 3
        return [
            Hypothesis(
                "destination-aligned",
                "a destination is page aligned",
                z3.Extract(11, 0, at.destination) == 0,
                ("list-ends",),
            ),
            Hypothesis(
                "cursor-aligned",
                "a word of the list is aligned to its size",
                z3.Or(jumps(at.word), at.cursor & low == 0),
                ("list-ends",),
            ),
            Hypothesis(
                "control-page-kept",
                "the control page is no destination",
                z3.Implies(copies, at.destination != P),
                ("control-page-kept",),
            ),
            Hypothesis(
                "tables-kept",
                "no page table is a destination",
                z3.Implies(copies, z3.Not(self.is_table(at.destination))),
                ("tables-kept",),
            ),
            Hypothesis(
                "destination-reachable",
                "every destination is reachable",
                z3.Implies(copies, self.reachable(at.destination)),
                ("reachable",),
            ),
            Hypothesis(
                "source-reachable",
                "every source is reachable",
                z3.Implies(copies, self.reachable(source)),
                ("reachable",),
            ),
            Hypothesis(
                "list-reachable",
                "every page of the list is reachable",
                z3.And(
                    *(
                        z3.Implies(kind, self.reachable(page_of(after.cursor)))
                        for kind, after in self.steps(at)
                    )
                ),
                ("reachable",),
            ),
        ]

    def asked(self, memory: Memory, at: ListState, address: Word) -> Word:
        """The byte that a page copy is to leave at an address."""
        return memory.copied(at.destination, z3.simplify(page_of(at.word))).byte(address)

    def steps(self, at: ListState) -> list[tuple[Truth, ListState]]:
        """One step of the list interpreter: (kind of word, the state after it), IND_DONE left out.

        `cursor` is where the next word is.  Flags are tested in the order 1, 2, 4, 8 (Linux
        kernel/kexec_core.c and relocate_kernel); a word without a flag is skipped.
        """
        e, cursor, destination = at.word, at.cursor, at.destination
        first, second, done, source = (bit_of(e, number) for number in range(4))
        copies = is_copy(e)
        neither = z3.And(z3.Not(first), z3.Not(second), z3.Not(done), z3.Not(source))
        return [
            (first, ListState(e, cursor, page_of(e))),
            (z3.And(z3.Not(first), second), ListState(e, page_of(e), destination)),
            (copies, ListState(e, cursor, destination + PAGE_SIZE)),
            (neither, ListState(e, cursor, destination)),
        ]


def page_of(x: Word) -> Word:
    """The page that an address lies in."""
    return x & ~(PAGE_SIZE - 1)


def bit_of(x: Word, number: int) -> Truth:
    """Whether a bit is set."""
    return z3.Extract(number, number, x) == 1


def jumps(e: Word) -> Truth:
    """IND_INDIRECTION counts: the cursor is set anew, whatever it was."""
    return z3.And(z3.Not(bit_of(e, 0)), bit_of(e, 1))


def is_done(e: Word) -> Truth:
    """IND_DONE counts: neither IND_DESTINATION nor IND_INDIRECTION is set."""
    return z3.And(z3.Not(bit_of(e, 0)), z3.Not(bit_of(e, 1)), bit_of(e, 2))


def is_copy(e: Word) -> Truth:
    """IND_SOURCE counts: no flag before it is set."""
    return z3.And(*(z3.Not(bit_of(e, n)) for n in range(3)), bit_of(e, 3))
