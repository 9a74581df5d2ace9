"""Rules about the jump through a hypervisor: the right kind of address, the right V, the right tables.

    a pseudo-physical number is wrong wherever a CPU looks:   the page list, page_list, an entry, CR3
    V is the hypervisor's:                                    mapped, executable, in page_table_a, called

Rules: asked of every handover, and silent where there is no Xen.  What a number should have been is
known from the plan and from dom0's p2m; a finding names both values.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tightrope.abi import xen as abi
from tightrope.check.rule import Case, Rule, found, owner
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Machine
from tightrope.model import Finding, Paging, Sight, Step, Tables, XenInterface
from tightrope.model.p2m import HOLE, P2m
from tightrope.x86.walk import Access, Mmu, Refused, walk

MEND = "put the machine address there: pfn_to_mfn() of what Linux calls physical"


def _p2m(case: Case) -> P2m | None:
    """dom0's table; None where the jump is not asked of a hypervisor."""
    return case.host.xen.dom0.p2m if case.host.xen and case.plan.xen else None


def _raw(
    p2m: P2m, got: NDArray[np.int64], wanted: NDArray[np.int64]
) -> tuple[int, int, int] | None:
    """The first place where dom0's own number stands instead of the machine frame: (n, it, wanted)."""
    length = min(len(got), len(wanted))
    differ = np.nonzero(got[:length] != wanted[:length])[0]
    mixed = differ[(p2m.to_pseudo(wanted[differ]) == got[differ]) & (got[differ] != HOLE)]
    if not len(mixed):
        return None
    at = int(mixed[0])
    return at, int(got[at]) << PAGE_SHIFT, int(wanted[at]) << PAGE_SHIFT


def _named(rule: str, step: Step, where: str, pseudo: int, machine: int, case: Case) -> Finding:
    return found(
        rule,
        step,
        f"{where} holds {pseudo:#x}, which is pseudo-physical: the machine address is {machine:#x}",
        evidence={
            "pseudo-physical": f"{pseudo:#x}",
            "machine": f"{machine:#x} ({owner(case, machine)})",
            "at machine": f"{pseudo:#x}: {owner(case, pseudo)}",
        },
        mend=MEND,
    )


def list_machine(case: Case) -> Iterator[Finding]:
    """Words of the page list and slots of page_list are machine addresses."""
    p2m = _p2m(case)
    if p2m is None:
        return
    rule, step = "xen-list-machine", Step.PREPARE
    pages = [p for p in case.handover.pieces if p.what == "the page list"]
    last = [int.from_bytes(p.data[PAGE_SIZE - case.word :], "little") for p in pages[:-1]]
    links = np.array([case.head, *last][: len(pages)], np.int64) >> PAGE_SHIFT
    copies = case.copies
    count = 0 if case.plan.crash else len(case.plan.sources)
    for what, got, wanted in (
        ("a link of the page list", links, np.array(case.list_frames, np.int64)),
        ("a source of the page list", copies.sources, case.plan.sources[:count]),
        ("a destination of the page list", copies.destinations, case.plan.destinations[:count]),
    ):
        bad = _raw(p2m, got, wanted)
        if bad:
            yield _named(rule, step, what, bad[1], bad[2], case)
            return
    slots = _slots(case)
    for each in case.plan.xen.pages if case.plan.xen and slots else ():
        if each.name in ROOTS:
            continue  # those reach CR3, and xen-root-machine tells it
        if slots[each.slot] != each.machine and slots[each.slot] == each.pseudo:
            where = f"slot {each.slot} of page_list (PA_{each.name})"
            yield _named(rule, step, where, slots[each.slot], each.machine, case)
            return


ROOTS = ("PGD", "TABLE_PAGE")


def _slots(case: Case) -> tuple[int, ...]:
    """v1's page_list as the hypervisor keeps it; nothing under v2."""
    load = case.plan.xen
    if load is None or load.interface is not XenInterface.V1:
        return ()
    at = case.handover.world.arguments[0]
    piece = next(p for p in case.handover.world.pieces if p.phys == at.start)
    data = bytes(piece.data)[: abi.NO_PAGES * case.word]
    return tuple(memoryview(data).cast("Q" if case.word == 8 else "I"))


def cr3_machine(case: Case) -> Iterator[Finding]:
    """What is loaded into CR3 is the machine address of a root."""
    p2m = _p2m(case)
    if p2m is None:
        return
    tables = (case.handover.page_table_a, case.handover.page_table_b)
    roots = {p2m.pseudo(Machine(each.root)): each.root for each in tables if each}
    real = {each.root for each in tables if each}
    for write in case.run.register_writes:
        value = write.after & ~0xFFF
        if write.register == "cr3" and value not in real and value in roots:
            where = f"CR3, loaded by `{case.run.texts.get(write.rip, '?')}` at {write.rip:#x},"
            machine = int(next(root for pseudo, root in roots.items() if pseudo == value))
            yield _named("xen-root-machine", write.step, where, value, machine, case)
            return


