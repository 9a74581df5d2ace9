"""Interface v2: the hypervisor's own code and its own single tree, in pages of 4 KiB.

    V -> the code page, in the hypervisor's text; the code page, the list, the sources and the segments,
    each to itself

Source: machine_kexec_add_page() of Xen 4.4 (xen/arch/x86/machine_kexec.c) and
xen/arch/x86/x86_64/kexec_reloc.S; routines/relocate_xen.S.
"""

from __future__ import annotations

from tightrope import routines
from tightrope.model import (
    EVERY_PROMISE,
    Contract,
    Given,
    Kind,
    Participant,
    Promise,
    Trees,
)
from tightrope.participants.relocation.two_tables import LANDMARKS


def xen_v2() -> Participant:
    """The code, which is 64-bit code."""
    return Participant(
        name="xen-v2",
        kind=Kind.RELOCATION,
        code=routines.read(routines.RELOCATE_XEN),
        contract=Contract(
            arguments={
                "rdi": Given.CONTROL_PAGE,
                "rsi": Given.TABLE_A,
                "rdx": Given.LIST_PAGE,
                "rcx": Given.ENTRY,
                "r8": Given.FLAGS,
            },
            trees=Trees.SMALL_PAGES,
            clears=True,
            promises=EVERY_PROMISE - {Promise.NOTHING_ELSE_MAPPED},
        ),
        landmarks=LANDMARKS,
    )
