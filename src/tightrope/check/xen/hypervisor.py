"""Rules about the hypervisor's own V and tables: mapped, executable, in page_table_a, called.

Rules: silent where there is no Xen.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.abi import xen as abi
from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.check.xen.page_list import slots
from tightrope.memory import PAGE_SIZE
from tightrope.model import Bare, PageList, Step, Trees, XenCompat, XenV1
from tightrope.x86.walk import Access, Refused, entries_in, walk

OVERWRITES = "the thread: 'passed to the hypervisor that overwrites the contents filled in'"


@rule(
    "xen-overwritten",
    Step.PREPARE,
    says="With Xen's v1 the hypervisor has overwritten page_table_a with its own V.",
    source=OVERWRITES,
    mend="let the hypervisor fill the pages of page_table_a again, for the fixmap's V",
)
def overwritten(case: Case) -> Iterator[Found]:
    """With v1 the hypervisor overwrites page_table_a: its own V, and not the V of bare Linux."""
    load = case.intent.through
    if not isinstance(load, PageList):
        return
    tables, dom0 = case.handover.page_table_a, load.xen.dom0
    bare = case.walk(tables, dom0.relocation, Access.READ)
    if isinstance(bare, Refused) or bare.phys != case.control_page.start:
        return
    yield finding(
        f"page_table_a still has what dom0 filled in: V of bare Linux = {dom0.relocation:#x}"
        f" leads to the control page, and the hypervisor calls {case.intent.relocation:#x}",
        evidence={visit.level: f"{visit.entry:#x} at {visit.at:#x}" for visit in bare.visits},
    )


@rule(
    "xen-calls-fixmap",
    Step.CALL,
    says="With Xen's v1 the hypervisor calls the fixmap that it gave to the control page.",
    source="the thread, step 1b: 'We simply jump to a NX-safe mapped location (fixmap)'",
    mend="overwrite the odd slots with fix_to_virt() when the image is loaded, and call slot 1",
)
def calls_fixmap(case: Case) -> Iterator[Found]:
    """With v1 the hypervisor calls the address that it put into VA_CONTROL_PAGE itself."""
    load = case.intent.through
    if not isinstance(load, PageList):
        return
    rip, fixmap = int(case.handover.registers.rip), "the control page's fixmap is"
    if isinstance(load, XenCompat):
        rip = case.handover.registers.general["rdi"]  # what its own code calls in the end
        fixmap = "without fixmaps the control page is mapped at its machine address,"
    kept = slots(case)[abi.VA_CONTROL_PAGE]
    if rip == kept == case.intent.relocation:
        return
    bare = load.xen.dom0.relocation
    what = "V of bare Linux, in dom0's own text" if bare in (rip, kept) else "no fixmap of its own"
    yield finding(
        f"the hypervisor calls {rip:#x}: {what}; {fixmap} {case.intent.relocation:#x}",
        evidence={"VA_CONTROL_PAGE": f"{kept:#x}", "fixmap": f"{case.intent.relocation:#x}"},
    )


@rule(
    "xen-fixmap-maps",
    Step.CALL,
    says="The hypervisor maps V executable, and every page of v1's list at its fixmap.",
    source="the thread, step 1b; machine_kexec_load of Xen 3.0.4",
    mend="set_fixmap() of the page, present, writable and without NX",
)
def fixmap_maps(case: Case) -> Iterator[Found]:
    """The hypervisor maps V, and with v1 every page of the list, in the tables in use at the
    call."""
    load = case.intent.through
    if isinstance(load, Bare | XenCompat):
        return  # XenCompat has no fixmaps: see `way_out`
    world = case.handover.world
    mmu = case.handover.registers.mmu(case.host.cpu, root=world.pgd)
    read = entries_in(world.tables)
    wanted = [("V", int(case.intent.relocation), int(world.code_phys), Access.FETCH)]
    wanted += [
        (f"the fixmap of {each.name}", int(each.fixmap), int(each.machine), Access.WRITE)
        for each in (load.pages if isinstance(load, XenV1) else ())
        if each.fixmap is not None
    ]
    for name, virt, machine, access in wanted:
        got = walk(read, mmu, virt, access)
        if not isinstance(got, Refused) and got.phys == machine:
            continue
        problem = got.reason if isinstance(got, Refused) else f"it leads to {got.phys:#x}"
        yield finding(
            f"the hypervisor cannot use {name} = {virt:#x} for a {access.value}: {problem}",
            evidence={visit.level: f"{visit.entry:#x} at {visit.at:#x}" for visit in got.visits},
        )
        return


@rule(
    "xen-small-pages",
    Step.TABLE_A,
    says="With Xen's v2 everything is mapped in pages of 4 KiB.",
    source="machine_kexec_add_page in xen/arch/x86/machine_kexec.c",
    mend="map what was asked for page by page: nothing else may be reached",
)
def small_pages(case: Case) -> Iterator[Found]:
    """v2's tables have pages of 4 KiB alone."""
    if case.contract.trees is not Trees.SMALL_PAGES:
        return
    mapped = case.mapped_a
    large = (mapped.size != PAGE_SIZE).nonzero()[0]
    if len(large):
        at = int(large[0])
        yield finding(
            f"{int(mapped.virt[at]):#x} is mapped in a page of {int(mapped.size[at]):#x} bytes"
        )
