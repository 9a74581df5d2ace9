"""The trees of page tables that a contract asks for, and what of them the call hands over.

Rules: this file decides which trees there are and from whose frames; how one is filled is in
`designs`, `apart` and `xen`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from tightrope.handover import apart, designs, xen
from tightrope.handover.laid import Laid
from tightrope.memory import PAGE_SIZE, Phys
from tightrope.model import Bare, Contract, Place, Plan, Trees, World, XenCompat, XenV1, XenV2


def trees(plan: Plan, world: World, contract: Contract) -> Laid:
    """What `contract` wants for `plan`.  Raises DesignError where that cannot exist on this
    host."""
    match plan.through:
        case XenV1() | XenCompat():
            return xen.handed_over(plan, plan.through, contract.trees)
        case Bare() | XenV2():
            frames = _frames(plan)
        case _:
            assert_never(plan.through)
    laid = _filled(plan, world, contract, frames)
    if Place.SWAP_PAGE in contract.writes:
        return replace(laid, swap_page=Phys(next(frames)))
    return laid


def _filled(plan: Plan, world: World, contract: Contract, frames: Iterator[int]) -> Laid:
    match contract.trees:
        case Trees.TWO:
            return Laid(
                table_a=designs.page_table_a(plan, frames),
                table_b=designs.page_table_b(plan, frames),
            )
        case Trees.CHAINS:
            return Laid(
                table_a=designs.chains(plan, frames), table_b=designs.page_table_b(plan, frames)
            )
        case Trees.ONE:
            tables = designs.one_tree(plan, frames)
            return Laid(table_a=tables, table_b=tables if plan.paging.long_mode else None)
        case Trees.WHOLE_MEMORY:
            tables = designs.whole_memory(plan, frames)
            return Laid(table_a=tables, table_b=tables)
        case Trees.SMALL_PAGES:
            tables = xen.own_tree(plan, frames)
            return Laid(table_a=tables, table_b=tables)
        case Trees.CURRENT:
            return apart.current(plan, world, frames)
        case Trees.IN_IMAGE:
            return apart.in_image(plan, world, frames)
        case _:
            assert_never(contract.trees)


def _frames(plan: Plan) -> Iterator[int]:
    for extent in plan.spare:
        yield from range(extent.start, extent.end, PAGE_SIZE)
