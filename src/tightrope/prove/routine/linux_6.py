"""Linux up to 6.12 under theorem 5: its relocate_kernel makes a page and its source change places.

    LINUX_6      rsi -> an array on the old stack; V is the kernel's text, one tree maps it and all
    LINUX_I386   arguments and array on the old stack; V is the control page in the direct map
    the array    P, P in the direct map, the tables' root, the swap page
    a copy       swap page <- source <- destination <- swap page

What they are granted beside our own hypotheses and what `linux` has for LINUX_7, each kept by
their C code (machine_kexec in arch/x86/kernel/machine_kexec_64.c and _32.c; kimage_alloc_page in
kernel/kexec_core.c):

    the array says where P, its place in the direct map, the tables and the swap page are
    gdt and idt are empty (native_gdt_invalidate, native_idt_invalidate); segments are flat
    no old global translation leads from P elsewhere: Linux maps none there
    the swap page is nobody's source or destination; a source is no table and not the control page
    LINUX_6: CR4.LASS is 0.  LINUX_I386: CR4.CET is 0, has_pae is 1, no source stands before the
    first destination (edi holds P until then)

Rules: what a step of the list owes is said apart from how the code does it: three pages at once,
not three copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import z3

from tightrope.memory import PAGE_SIZE
from tightrope.model import Paging
from tightrope.prove.isa import old_stack
from tightrope.prove.isa.machine import Machine
from tightrope.prove.isa.memory import Memory
from tightrope.prove.isa.terms import Truth, Word
from tightrope.prove.routine.contract import Contract, Hypothesis, ListState, Owed, is_copy, page_of
from tightrope.prove.routine.linux import KEPT, begins, one_root
from tightrope.x86 import cpu as x86


@dataclass
class Exchanges(Contract):
    """What both widths have: pages change places, C has dropped the descriptor tables."""

    def __post_init__(self) -> None:
        for name in ("swap", "array", "mapped"):
            self.names[name] = z3.BitVec(name, self.bits)
        super().__post_init__()

    def pages(self, mapped: Word) -> old_stack.Array:
        """The array of pages: `mapped` is where the old tables have P."""
        n = self.names
        return n["array"], (n["P"], mapped, n["table_a"], n["swap"])

    def at_call(self) -> dict[str, Word]:
        return {"dr7": z3.BitVecVal(0, self.bits)}

    def tables(self) -> dict[str, tuple[Word, Word]]:
        none = z3.BitVecVal(0, self.bits), z3.BitVecVal(0, 16)
        return {"gdt": none, "idt": none}

    def selectors(self) -> tuple[dict[str, Word], dict[str, int]]:
        code, data = self.owed.selectors
        known = {name: code if name == "cs" else data for name in x86.SEGMENTS}
        flat = {name: x86.flat_descriptor(code=name == "cs", bits=self.bits) for name in known}
        return {name: z3.BitVecVal(each, 16) for name, each in known.items()}, flat

    def asked(self, memory: Memory, at: ListState, address: Word) -> Word:
        source, swap = z3.simplify(page_of(at.word)), self.names["swap"]
        last = memory.byte(address)
        for into, out_of in ((swap, source), (source, at.destination), (at.destination, source)):
            inside = z3.ULT(address - into, PAGE_SIZE)
            last = z3.If(inside, memory.byte(z3.simplify(out_of + (address - into))), last)
        return last

    def _hypotheses(self) -> Iterator[Hypothesis]:
        n = self.names
        yield from super()._hypotheses()
        yield begins(n["head"])
        yield Hypothesis(
            "P-not-global",
            "no old global translation leads from P to another page",
            z3.Implies(self.global_at(n["P"]), self.global_to(n["P"]) == n["P"]),
            ("pge-before-identity",),
        )
        yield Hypothesis(
            "swap-page",
            "the swap page is a reachable page of its own",
            z3.And(
                z3.Extract(11, 0, n["swap"]) == 0,
                self.reachable(n["swap"]),
                z3.Not(self.is_table(n["swap"])),
                n["swap"] != n["P"],
            ),
            ("frames-distinct",),
        )

    def list_hypotheses(self, at: ListState) -> list[Hypothesis]:
        n, copies, source = self.names, is_copy(at.word), page_of(at.word)

        def kept(name: str, says: str, formula: Truth) -> Hypothesis:
            return Hypothesis(name, says, z3.Implies(copies, formula), ("frames-distinct",))

        return [
            *super().list_hypotheses(at),
            kept(
                "swap-kept",
                "the swap page is no source and no destination",
                z3.And(n["swap"] != at.destination, n["swap"] != source),
            ),
            kept("control-page-no-source", "the control page is no source", source != n["P"]),
            kept("tables-no-source", "no page table is a source", z3.Not(self.is_table(source))),
        ]


@dataclass
class Linux6(Exchanges):
    """LINUX_6: one tree that maps all memory, and V, which is the kernel's text."""

    def machine(self, image: bytes) -> Machine:
        n = self.names
        return replace(
            super().machine(image),
            table_a=z3.BitVec("no page_table_a", self.bits),
            table_b=n["table_a"],
            one_tree=True,
            untracked=True,
            stack=self.registers["rsp"],
            arrays=(self.pages(n["mapped"]),),
            mapped=n["mapped"],
        )

    def arguments(self) -> dict[str, Word]:
        """preserve_context and host_mem_enc are 0: the way that does not come back."""
        n, none = self.names, z3.BitVecVal(0, self.bits)
        return {"rdi": n["head"], "rsi": n["array"], "rdx": n["start"], "rcx": none, "r8": none}

    def _hypotheses(self) -> Iterator[Hypothesis]:
        n = self.names
        yield from super()._hypotheses()
        yield one_root(n)
        yield Hypothesis(
            "no-lass",
            "CR4.LASS is 0, which these kernels do not know",
            z3.Extract(_LASS, _LASS, n["cr4"]) == 0,
            ("old-state",),
        )
        yield Hypothesis(
            "mapped-aligned",
            "the control page's place in the direct map is page aligned",
            z3.Extract(11, 0, n["mapped"]) == 0,
            ("deeds.old_kernel.OldKernel.host",),
        )


