"""Tables through a hypervisor: what dom0 prepares, what the hypervisor makes of it.

    v1   dom0 fills page_table_a for the V of bare Linux, and page_table_b, in machine addresses;
         the hypervisor takes the pages of page_table_a from page_list and fills them again, for the
         fixmap's V.  It never parses a table: it knows each page by its slot (this is why the
         thread passes an array of pages and not a root).
    v2   the hypervisor's own single tree: V -> the code page, and in 4 KiB pages, each to itself, the
         code page, the list, the sources, the segments.

Sources: the thread, its second half; machine_kexec_load of Xen 3.0.4 and machine_kexec_add_page of
Xen 4.4 (xen/arch/x86/machine_kexec.c).

Rules: tables are filled by `designs`, with the pages that were handed over as their only frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tightrope.errors import DesignError
from tightrope.handover.designs import CODE_AND_STACK, chains, page_table_a, page_table_b
from tightrope.handover.laid import Laid
from tightrope.memory import PAGE_SIZE, Extent, union
from tightrope.model import PageList, Plan, Tables, Trees
from tightrope.x86.paging import FORMATS, map_page
from tightrope.x86.tables import TableStore

CHAIN_ORDER = ("PGD", "PUD_0", "PMD_0", "PTE_0", "PUD_1", "PMD_1", "PTE_1")


def handed_over(plan: Plan, load: PageList, trees: Trees) -> Laid:
    """v1: page_table_a twice, as dom0 and as the hypervisor fill it, in the pages of the list."""
    places = {each.name: int(each.machine) for each in load.pages}
    own = [places[name] for name in CHAIN_ORDER if name in places]
    root = [places["TABLE_PAGE"]] if "TABLE_PAGE" in places else []
    spare = (at for each in plan.spare for at in range(each.start, each.end, PAGE_SIZE))
    rest = [at for at in spare if at not in {*own, *root}]
    bare = replace(plan, relocation=load.xen.dom0.relocation)
    return Laid(
        prepared=_filled(bare, trees, own),
        table_a=_filled(plan, trees, own),
        table_b=page_table_b(plan, iter([*root, *rest])),
    )


def _filled(plan: Plan, trees: Trees, own: list[int]) -> Tables:
    """page_table_a in the pages of the list; those that two chains share leave others empty."""
    tables = (chains if trees is Trees.CHAINS else page_table_a)(plan, iter(own))
    empty = memoryview(bytes(PAGE_SIZE))
    return Tables(root=tables.root, pages={at: tables.pages.get(at, empty) for at in own})


def own_tree(plan: Plan, frames: Iterator[int]) -> Tables:
    """v2: all that is needed in pages of 4 KiB, and V.  Raises DesignError where something lies at
    V."""
    fmt = FORMATS[plan.paging]
    store = TableStore(fmt, frames.__next__)
    for extent in union(each.extent for each in plan.identity):
        store.map_extent(extent.start, extent, CODE_AND_STACK, page_sizes=(PAGE_SIZE,))
    virt = Extent.sized(plan.relocation, PAGE_SIZE)
    taken = next((each for each in plan.identity if each.extent.overlaps(virt)), None)
    if taken is not None:
        raise DesignError(
            f"V = {plan.relocation:#x} cannot lead to the code page and to itself:"
            f" {taken.what} lies there",
            source=plan.host.source,
            field="relocation",
        )
    map_page(
        store,
        fmt,
        store.root,
        plan.relocation,
        plan.control_page,
        CODE_AND_STACK,
        store.new_table,
    )
    return Tables(root=store.root, pages=store.pages())
