"""Sabotages of a 64-bit hypervisor's way to a 32-bit dom0's code.

Rules: as `edits`.  The way out is the world's, and laid out before the walk; so are these.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope import routines
from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Virt
from tightrope.model import Handover, Host, Paging, Plan, Step, WayOut, XenCompat
from tightrope.sabotage.edits import leaf_entry, with_global, with_piece
from tightrope.sabotage.sabotage import sabotage
from tightrope.sabotage.xen.asked import page_list_of
from tightrope.x86.cpu import CR4_PAE, CR4_PGE


def _way_out(handover: Handover) -> WayOut:
    """Where long mode is left for dom0's code.  Raises BadInput where it is not."""
    page_list_of(handover.intent)
    way = handover.world.way_out
    if way is None:
        raise BadInput("long mode is not left for dom0's code", source="--sabotage")
    return way


def _global_at_way_out(host: Host, plan: Plan) -> Host:
    """The hypervisor has a global mapping at the address that is its own code's to itself."""
    load = page_list_of(plan)
    if not isinstance(load, XenCompat):
        raise BadInput("long mode is not left for dom0's code", source="--sabotage")
    return with_global(host, Virt(load.leaves - host.text.virt + host.text.phys))


@sabotage("xen-way-out-pge", Step.CALL, breaks="pge-before-identity", modes=(Paging.PAE,))
def way_out_pge(handover: Handover) -> Handover:
    """Let a 64-bit hypervisor leave CR4.PGE on until a 32-bit dom0's code is called."""
    way = _way_out(handover)
    at = routines.read(routines.LEAVE_XEN).symbols["wide_tables"]

    def change(data: bytearray) -> None:
        data[at + 1 : at + 5] = (CR4_PAE | CR4_PGE).to_bytes(4, "little")

    return with_piece(handover, way.code, change)


@sabotage(
    "xen-way-out-global",
    Step.CALL,
    breaks="tlb-agreement",
    modes=(Paging.PAE,),
    host=_global_at_way_out,
)
def way_out_global(handover: Handover) -> Handover:
    """Do not write CR4 there, and give the hypervisor a global mapping where that code lies."""
    way = _way_out(handover)
    at = routines.read(routines.LEAVE_XEN).symbols["wide_tables"]

    def change(data: bytearray) -> None:
        data[at + 5 : at + 8] = b"\x90\x90\x90"  # mov %rax, %cr4

    return with_piece(handover, way.code, change)


@sabotage("xen-lme-stays", Step.CALL, breaks="xen-long-mode-left", modes=(Paging.PAE,))
def lme_stays(handover: Handover) -> Handover:
    """Let a 64-bit hypervisor leave EFER.LME on before a 32-bit dom0's code."""
    way = _way_out(handover)
    at = routines.read(routines.LEAVE_XEN).symbols["clear_lme"]

    def change(data: bytearray) -> None:
        data[at + 1 : at + 5] = (0xFFFF_FFFF).to_bytes(4, "little")

    return with_piece(handover, way.code, change)


@sabotage("xen-way-out-unmapped", Step.CALL, breaks="xen-way-out-maps", modes=(Paging.PAE,))
def way_out_unmapped(handover: Handover) -> Handover:
    """Leave a 64-bit hypervisor's own code out of the tables for a 32-bit dom0's.

    The PAE tables leave out the page that the CPU is on when paging comes on again.
    """
    way = _way_out(handover)
    at, _entry = leaf_entry(handover, way.narrow, way.code)
    frame = at & -PAGE_SIZE
    page = bytearray(way.narrow.pages[frame])
    page[at - frame : at - frame + 8] = bytes(8)
    pages = {**way.narrow.pages, frame: memoryview(bytes(page))}
    out = replace(way, narrow=replace(way.narrow, pages=pages))
    return replace(handover, world=replace(handover.world, way_out=out))
