"""The sabotages of a handover through Xen, each with the finding that has to come of it.

Rules: as `sabotages`.
"""

from __future__ import annotations

from tightrope.model import Paging, Step
from tightrope.sabotage import leaving, xen
from tightrope.sabotage.sabotage import XEN_MODES, Sabotage

THROUGH_XEN = (
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
WAY_OUT = (
    Sabotage(
        name="xen-lme-stays",
        says="let a 64-bit hypervisor leave EFER.LME on before a 32-bit dom0's code",
        rule="xen-long-mode-left",
        step=Step.CALL,
        handover=leaving.lme_stays,
        modes=(Paging.PAE,),
    ),
    Sabotage(
        name="xen-way-out-unmapped",
        says="leave a 64-bit hypervisor's own code out of the tables for a 32-bit dom0's",
        rule="xen-way-out-maps",
        step=Step.CALL,
        handover=leaving.way_out_unmapped,
        modes=(Paging.PAE,),
    ),
    Sabotage(
        name="xen-way-out-pge",
        says="let a 64-bit hypervisor leave CR4.PGE on until a 32-bit dom0's code is called",
        rule="pge-before-identity",
        step=Step.CALL,
        handover=leaving.pge_stays,
        modes=(Paging.PAE,),
    ),
    Sabotage(
        name="xen-way-out-global",
        says="do not write CR4 there, and give the hypervisor a global mapping where that code lies",
        rule="tlb-agreement",
        step=Step.CALL,
        host=leaving.global_at_way_out,
        handover=leaving.cr4_stays,
        modes=(Paging.PAE,),
    ),
)
"""Those of Xen's that need a 64-bit hypervisor under a 32-bit dom0; the walk's tables are PAE's."""