def entries_machine(case: Case) -> Iterator[Finding]:
    """Every entry of the tables holds a machine address."""
    p2m = _p2m(case)
    if p2m is None:
        return
    rule, step = "xen-entries-machine", Step.PREPARE
    table_a, table_b = case.handover.page_table_a, case.handover.page_table_b
    trees = [("page_table_a", table_a)]
    trees += [("page_table_b", table_b)] if table_b and table_b is not table_a else []
    for name, tables in trees:
        known = np.array(sorted(tables.pages), np.int64) >> PAGE_SHIFT
        for at, frame in _children(case, tables):
            real = p2m.to_machine(np.array([frame], np.int64))
            if frame not in known and real[0] in known:
                where = f"the entry at {at:#x} of {name}"
                yield _named(
                    rule, step, where, frame << PAGE_SHIFT, int(real[0]) << PAGE_SHIFT, case
                )
                return
    control = case.plan.control_page >> PAGE_SHIFT
    for virt in (case.plan.relocation, case.control_page.start):
        got = case.walk(table_a, virt, Access.READ)
        if not isinstance(got, Refused):
            frame = got.phys >> PAGE_SHIFT
            if _raw(p2m, np.array([frame], np.int64), np.array([control], np.int64)):
                where = f"the entry of page_table_a for {virt:#x}"
                yield _named(rule, step, where, frame << PAGE_SHIFT, control << PAGE_SHIFT, case)
                return
    if table_b:
        mapped = case.mapped_b
        own = mapped.virt != np.uint64(case.plan.relocation)
        virt_frames = (mapped.virt[own] >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        frames = (mapped.phys[own] >> np.uint64(PAGE_SHIFT)).astype(np.int64)
        bad = _raw(p2m, frames, virt_frames)
        if bad:
            where = f"the entry of page_table_b for {bad[2]:#x}"
            yield _named(rule, step, where, bad[1], bad[2], case)


ENTRY_SIZE = {Paging.I386: 4, Paging.PAE: 8, Paging.X86_64: 8}
LARGE = {
    Paging.I386: (True,),
    Paging.PAE: (False, True),
    Paging.X86_64: (False, True, True),
}
"""Per level above the last: whether bit 7 means a large page (SDM tables 4-5, 4-9, 4-16, 4-18)."""
PRESENT, PAGE_SIZE_FLAG = 1, 1 << 7
ADDRESS_BITS = 0x000F_FFFF_FFFF_F000


def _children(case: Case, tables: Tables) -> Iterator[tuple[int, int]]:
    """(where, frame) of each entry that leads to a table, level by level from the root."""
    paging = case.plan.paging
    size = ENTRY_SIZE[paging]
    level = [int(tables.root)]
    for depth, large in enumerate(LARGE[paging]):
        below = []
        for table in level:
            page = tables.pages.get(table)
            if page is None:
                continue
            rows = np.frombuffer(page, f"<u{size}").astype(np.uint64)
            if paging is Paging.PAE and depth == 0:
                rows = rows[:4]
            leads = rows & np.uint64(PRESENT) != 0
            if large:
                leads &= rows & np.uint64(PAGE_SIZE_FLAG) == 0
            for slot in np.nonzero(leads)[0].tolist():
                address = int(rows[slot]) & ADDRESS_BITS
                yield table + slot * size, address >> PAGE_SHIFT
                below.append(address)
        level = below


def fixmap_maps(case: Case) -> Iterator[Finding]:
    """The hypervisor maps V, and with v1 every page of the list, in the tables in use at the call."""
    load = case.plan.xen
    if load is None or load.leaves is not None:
        return  # without fixmaps: see `leaving`
    world = case.handover.world
    registers = case.handover.registers
    mmu = Mmu(
        cr0=registers.cr0,
        cr3=world.pgd,
        cr4=registers.cr4,
        efer=registers.efer,
        physical_bits=case.host.cpu.physical_bits,
        gbpages=case.host.cpu.gbpages,
    )

    def read(phys: int, size: int) -> int | None:
        page = world.tables.get(phys & -PAGE_SIZE)
        at = phys % PAGE_SIZE
        return None if page is None else int.from_bytes(page[at : at + size], "little")

    wanted = [("V", int(case.plan.relocation), int(world.code_phys), Access.FETCH)]
    wanted += [
        (f"the fixmap of {each.name}", int(each.fixmap), int(each.machine), Access.WRITE)
        for each in load.pages
        if each.fixmap is not None
    ]
    for name, virt, machine, access in wanted:
        got = walk(read, mmu, virt, access)
        if not isinstance(got, Refused) and got.phys == machine:
            continue
        problem = got.reason if isinstance(got, Refused) else f"it leads to {got.phys:#x}"
        yield found(
            "xen-fixmap-maps",
            Step.CALL,
            f"the hypervisor cannot use {name} = {virt:#x} for a {access.value}: {problem}",
            evidence={visit.level: f"{visit.entry:#x} at {visit.at:#x}" for visit in got.visits},
            mend="set_fixmap() of the page, present, writable and without NX",
        )
        return


def calls_fixmap(case: Case) -> Iterator[Finding]:
    """With v1 the hypervisor calls the address that it put into VA_CONTROL_PAGE itself."""
    slots = _slots(case)
    xen = case.host.xen
    if not slots or xen is None:
        return
    rip, kept = int(case.handover.registers.rip), slots[abi.VA_CONTROL_PAGE]
    if case.plan.xen and case.plan.xen.leaves is not None:
        rip = case.handover.registers.general["rdi"]  # what its own code calls in the end
    if rip == kept == case.plan.relocation:
        return
    bare = xen.dom0.relocation
    what = "V of bare Linux, in dom0's own text" if bare in (rip, kept) else "no fixmap of its own"
    fixmap = "the control page's fixmap is"
    if case.plan.xen and case.plan.xen.leaves is not None:
        fixmap = "without fixmaps the control page is mapped at its machine address,"
    yield found(
        "xen-calls-fixmap",
        Step.CALL,
        f"the hypervisor calls {rip:#x}: {what}; {fixmap} {case.plan.relocation:#x}",
        evidence={"VA_CONTROL_PAGE": f"{kept:#x}", "fixmap": f"{case.plan.relocation:#x}"},
        mend="overwrite the odd slots with fix_to_virt() when the image is loaded, and call slot 1",
    )


def overwritten(case: Case) -> Iterator[Finding]:
    """With v1 the hypervisor overwrites page_table_a: its own V, and not the V of bare Linux."""
    xen = case.host.xen
    if case.handover.prepared is None or xen is None:
        return
    tables = case.handover.page_table_a
    bare = case.walk(tables, xen.dom0.relocation, Access.READ)
    if isinstance(bare, Refused) or bare.phys != case.control_page.start:
        return
    yield found(
        "xen-overwritten",
        Step.PREPARE,
        f"page_table_a still has what dom0 filled in: V of bare Linux = {xen.dom0.relocation:#x}"
        f" leads to the control page, and the hypervisor calls {case.plan.relocation:#x}",
        evidence={visit.level: f"{visit.entry:#x} at {visit.at:#x}" for visit in bare.visits},
        mend="let the hypervisor fill the pages of page_table_a again, for the fixmap's V",
    )


def small_pages(case: Case) -> Iterator[Finding]:
    """v2's tables have pages of 4 KiB alone."""
    if case.v2 is None:
        return
    mapped = case.mapped_a
    large = np.nonzero(mapped.size != PAGE_SIZE)[0]
    if len(large):
        at = int(large[0])
        yield found(
            "xen-small-pages",
            Step.TABLE_A,
            f"{int(mapped.virt[at]):#x} is mapped in a page of {int(mapped.size[at]):#x} bytes",
            mend="map what was asked for page by page: nothing else may be reached",
        )


THREAD = "the thread, its second half: 'Xen use the term machine addresses'"
OVERWRITES = "the thread: 'passed to the hypervisor that overwrites the contents filled in'"
RULES = (
    Rule(
        id="xen-list-machine",
        step=Step.PREPARE,
        holds="Under Xen the page list and page_list hold machine addresses.",
        source=THREAD,
        check=list_machine,
    ),
    Rule(
        id="xen-entries-machine",
        step=Step.PREPARE,
        holds="Under Xen every entry of the tables holds a machine address.",
        source=THREAD,
        check=entries_machine,
    ),
    Rule(
        id="xen-overwritten",
        step=Step.PREPARE,
        holds="With Xen's v1 the hypervisor has overwritten page_table_a with its own V.",
        source=OVERWRITES,
        check=overwritten,
    ),
    Rule(
        id="xen-calls-fixmap",
        step=Step.CALL,
        holds="With Xen's v1 the hypervisor calls the fixmap that it gave to the control page.",
        source="the thread, step 1b: 'We simply jump to a NX-safe mapped location (fixmap)'",
        check=calls_fixmap,
    ),
    Rule(
        id="xen-fixmap-maps",
        step=Step.CALL,
        holds="The hypervisor maps V executable, and every page of v1's list at its fixmap.",
        source="the thread, step 1b; machine_kexec_load of Xen 3.0.4",
        check=fixmap_maps,
    ),
    Rule(
        id="xen-root-machine",
        step=Step.TABLE_A,
        holds="Under Xen CR3 is loaded with machine addresses.",
        source=THREAD,
        check=cr3_machine,
        needs=frozenset({Sight.REGISTER_WRITES}),
    ),
    Rule(
        id="xen-small-pages",
        step=Step.TABLE_A,
        holds="With Xen's v2 everything is mapped in pages of 4 KiB.",
        source="machine_kexec_add_page in xen/arch/x86/machine_kexec.c",
        check=small_pages,
    ),
)
