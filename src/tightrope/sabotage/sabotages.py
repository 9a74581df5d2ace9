"""The sabotages: what each does, and the rule and step that have to find it.

Rules: a sabotage is data and a small function; what it changes is in `changes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tightrope.errors import BadInput
from tightrope.model import Code, Handover, Host, Paging, Plan, Protocol, Step
from tightrope.sabotage import xen
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
    wrong_magic,
)
from tightrope.sabotage.edits import control, edit_segment, entry_of, patch, virt
from tightrope.sabotage.pdptes import fill_late

EVERY_MODE = tuple(Paging)
LONG_MODES = tuple(each for each in Paging if each.long_mode)
XEN_MODES = (Paging.I386, Paging.PAE, Paging.X86_64)
WIDE_ENTRIES = (Paging.PAE, *LONG_MODES)


def _same_host(host: Host, _plan: Plan) -> Host:
    return host


def _same_plan(plan: Plan) -> Plan:
    return plan


def _same_code(code: Code) -> Code:
    return code


def _same_handover(handover: Handover) -> Handover:
    return handover


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """One way to fall: `rule` and `step` are those of the first finding that has to come of it."""

    name: str
    says: str
    rule: str
    step: Step
    plan: Callable[[Plan], Plan] = _same_plan
    host: Callable[[Host, Plan], Host] = _same_host
    code: Callable[[Code], Code] = _same_code
    handover: Callable[[Handover], Handover] = _same_handover
    crash: bool = False
    """It breaks a crash kexec and no other."""
    backup: bool = False
    """It breaks a crash kexec that saves low memory and no other."""
    modes: tuple[Paging, ...] = EVERY_MODE
    """The old kernels that have what it breaks."""
    entry: Protocol | None = None
    """The entry that it breaks; through another it raises BadInput.  None: any."""

    def refuse(self, host: Host) -> None:
        """Raises BadInput for an old kernel that does not have what this breaks."""
        if host.paging not in self.modes:
            has = ", ".join(each.value for each in self.modes)
            raise BadInput(
                f"{self.name} does not exist with {host.paging.value} paging, only with {has}",
                source="--sabotage",
            )


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
        handover=entry_of(control, lambda _entry: 0),
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
        handover=lambda handover: edit_segment(handover, "entry stub", interrupts_on, planned=True),
    ),
    Sabotage(
        name="wrong-boot-params",
        says="give the new kernel a boot_params pointer one page too high",
        rule="entry-boot-params",
        step=Step.COPY,
        handover=lambda handover: edit_segment(
            handover, "entry stub", point_elsewhere, planned=True
        ),
    ),
    Sabotage(
        name="initrd-byte",
        says="flip one bit in the middle of the initrd after it was loaded",
        rule="destinations-complete",
        step=Step.COPY,
        handover=lambda handover: edit_segment(handover, "initrd", flip, planned=False),
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
_XEN = (
    Sabotage(
        name="xen-pseudo-list",
        says="under Xen, leave a pseudo-physical address in the page list",
        rule="xen-list-machine",
        step=Step.PREPARE,
        handover=xen.pseudo_in_list,
        modes=XEN_MODES,
    ),
    Sabotage(
        name="xen-pseudo-cr3",
        says="under Xen, load CR3 with page_table_a's pseudo-physical address",
        rule="xen-root-machine",
        step=Step.TABLE_A,
        handover=xen.pseudo_in_cr3,
        modes=XEN_MODES,
    ),
    Sabotage(
        name="xen-pseudo-entry",
        says="under Xen, leave the control page's pseudo-physical address in the entry for V",
        rule="xen-entries-machine",
        step=Step.PREPARE,
        handover=xen.pseudo_in_entry,
        modes=XEN_MODES,
    ),
    Sabotage(
        name="xen-fixmap-nx",
        says="set NX on the hypervisor's fixmap of the control page",
        rule="xen-fixmap-maps",
        step=Step.CALL,
        handover=xen.fixmap_nx,
        modes=(Paging.PAE, Paging.X86_64),
    ),
    Sabotage(
        name="xen-no-overwrite",
        says="let the hypervisor leave page_table_a as dom0 filled it in",
        rule="xen-overwritten",
        step=Step.PREPARE,
        handover=xen.no_overwrite,
        modes=XEN_MODES,
    ),
    Sabotage(
        name="xen-bare-v",
        says="let the hypervisor call V of bare Linux instead of its fixmap",
        rule="xen-calls-fixmap",
        step=Step.CALL,
        handover=xen.bare_v,
        modes=XEN_MODES,
    ),
    Sabotage(
        name="xen-shared-slot",
        says="with damm-v4, put the fixmaps into the top-level slot of P",
        rule="table-a-maps-v",
        step=Step.TABLE_A,
        plan=xen.shared_slot,
        handover=xen.damm_v4_alone,
        modes=XEN_MODES,
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
XEN_SABOTAGES: Mapping[str, Sabotage] = {each.name: each for each in _XEN}
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
