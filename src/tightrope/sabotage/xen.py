"""What each sabotage of a handover through Xen changes.

Rules: as `changes`: a finished value in, a changed one out; what is not there to be changed raises
BadInput with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tightrope.abi import xen as abi
from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Machine, Phys, Virt
from tightrope.model import Handover, Plan, XenInterface, XenLoad
from tightrope.model.p2m import P2m
from tightrope.sabotage.edits import edit_list, entry_of
from tightrope.x86.cpu import EFER_NXE
from tightrope.x86.paging import FORMATS
from tightrope.x86.walk import Access, entries_in, walk

EXECUTE_DISABLE = 1 << 63


def through(plan: Plan, interface: XenInterface | None = None) -> tuple[XenLoad, P2m]:
    """What is loaded, and dom0's p2m.  Raises BadInput where there is no such load."""
    load, xen = plan.xen, plan.host.xen
    if load is None or xen is None:
        raise BadInput("nobody asks a hypervisor for the jump (--xen)", source="--sabotage")
    if interface is not None and load.interface is not interface:
        raise BadInput(f"it needs interface {interface.value}", source="--sabotage")
    return load, xen.dom0.p2m


def _pseudo(plan: Plan, machine: int, what: str) -> int:
    """What dom0 calls a machine address.  Raises BadInput where it is not dom0's."""
    _load, p2m = through(plan)
    pseudo = p2m.pseudo(Machine(Phys(machine)))
    if pseudo is None:
        raise BadInput(f"{what} is no memory of dom0's", source="--sabotage")
    return pseudo


def pseudo_in_list(handover: Handover) -> Handover:
    """The first source word of the list as dom0 knows it."""
    plan = handover.plan
    through(plan)
    pseudo = _pseudo(plan, int(plan.sources[0]) * PAGE_SIZE, "the first source")
    wanted = int(plan.sources[0]) * PAGE_SIZE | 8

    def change(rows: list[list[int]]) -> None:
        rows[0][rows[0].index(wanted)] = pseudo | 8

    return edit_list(handover, change)


def pseudo_in_cr3(handover: Handover) -> Handover:
    """PA_PGD as dom0 knows it: the routine loads CR3 from there."""
    through(handover.plan, XenInterface.V1)
    root = int(handover.page_table_a.root)
    return _with_slot(handover, abi.PA_PGD, _pseudo(handover.plan, root, "page_table_a"))


def pseudo_in_entry(handover: Handover) -> Handover:
    """The entry of page_table_a for V as dom0 knows the control page."""
    plan = handover.plan
    through(plan, XenInterface.V1)
    pseudo = _pseudo(plan, plan.control_page, "the control page")
    return entry_of(
        lambda it: it.plan.relocation, lambda entry: entry - plan.control_page + pseudo
    )(handover)


def fixmap_nx(handover: Handover) -> Handover:
    """NX in the hypervisor's own entry for the fixmap of the control page."""
    load, _p2m = through(handover.plan, XenInterface.V1)
    if load.leaves is not None:
        raise BadInput("32-bit code of a 64-bit Xen has no fixmap", source="--sabotage")
    world, registers = handover.world, handover.registers
    if not registers.efer & EFER_NXE:
        raise BadInput("EFER.NXE is off: there is no NX", source="--sabotage")
    mmu = registers.mmu(handover.plan.host.cpu, root=world.pgd)
    leaf = walk(entries_in(world.tables), mmu, handover.plan.relocation, Access.READ).visits[-1]
    frame = leaf.at & -PAGE_SIZE
    page = bytearray(world.tables[frame])
    page[leaf.at - frame : leaf.at - frame + 8] = (leaf.entry | EXECUTE_DISABLE).to_bytes(
        8, "little"
    )
    return _with_world(handover, frame, bytes(page))


def no_overwrite(handover: Handover) -> Handover:
    """page_table_a as dom0 filled it in."""
    prepared = handover.prepared
    if prepared is None:
        raise BadInput("there is nothing that Xen overwrites (--xen v1)", source="--sabotage")
    pieces = tuple(
        replace(each, data=prepared.pages[each.phys]) if each.phys in prepared.pages else each
        for each in handover.pieces
    )
    return replace(handover, page_table_a=prepared, pieces=pieces)


def bare_v(handover: Handover) -> Handover:
    """The hypervisor finds V of bare Linux in VA_CONTROL_PAGE, and calls it."""
    plan = handover.plan
    through(plan, XenInterface.V1)
    assert plan.host.xen is not None
    bare = plan.host.xen.dom0.relocation
    changed = _with_slot(handover, abi.VA_CONTROL_PAGE, bare)
    registers = changed.registers
    if handover.world.way_out is not None:
        general = {**registers.general, "rdi": int(bare)}
        return replace(changed, registers=replace(registers, general=general))
    return replace(changed, registers=replace(registers, rip=bare))


def shared_slot(plan: Plan) -> Plan:
    """A hypervisor whose fixmaps lie in the top-level slot of P, near its end."""
    load, _p2m = through(plan, XenInterface.V1)
    if load.leaves is not None:
        raise BadInput("32-bit code of a 64-bit Xen has no fixmap", source="--sabotage")
    assert plan.host.xen is not None
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
    xen = replace(plan.host.xen, fixmap=fixmap)
    return replace(
        plan,
        host=replace(plan.host, xen=xen),
        relocation=fixmap,
        xen=replace(load, pages=pages),
    )


def damm_v4_alone(handover: Handover) -> Handover:
    """The same handover, if its design writes one chain over the other."""
    if handover.design != "damm-v4":
        raise BadInput(
            f"{handover.design} keeps both chains in one slot: give --design damm-v4",
            source="--sabotage",
        )
    return handover


def with_head(handover: Handover, place: Phys) -> Handover:
    """The page list begins at `place`, wherever the call hands its head over."""
    load = handover.plan.xen
    general = dict(handover.registers.general)
    if load is not None and load.interface is XenInterface.V2:
        general["rdx"] = place
    elif load is not None and handover.plan.word == 4:
        stack = handover.world.arguments[-1].start - 4

        def change(data: bytearray) -> None:
            data[4:8] = (place | 2).to_bytes(4, "little")

        return with_piece(handover, stack, change)
    else:
        general["rdi"] = place | 2
    return replace(handover, registers=replace(handover.registers, general=general))


def _with_slot(handover: Handover, slot: int, value: int) -> Handover:
    """One slot of the hypervisor's copy of page_list changed."""
    word = handover.plan.word
    at = handover.world.arguments[0].start

    def change(data: bytearray) -> None:
        data[slot * word : (slot + 1) * word] = value.to_bytes(word, "little")

    return with_piece(handover, at, change)


def with_piece(handover: Handover, at: int, change: Callable[[bytearray], None]) -> Handover:
    pieces = list(handover.world.pieces)
    number = next(n for n, each in enumerate(pieces) if each.phys == at)
    data = bytearray(pieces[number].data)
    change(data)
    pieces[number] = replace(pieces[number], data=bytes(data))
    return replace(handover, world=replace(handover.world, pieces=tuple(pieces)))


def _with_world(handover: Handover, frame: int, page: bytes) -> Handover:
    """One page of the tables in use at the call replaced, in the tree and in its piece."""

    def change(data: bytearray) -> None:
        data[:] = page

    changed = with_piece(handover, frame, change)
    tables = {**changed.world.tables, frame: memoryview(page)}
    return replace(changed, world=replace(changed.world, tables=tables))
