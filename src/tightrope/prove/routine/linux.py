"""Linux's own relocation code under theorem 5: what its C code has done, and what it owes.

    LINUX_7     V is the control page in the direct map; one tree maps V and all that is needed; the
                callee's registers go onto the old kernel's stack; variables, gdt and idt lie in the
                page

What it is granted beside our own hypotheses, each kept by its C code (machine_kexec in
arch/x86/kernel/ machine_kexec_64.c, hw_breakpoint_disable, cet_disable, load_segments):

    DR7 is 0, IA32_S_CET is 0; DS, ES, FS, GS and SS are __KERNEL_DS, CS is __KERNEL_CS, both flat
    the list begins with an indirection, or is empty: rbx, the cursor, is whatever the old kernel
    had flags are 0: the way that does not come back

What it owes is what ours does, but for CR0 (NE, ET, MP, CD and NW stay as they were) and the idt,
whose 16 gates lie in the page.

Rules: addresses in the page are the symbols of the very image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import z3

from tightrope.model import Paging, Participant
from tightrope.prove.isa.machine import Machine
from tightrope.prove.isa.memory import Memory
from tightrope.prove.isa.terms import Truth, Word
from tightrope.prove.routine.contract import Contract, Hypothesis, Owed, is_done, jumps
from tightrope.x86 import cpu as x86

CODE, DATA = 0x10, 0x18
"""__KERNEL_CS and __KERNEL_DS (Linux asm/segment.h)."""
KEPT = x86.CR0_NAMES["NE"] | x86.CR0_NAMES["ET"] | x86.CR0_NAMES["MP"] | x86.CR0_CD | x86.CR0_NW
SAVED, GDT = 0x20, 0x20
"""Bytes of what is saved before kexec_va_control_page, and of kexec_debug_gdt, whose descriptors
the CPU marks as accessed: all that is written in the page besides the stack
(.data..relocate_kernel)."""


@dataclass
class Linux7(Contract):
    """LINUX_7, with the places of one image."""

    root_at: int = 0
    variables: tuple[int, int] = (0, 0)

    def machine(self, image: bytes) -> Machine:
        n = self.names
        return replace(
            super().machine(image),
            table_a=z3.BitVec("no page_table_a", self.bits),
            table_b=n["table_a"],
            K=n["P"],
            one_tree=True,
            untracked=True,
            stack=self.registers["rsp"],
            variables=self.variables,
        )

    def at_call(self) -> dict[str, Word]:
        return {"dr7": z3.BitVecVal(0, self.bits)}

    def selectors(self) -> tuple[dict[str, Word], dict[str, int]]:
        known = {name: CODE if name == "cs" else DATA for name in x86.SEGMENTS}
        flat = {name: x86.flat_descriptor(code=name == "cs", bits=64) for name in known}
        return {name: z3.BitVecVal(each, 16) for name, each in known.items()}, flat

    def arguments(self) -> dict[str, Word]:
        n = self.names
        flags = z3.BitVecVal(0, self.bits)
        return {"rdi": n["head"], "rsi": n["P"], "rdx": n["start"], "rcx": flags}

    def memory(self, image: bytes) -> Memory:
        """The variable that CR3 is loaded from was filled in when the image was loaded."""
        at = z3.simplify(self.names["P"] + self.root_at)
        return super().memory(image).store(at, self.names["table_a"], 64)

    def _hypotheses(self) -> Iterator[Hypothesis]:
        n = self.names
        yield from super()._hypotheses()
        yield begins(n["head"])
        yield Hypothesis(
            "v-is-p",
            "behind V lies the control page itself",
            n["K"] == n["P"],
            ("deeds.old_kernel.OldKernel.host",),
        )
        yield one_root(n)


def one_root(names: Mapping[str, Word]) -> Hypothesis:
    """What Linux of 64 bits builds: the tables of the walk are those that the new kernel gets."""
    return Hypothesis(
        "one-root",
        "one tree serves before and after the jump",
        names["table_b"] == names["table_a"],
        ("handover.designs.whole_memory",),
    )


def begins(head: Word) -> Hypothesis:
    """What kimage_add_entry makes of every list: rbx, the cursor, is never cleared."""
    starts: Truth = z3.Or(jumps(head), is_done(head))
    return Hypothesis(
        "list-begins",
        "the list begins with an indirection, or is empty",
        starts,
        ("plan.page_list.chained",),
    )


def linux_7(participant: Participant, paging: Paging) -> Linux7:
    """The contract of LINUX_7 for the code of one image."""
    symbols, gates = participant.code.symbols, participant.contract.gates
    assert gates is not None, "LINUX_7 has an idt of its own"
    return Linux7(
        64,
        paging,
        owed=Owed(
            cr0_kept=KEPT,
            idt=(symbols[gates.idt], gates.count * 16 - 1),
            cursor=False,
        ),
        root_at=symbols["kexec_pa_table_page"],
        variables=(symbols["kexec_va_control_page"] - SAVED, symbols["kexec_debug_gdt"] + GDT),
    )
