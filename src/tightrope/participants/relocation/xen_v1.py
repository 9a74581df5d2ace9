"""Interface v1: dom0's own code, called by the hypervisor with an array of pages.

The hypervisor takes the pages of page_table_a from page_list and fills them for its own V; it never
parses a table, and knows each page by its slot.  So only a design that fills an array of pages can
go.

Source: the thread, its second half; machine_kexec() of Xen 3.0.4 (xen/arch/x86/machine_kexec.c);
routines/relocate_x86_64_page_list.S and relocate_i386_page_list.S.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope import routines
from tightrope.model import Given, Paging, Participant, Trees

TAKES = (Trees.TWO, Trees.CHAINS)
WIDE = {"rdi": Given.LIST, "rsi": Given.PAGE_ARRAY, "rdx": Given.ENTRY}
NARROW = {
    "rsp+4": Given.LIST,
    "rsp+8": Given.PAGE_ARRAY,
    "rsp+12": Given.ENTRY,
    "rsp+16": Given.HAS_PAE,
}


def xen_v1(design: Participant, paging: Paging) -> Participant:
    """A design of dom0's, as the hypervisor calls it."""
    wide = paging.long_mode
    return replace(
        design,
        code=routines.read(
            routines.RELOCATE_X86_64_PAGE_LIST if wide else routines.RELOCATE_I386_PAGE_LIST
        ),
        contract=replace(design.contract, arguments=WIDE if wide else NARROW),
    )
