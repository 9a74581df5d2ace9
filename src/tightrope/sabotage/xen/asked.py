"""Sabotages of a handover through Xen: numbers of the wrong kind, the wrong V, what is not
overwritten.

Rules: as `edits`; what is not there to be changed raises BadInput with the reason.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.abi import xen as abi
from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Machine, Phys, Virt
from tightrope.model import (
    Bare,
    Handover,
    Intent,
    PageList,
    Paging,
    Plan,
    Step,
    Trees,
    UnderXen,
    XenCompat,
    XenV1,
    XenV2,
)
from tightrope.sabotage.edits import edit_list, entry_of, with_piece
from tightrope.sabotage.sabotage import XEN_MODES, sabotage
from tightrope.x86.cpu import EFER_NXE
from tightrope.x86.paging import FORMATS
from tightrope.x86.walk import Access, entries_in, walk

EXECUTE_DISABLE = 1 << 63


def through_xen(intent: Intent) -> UnderXen:
    """How a hypervisor is asked for the jump.  Raises BadInput where none is."""
    if isinstance(intent.through, Bare):
        raise BadInput("nobody asks a hypervisor for the jump (--xen)", source="--sabotage")
    return intent.through


def page_list_of(intent: Intent) -> PageList:
    """v1's load.  Raises BadInput where it is another."""
    load = through_xen(intent)
    if isinstance(load, XenV2):
        raise BadInput("it needs interface v1", source="--sabotage")
    return load


def fixmaps_of(intent: Intent) -> XenV1:
    """v1's load with fixmaps.  Raises BadInput where it is another."""
    load = page_list_of(intent)
    if isinstance(load, XenCompat):
        raise BadInput("32-bit code of a 64-bit Xen has no fixmap", source="--sabotage")
    return load


def _pseudo(load: UnderXen, machine: int, what: str) -> int:
    """What dom0 calls a machine address.  Raises BadInput where it is not dom0's."""
    pseudo = load.xen.dom0.p2m.pseudo(Machine(Phys(machine)))
    if pseudo is None:
        raise BadInput(f"{what} is not memory of dom0's", source="--sabotage")
    return pseudo


@sabotage("xen-pseudo-list", Step.PREPARE, breaks="xen-list-machine", modes=XEN_MODES)
def pseudo_list(handover: Handover) -> Handover:
    """Under Xen, leave a pseudo-physical address in the page list."""
    plan = handover.intent
    load = through_xen(plan)
    pseudo = _pseudo(load, int(plan.sources[0]) * PAGE_SIZE, "the first source")
    wanted = int(plan.sources[0]) * PAGE_SIZE | 8

    def change(rows: list[list[int]]) -> None:
        rows[0][rows[0].index(wanted)] = pseudo | 8

    return edit_list(handover, change)


@sabotage("xen-pseudo-cr3", Step.TABLE_A, breaks="xen-root-machine", modes=XEN_MODES)
def pseudo_cr3(handover: Handover) -> Handover:
    """Under Xen, load CR3 with page_table_a's pseudo-physical address.

    PA_PGD as dom0 knows it: the routine loads CR3 from there.
    """
    load = page_list_of(handover.intent)
    root = int(handover.page_table_a.root)
    return _with_slot(handover, abi.PA_PGD, _pseudo(load, root, "page_table_a"))


@sabotage("xen-pseudo-entry", Step.PREPARE, breaks="xen-entries-machine", modes=XEN_MODES)
def pseudo_entry(handover: Handover) -> Handover:
    """Under Xen, leave the control page's pseudo-physical address in the entry for V."""
    plan = handover.intent
    pseudo = _pseudo(page_list_of(plan), plan.control_page, "the control page")
    return entry_of(
        lambda it: it.intent.relocation, lambda entry: entry - plan.control_page + pseudo
    )(handover)