@dataclass
class LinuxI386(Exchanges):
    """LINUX_I386: arguments on the stack, a page_table_a, V the control page in the direct map."""

    def machine(self, image: bytes) -> Machine:
        n, stack = self.names, self.registers["rsp"]
        back, none = z3.BitVec("return address", 32), z3.BitVecVal(0, 32)
        given = (back, n["head"], n["array"], n["start"], z3.BitVecVal(1, 32), none)
        return replace(
            super().machine(image),
            stack=stack,
            arrays=((stack, given), self.pages(n["V"])),
            mapped=n["V"],
        )

    def arguments(self) -> dict[str, Word]:
        """None in registers.  has_pae is 1, preserve_context 0."""
        return {}

    def _hypotheses(self) -> Iterator[Hypothesis]:
        yield from super()._hypotheses()
        yield Hypothesis(
            "no-cet",
            "CR4.CET is 0, which a 32-bit Linux does not know",
            z3.Extract(_CET, _CET, self.names["cr4"]) == 0,
            ("old-state",),
        )


_CET = x86.CR4_CET.bit_length() - 1
_LASS = x86.CR4_LASS.bit_length() - 1


def linux_6(paging: Paging) -> Linux6:
    """The contract of LINUX_6."""
    return Linux6(64, paging, owed=Owed(cr0_kept=KEPT, gdt=False, cursor=False))


def linux_i386(paging: Paging) -> LinuxI386:
    """The contract of LINUX_I386."""
    owed = Owed(cr0_kept=KEPT, gdt=False, cursor=False, destination=False, selectors=(0x60, 0x68))
    return LinuxI386(32, paging, owed=owed)
