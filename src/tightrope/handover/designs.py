"""The table designs: how page_table_a and page_table_b are filled.

Rules: a design is a pair of small functions over a `TableStore`; it knows V, P and what has to be
reachable, and no register.  All entries have accessed and dirty preset, so that the walker never
writes into a table.

    two-tables   page_table_a: V -> P and P -> P, nothing else      (the thread, step 2)
                 page_table_b: what the plan says has to be reachable, each address to itself
                 (none on i386 and PAE, where step 5 turns paging off)
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.memory import PAGE_SIZE, union
from tightrope.model import Plan, Tables
from tightrope.x86.paging import FORMATS, Rights, map_page
from tightrope.x86.tables import TableStore

TWO_TABLES = "two-tables"
DESIGNS = (TWO_TABLES,)

CODE_AND_STACK = Rights(writable=True, executable=True)
"""The control page holds the code and its stack: one page cannot be W^X."""


def page_table_a(plan: Plan, frames: Iterator[int]) -> Tables:
    """The control page at V and at its own address P, and nothing else (the thread, step 2)."""
    fmt = FORMATS[plan.host.paging]
    control_page = plan.control_page
    store = TableStore(fmt, frames.__next__)
    for address in (plan.relocation, control_page):
        map_page(store, fmt, store.root, address, control_page, CODE_AND_STACK, store.new_table)
    return Tables(root=store.root, pages=store.pages())


def page_table_b(plan: Plan, frames: Iterator[int]) -> Tables:
    """Each address of the plan's identity list to itself, in the largest pages that fit inside.

    A page is never larger than what is asked for: a hole or a reserved range that shares 2 MiB or
    1 GiB with it stays unmapped (Linux commit cc31744a2945 tells what over-mapping costs).
    """
    fmt = FORMATS[plan.host.paging]
    store = TableStore(fmt, frames.__next__)
    sizes = fmt.page_sizes(gbpages=plan.host.cpu.gbpages)
    for extent in union(each.extent for each in plan.identity):
        assert extent.start % PAGE_SIZE == 0
        store.map_extent(extent.start, extent, CODE_AND_STACK, page_sizes=sizes)
    return Tables(root=store.root, pages=store.pages())