@sabotage("xen-fixmap-nx", Step.CALL, breaks="xen-fixmap-maps", modes=(Paging.PAE, Paging.X86_64))
def fixmap_nx(handover: Handover) -> Handover:
    """Set NX on the hypervisor's fixmap of the control page."""
    fixmaps_of(handover.intent)
    world, registers = handover.world, handover.registers
    if not registers.efer & EFER_NXE:
        raise BadInput("EFER.NXE is off: there is no NX", source="--sabotage")
    mmu = registers.mmu(handover.host.cpu, root=world.pgd)
    leaf = walk(entries_in(world.tables), mmu, handover.intent.relocation, Access.READ).visits[-1]
    frame = leaf.at & -PAGE_SIZE
    page = bytearray(world.tables[frame])
    page[leaf.at - frame : leaf.at - frame + 8] = (leaf.entry | EXECUTE_DISABLE).to_bytes(
        8, "little"
    )
    tables = {**world.tables, frame: memoryview(bytes(page))}
    return replace(handover, world=replace(world, tables=tables))


@sabotage("xen-no-overwrite", Step.PREPARE, breaks="xen-overwritten", modes=XEN_MODES)
def no_overwrite(handover: Handover) -> Handover:
    """Let the hypervisor leave page_table_a as dom0 filled it in."""
    prepared = handover.prepared
    if prepared is None:
        raise BadInput("there is nothing that Xen overwrites (--xen v1)", source="--sabotage")
    return replace(handover, page_table_a=prepared)


@sabotage("xen-bare-v", Step.CALL, breaks="xen-calls-fixmap", modes=XEN_MODES)
def bare_v(handover: Handover) -> Handover:
    """Let the hypervisor call V of bare Linux instead of its fixmap."""
    bare = page_list_of(handover.intent).xen.dom0.relocation
    changed = _with_slot(handover, abi.VA_CONTROL_PAGE, bare)
    registers = changed.registers
    if handover.world.way_out is not None:
        general = {**registers.general, "rdi": int(bare)}
        return replace(changed, registers=replace(registers, general=general))
    return replace(changed, registers=replace(registers, rip=bare))


def _shared_slot(plan: Plan) -> Plan:
    """A hypervisor whose fixmaps lie in the top-level slot of P, near its end."""
    load = fixmaps_of(plan)
    span = FORMATS[plan.paging].levels[0].span
    slot = plan.control_page & -span
    high = slot + span - PAGE_SIZE
    low = high - len(load.pages) * PAGE_SIZE
    if low <= plan.control_page:
        high = slot + span // 2
    fixmap = Virt(high)
    pages = tuple(
        replace(each, fixmap=Virt(fixmap - each.slot // 2 * PAGE_SIZE))
        if each.fixmap is not None
        else each
        for each in load.pages
    )
    xen = replace(load.xen, fixmap=fixmap)
    return replace(
        plan,
        host=replace(plan.host, xen=xen),
        relocation=fixmap,
        through=replace(load, xen=xen, pages=pages),
    )


@sabotage(
    "xen-shared-slot", Step.TABLE_A, breaks="table-a-maps-v", modes=XEN_MODES, plan=_shared_slot
)
def shared_slot(handover: Handover) -> Handover:
    """With damm-v4, put the fixmaps into the top-level slot of P.

    The same handover, if its design writes one chain over the other.
    """
    if handover.relocation_code.contract.trees is not Trees.CHAINS:
        raise BadInput(
            f"{handover.design} keeps both chains in one slot: give --design damm-v4",
            source="--sabotage",
        )
    return handover


def _with_slot(handover: Handover, slot: int, value: int) -> Handover:
    """One slot of the hypervisor's copy of page_list changed."""
    word = handover.intent.word
    at = handover.world.arguments[0].start

    def change(data: bytearray) -> None:
        data[slot * word : (slot + 1) * word] = value.to_bytes(word, "little")

    return with_piece(handover, at, change)
