"""Building a handover: tables for a contract, control page, list, and the registers of the call.

Rules: nothing is written anywhere.  The control page is byte for byte the old kernel's page at V,
so that the switch to page_table_a at V changes nothing that is executed; where a contract has the
code at V stay, it stays what it is and the control page holds other code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tightrope.handover import call
from tightrope.handover.laid import Laid
from tightrope.handover.trees import trees
from tightrope.memory import PAGE_SIZE
from tightrope.model import (
    Given,
    Handover,
    Paging,
    Participant,
    Plan,
    World,
    XenV2,
    called_at,
    relocation_code,
    with_code,
)


def fitted(plan: Plan, chain: Sequence[Participant]) -> Plan:
    """The plan with V in the old kernel's text, where the relocation code is to stay at V."""
    if not relocation_code(chain).contract.stays_at_v:
        return plan
    virt = called_at(plan.through, plan.host, plan.control_page, stays=True)
    return replace(plan, relocation=virt)


def build(plan: Plan, world: World, chain: tuple[Participant, ...]) -> Handover:
    """Everything `machine_kexec` needs.

    `world` has the code that the relocation code is called by at V.  Raises DesignError for tables
    that cannot exist on this host.
    """
    relocation = relocation_code(chain)
    laid = trees(plan, world, relocation.contract)
    if laid.reach:
        plan = replace(plan, identity=(*plan.identity, *laid.reach))
    values = _values(plan, world, laid)
    code = call.loaded(relocation.code, relocation.contract, values, plan)
    world, registers = call.called(plan, world, code, relocation.contract, values)
    return Handover(
        intent=plan,
        world=world,
        chain=chain if code is relocation.code else with_code(chain, code),
        page_table_a=laid.table_a,
        page_table_b=laid.table_b,
        page_list={frame: words.tobytes() for frame, words in plan.list_pages.items()},
        segments=plan.segments,
        registers=registers,
        levels=laid.levels,
        jumps_to=laid.jumps_to,
        swap_page=laid.swap_page,
        prepared=laid.prepared,
    )


def _values(plan: Plan, world: World, laid: Laid) -> dict[Given, int]:
    """Everything that a call may hand over; words that a hypervisor lays are the world's."""
    direct = plan.host.direct_map.virt
    values: dict[Given, int] = {
        Given.LIST: plan.head,
        Given.LIST_PAGE: plan.head & -PAGE_SIZE,
        Given.CONTROL_PAGE: plan.control_page,
        Given.CONTROL_PAGE_MAPPED: direct + plan.control_page,
        Given.V: plan.relocation,
        Given.ENTRY: plan.entry,
        Given.TABLE_A: laid.table_a.root,
        Given.FUNCTION: world.code_phys,
        Given.DIRECT_MAP: direct,
        Given.FLAGS: int(isinstance(plan.through, XenV2) and plan.through.legacy_exit),
        # The Pentium Pro brought PAE and PGE; a host of i386 names only the second.
        Given.HAS_PAE: int(plan.paging is Paging.PAE or plan.host.cpu.pge),
        Given.NOTHING: 0,
    }
    if laid.table_b:
        values[Given.TABLE_B] = laid.table_b.root
    if laid.levels:
        values[Given.LEVELS] = laid.levels[0]
    if laid.swap_page is not None:
        values[Given.SWAP_PAGE] = laid.swap_page
    return {given: int(value) for given, value in values.items()}
