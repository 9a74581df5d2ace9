"""The sabotages: what each does, and the rule and step that have to find it.

Rules: a sabotage is data and a small function; what it changes is in `changes`.
"""

from __future__ import annotations

from collections.abc import Mapping

from tightrope.errors import BadInput
from tightrope.model import Paging, Protocol, SegmentRole, Step
from tightrope.sabotage.changes import (
    CLEAR_PAE_FIRST,
    KEEP_PGE,
    TOGGLE_LA57,
    control_page_destination,
    copy_outside,
    flip,
    global_at_p,
    interrupts_on,
    leave_paging_on,
    list_destination,
    mark_top,
    no_backup,
    no_memory_map,
    overwrite_pgd,
    past_the_backup,
    point_elsewhere,
    set_in_pdpte,
    set_nx,
    set_reserved,
    shrink_table_b,
    source_order,
    unmap_top,
    with_pge,
    without_p,
    wrong_magic,
)
from tightrope.sabotage.edits import edit_segment, entry_of, patch, virt
from tightrope.sabotage.pdptes import fill_late
from tightrope.sabotage.sabotage import LONG_MODES, WIDE_ENTRIES, Sabotage
from tightrope.sabotage.through_xen import THROUGH_XEN, WAY_OUT

_ALL = (
    Sabotage(
        name="no-v",
        says="leave the mapping of V out of page_table_a",
        rule="table-a-maps-v",
        step=Step.TABLE_A,
        handover=entry_of(virt, lambda _entry: 0),
    ),
    Sabotage(
        name="no-p",
        says="leave the mapping of P out of page_table_a",
        rule="table-a-maps-p",
        step=Step.STATE,
        handover=without_p,
    ),
    Sabotage(
        name="nx",
        says="set NX on the control page at V",
        rule="table-a-rights",
        step=Step.TABLE_A,
        handover=set_nx,
        modes=WIDE_ENTRIES,
    ),
    Sabotage(
        name="overwrite-pgd",
        says="overwrite the low half of the current pgd, as Linux did before the thread",
        rule="current-pgd-kept",
        step=Step.PREPARE,
        handover=overwrite_pgd,
    ),
    Sabotage(
        name="control-page-destination",
        says="copy the command line's page onto the control page",
        rule="control-page-kept",
        step=Step.COPY,
        handover=control_page_destination,
    ),
    Sabotage(
        name="list-page-destination",
        says="copy the command line's page onto a page of the list",
        rule="list-kept",
        step=Step.COPY,
        handover=list_destination,
    ),
    Sabotage(
        name="source-order",
        says="read a source after it was overwritten",
        rule="source-intact",
        step=Step.COPY,
        handover=source_order,
    ),
    Sabotage(
        name="stack-outside",
        says="put the stack one page too high",
        rule="stack-inside",
        step=Step.STATE,
        code=patch(
            relocate_x86_64=("set_stack", 3, b"\x00\x10\x00\x00", b"\x00\x20\x00\x00"),
            relocate_xen=("set_stack", 3, b"\x00\x10\x00\x00", b"\x00\x20\x00\x00"),
            relocate_i386=("set_stack", 2, b"\x00\x10\x00\x00", b"\x00\x20\x00\x00"),
        ),
    ),
    Sabotage(
        name="stale-global",
        says="a global entry of the old kernel at the linear address P, and CR4 never written",
        rule="tlb-agreement",
        step=Step.STATE,
        host=global_at_p,
        code=patch(
            relocate_x86_64=("clear_pge", 0, b"\x0f\x22\xe0", b"\x90\x90\x90"),
            relocate_xen=("clear_pge", 0, b"\x0f\x22\xe0", b"\x90\x90\x90"),
            relocate_i386=("clear_pge", 0, b"\x0f\x22\xe0", b"\x90\x90\x90"),
        ),
    ),
    Sabotage(
        name="pge-on",
        says="leave CR4.PGE on",
        rule="pge-before-identity",
        step=Step.STATE,
        host=with_pge,
        code=KEEP_PGE,
    ),
    Sabotage(
        name="table-b-small",
        says="leave the kernel's destination out of page_table_b",
        rule="table-b-covers",
        step=Step.TABLE_B,
        handover=shrink_table_b,
        modes=LONG_MODES,
    ),
    Sabotage(
        name="table-b-top",
        says="leave page_table_b's own root out of it, which a 5-level kernel reads",
        rule="table-b-covers",
        step=Step.TABLE_B,
        handover=unmap_top,
        modes=(Paging.LA57,),
    ),
    Sabotage(
        name="table-b-marked",
        says="mark the first entry of page_table_b's top in bit 58, as Linux does since 2024",
        rule="table-b-top",
        step=Step.TABLE_B,
        handover=mark_top,
        modes=(Paging.LA57,),
    ),
    Sabotage(
        name="reserved-bit",
        says="set a physical address bit that the CPU does not have, in the entry for V",
        rule="reserved-bits",
        step=Step.TABLE_A,
        handover=set_reserved,
        modes=WIDE_ENTRIES,
    ),
    Sabotage(
        name="accessed-clear",
        says="clear accessed and dirty in the entry for V",
        rule="accessed-dirty-preset",
        step=Step.TABLE_A,
        handover=entry_of(virt, lambda entry: entry & ~0x60),
    ),
    Sabotage(
        name="interrupts-on",
        says="enter the new kernel with interrupts on",
        rule="interrupts-off",
        step=Step.COPY,
        handover=lambda handover: edit_segment(
            handover, SegmentRole.ENTRY_STUB, interrupts_on, planned=True
        ),
    ),
    Sabotage(
        name="wrong-boot-params",
        says="give the new kernel a boot_params pointer one page too high",
        rule="entry-boot-params",
        step=Step.COPY,
        handover=lambda handover: edit_segment(
            handover, SegmentRole.ENTRY_STUB, point_elsewhere, planned=True
        ),
    ),
    Sabotage(
        name="initrd-byte",
        says="flip one bit in the middle of the initrd after it was loaded",
        rule="destinations-complete",
        step=Step.COPY,
        handover=lambda handover: edit_segment(handover, SegmentRole.INITRD, flip, planned=False),
    ),
    Sabotage(
        name="crash-outside",
        says="in a crash kexec, copy one page out of the crash region",
        rule="crash-region-only",
        step=Step.COPY,
        handover=copy_outside,
        crash=True,
    ),
    Sabotage(
        name="no-backup",
        says="in a crash kexec, leave the backup of low memory out",
        rule="backup-complete",
        step=Step.COPY,
        handover=no_backup,
        crash=True,
        backup=True,
    ),
    Sabotage(
        name="dump-overwritten",
        says="in a crash kexec, let the core header lead to low memory itself and not to its backup",
        rule="dump-survives",
        step=Step.PREPARE,
        handover=past_the_backup,
        crash=True,
        backup=True,
    ),
    Sabotage(
        name="pae-before-pg",
        says="on PAE, clear CR4.PAE before CR0.PG",
        rule="fetch-mapped",
        step=Step.TABLE_B,
        code=CLEAR_PAE_FIRST,
        modes=(Paging.PAE,),
    ),
    Sabotage(
        name="nx-in-pdpte",
        says="on PAE, set NX in the PDPTE for V, where that bit is reserved",
        rule="reserved-bits",
        step=Step.TABLE_A,
        handover=set_in_pdpte,
        modes=(Paging.PAE,),
    ),
    Sabotage(
        name="stale-pdpte",
        says="on PAE, fill in the PDPTE for P after CR3 was loaded",
        rule="pdptes-current",
        step=Step.TABLE_A,
        handover=fill_late,
        modes=(Paging.PAE,),
    ),
    Sabotage(
        name="la57-toggled",
        says="with 5 levels, clear CR4.LA57 at V",
        rule="legal-writes",
        step=Step.TABLE_A,
        code=TOGGLE_LA57,
        modes=(Paging.LA57,),
    ),
)
_ENTRIES = (
    Sabotage(
        name="paging-left-on",
        says="from long mode, enter a 32-bit entry without turning paging off",
        rule="known-state",
        step=Step.COPY,
        handover=leave_paging_on,
        modes=LONG_MODES,
        entry=Protocol.LINUX_32,
    ),
    Sabotage(
        name="wrong-magic",
        says="enter a Multiboot kernel with Multiboot2's word in eax",
        rule="entry-arguments",
        step=Step.COPY,
        handover=wrong_magic,
        entry=Protocol.MULTIBOOT,
    ),
    Sabotage(
        name="no-memory-map",
        says="tell a Multiboot kernel nothing of its memory",
        rule="entry-information",
        step=Step.COPY,
        handover=no_memory_map,
        entry=Protocol.MULTIBOOT,
    ),
)
SABOTAGES: Mapping[str, Sabotage] = {each.name: each for each in _ALL}
XEN_SABOTAGES: Mapping[str, Sabotage] = {each.name: each for each in (*THROUGH_XEN, *WAY_OUT)}
"""Those that break a handover through Xen and no other."""
ENTRY_SABOTAGES: Mapping[str, Sabotage] = {each.name: each for each in _ENTRIES}
"""Those that break one entry and no other."""


def named(name: str) -> Sabotage:
    """The sabotage of that name.  Raises BadInput."""
    try:
        return {**SABOTAGES, **XEN_SABOTAGES, **ENTRY_SABOTAGES}[name]
    except KeyError:
        raise BadInput(
            f"no sabotage {name!r}; `--sabotage list` names them", source="--sabotage"
        ) from None
