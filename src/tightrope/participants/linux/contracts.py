"""Linux's relocation code as a participant: what each convention is handed, touches and promises.

    LINUX_6      V is a page of the kernel's text; C has dropped idt and gdt before the call. The callee's
                 registers go onto the old kernel's stack, RSP and CRs into the control page's
                 upper half by its direct-map address, and each page goes through the swap page,
                 three copies.
    LINUX_7      V is the control page itself, in the direct map. idt and gdt are dropped at V, then those
                 in the control page are loaded at P; one copy a page, onto itself where it is in
                 place.
    LINUX_I386   V is the control page in the direct map; the rest as LINUX_6, paging off instead of a
                 table.

What is weaker than this project's own code, and seldom matters: CR4.PGE is on while LINUX_6 trusts
identity addresses, and the tables map whatever shares 2 MiB with memory.

Sources: machine_kexec_64.c, machine_kexec_32.c, relocate_kernel_64.S, relocate_kernel_32.S of
Linux 6.1, 6.12 and 7.3; mm/ident_map.c for the tables.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.model import (
    EVERY_PROMISE,
    Code,
    Contract,
    Done,
    Gates,
    Given,
    Kind,
    Old,
    Participant,
    Place,
    Promise,
    Step,
    Trees,
)
from tightrope.participants.linux.convention import Convention
from tightrope.participants.linux.found import CONTROL_CODE, Found

ARRAY = (
    Given.CONTROL_PAGE,
    Given.CONTROL_PAGE_MAPPED,
    Given.TABLE_A,
    Given.SWAP_PAGE,
)
"""page_list of 6.x: PA_CONTROL_PAGE, VA_CONTROL_PAGE, PA_TABLE_PAGE (PA_PGD), PA_SWAP_PAGE
(asm/kexec.h)."""
COPIES_THROUGH_SWAP = EVERY_PROMISE - {
    Promise.GLOBALS_DROPPED,
    Promise.COPIES_ONCE,
    Promise.NOTHING_ELSE_MAPPED,
    Promise.EXACT_TABLES,
}

LINUX_6 = Contract(
    arguments={
        "rdi": Given.LIST,
        "rsi": Given.PAGE_ARRAY,
        "rdx": Given.ENTRY,
        "rcx": Given.NOTHING,
        "r8": Given.NOTHING,
    },
    array=ARRAY,
    trees=Trees.WHOLE_MEMORY,
    reads=Contract().reads | {Place.SWAP_PAGE},
    writes=frozenset({Place.CONTROL_PAGE, Place.SWAP_PAGE}),
    old={Old.STACK: Step.STATE},
    promises=COPIES_THROUGH_SWAP,
    same=CONTROL_CODE,
    done=frozenset(Done) - {Done.CET_OFF},
)
LINUX_I386 = replace(
    LINUX_6,
    arguments={
        "rsp+4": Given.LIST,
        "rsp+8": Given.PAGE_ARRAY,
        "rsp+12": Given.ENTRY,
        "rsp+16": Given.HAS_PAE,
        "rsp+20": Given.NOTHING,
    },
    trees=Trees.TWO,
    promises=EVERY_PROMISE - {Promise.GLOBALS_DROPPED, Promise.COPIES_ONCE},
)
LINUX_7 = Contract(
    arguments={
        "rdi": Given.LIST,
        "rsi": Given.CONTROL_PAGE,
        "rdx": Given.ENTRY,
        "rcx": Given.NOTHING,
    },
    words={
        "kexec_va_control_page": Given.V,
        "kexec_pa_table_page": Given.TABLE_A,
    },
    gates=Gates(
        idt="kexec_debug_idt",
        handlers="kexec_debug_exc_vectors",
        stride=6,
        count=16,
        selector=0x10,
    ),
    trees=Trees.WHOLE_MEMORY,
    old={Old.STACK: Step.STATE, Old.IDT: Step.CALL},
    promises=EVERY_PROMISE - {Promise.NOTHING_ELSE_MAPPED, Promise.EXACT_TABLES},
    done=frozenset({Done.INTERRUPTS_OFF, Done.SEGMENTS_LOADED, Done.BRANCHES_UNTRACKED}),
)
CONTRACTS = {
    Convention.LINUX_6: LINUX_6,
    Convention.LINUX_7: LINUX_7,
    Convention.LINUX_I386: LINUX_I386,
}
LANDMARKS = {
    "after_table_a": Step.TABLE_A,
    "set_stack": Step.STATE,
    "identity_mapped": Step.IDENTITY,
}


def participant(found: Found) -> Participant:
    """The relocation code of an old kernel."""
    version = (found.version or "of an unknown version").split(" ", 1)[0]
    return Participant(
        name=f"Linux {version}'s own relocate_kernel",
        kind=Kind.RELOCATION,
        code=Code(name="relocate_kernel", data=found.page, symbols=found.symbols),
        contract=CONTRACTS[found.convention],
        landmarks=LANDMARKS,
        image=found.source,
    )
