"""Linux 2.6.16, before the thread: the current pgd itself is overwritten, by the code at V.

    current pgd                 after the routine's stores
    V -> machine_kexec          V -> the same
    P -> whatever               P -> P

On x86_64 the low half of the current pgd is overwritten with that of page_table_b, an identity
map; on i386 and PAE one entry for the control page is planted in it.  Then the control page is
called at its physical address.

Source: Linux 2.6.16 arch/i386/kernel/machine_kexec.c and arch/x86_64/kernel/machine_kexec.c.
"""

from __future__ import annotations

from tightrope import routines
from tightrope.model import (
    EVERY_PROMISE,
    Contract,
    Given,
    Kind,
    Old,
    Paging,
    Participant,
    Place,
    Promise,
    Step,
    Trees,
)

ROUTINES = {Paging.I386: routines.IN_PLACE_I386, Paging.PAE: routines.IN_PLACE_PAE}
"""Of the modes without long mode, which has one for all."""
LANDMARKS = {
    "flushed": Step.TABLE_A,
    "control": Step.IDENTITY,
    "after_table_b": Step.TABLE_B,
    "paging_off": Step.TABLE_B,
}


def in_place(paging: Paging) -> Participant:
    """The design for a mode."""
    wide = paging.long_mode
    common = {"rdi": Given.LIST, "rsi": Given.CONTROL_PAGE, "rdx": Given.ENTRY}
    narrow = {"rcx": Given.DIRECT_MAP, "rbx": Given.LEVELS, "rax": Given.V}
    return Participant(
        name="in-place",
        kind=Kind.RELOCATION,
        code=routines.read(routines.CONTROL_X86_64 if wide else routines.CONTROL_I386),
        at_v=routines.read(ROUTINES.get(paging, routines.IN_PLACE_X86_64)),
        contract=Contract(
            arguments=common | ({"rcx": Given.DIRECT_MAP, "r8": Given.TABLE_B} if wide else narrow),
            trees=Trees.CURRENT,
            stays_at_v=True,
            writes=frozenset({Place.CONTROL_PAGE, Place.IN_IMAGE}),
            old={Old.IDT: Step.STATE, Old.MEMORY: Step.STATE},
            promises=EVERY_PROMISE - {Promise.NOTHING_ELSE_MAPPED},
        ),
        landmarks=LANDMARKS,
    )
