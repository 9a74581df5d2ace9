"""page_table_a and page_table_b as a contract wants them, filled entry by entry.

Rules: each is a small function over a `TableStore`; it knows V, P and what has to be reachable, and
no register.  All entries have accessed and dirty preset, so that the walker never writes into a
table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tightrope.errors import DesignError
from tightrope.memory import PAGE_SIZE, Extent, align_down, align_up, union
from tightrope.model import Plan, Tables
from tightrope.model.modes import MODES
from tightrope.x86.paging import (
    FORMATS,
    Format,
    Rights,
    TableMemory,
    leaf_bits,
    map_page,
    table_at,
    table_bits,
)
from tightrope.x86.tables import TableStore

LARGE = 2 << 20
"""Bytes of the large pages of long mode."""
CODE_AND_STACK = Rights(writable=True, executable=True)
"""The control page holds the code and its stack: one page cannot be W^X."""


def one_tree(plan: Plan, frames: Iterator[int]) -> Tables:
    """The identity map with V added.  Raises DesignError where V would have to lead to two
    places."""
    store = _identity(plan, frames)
    if int(plan.relocation) != int(plan.control_page):  # V = P is there already
        _add_v(plan, store)
    return Tables(root=store.root, pages=store.pages())


def whole_memory(plan: Plan, frames: Iterator[int]) -> Tables:
    """All memory and all that has to be reachable, each address to itself, in large global pages;
    and V.

    As Linux fills it: whole 2 MiB pages, whatever else lies in them (ident_pmd_init() in
    arch/x86/mm/ident_map.c, which rounds down to PMD_SIZE), and 1 GiB pages where all of one is
    wanted.  Raises DesignError as `one_tree` does.
    """
    fmt = FORMATS[plan.paging]
    store = TableStore(fmt, frames.__next__)
    sizes = fmt.page_sizes(gbpages=plan.host.cpu.gbpages)
    rights = replace(CODE_AND_STACK, is_global=True)
    wanted = [*plan.host.memory.ram, *(each.extent for each in plan.identity)]
    for extent in union(rounded(each, LARGE) for each in wanted):
        store.map_extent(extent.start, extent, rights, page_sizes=sizes)
    _add_v(plan, store)
    return Tables(root=store.root, pages=store.pages())


def rounded(extent: Extent, size: int) -> Extent:
    """The smallest extent of whole pages of `size` bytes that covers this one."""
    return Extent(align_down(extent.start, size), align_up(extent.end, size))


def _add_v(plan: Plan, store: TableStore) -> None:
    """V to the control page, in the identity table.  Raises DesignError."""
    virt = Extent.sized(plan.relocation, PAGE_SIZE)
    named = next((each for each in plan.identity if each.extent.overlaps(virt)), None)
    if named is not None:
        raise DesignError(
            f"one table cannot lead V = {plan.relocation:#x} to the control page and to itself:"
            f" {named.what} lies there",
            source=plan.host.source,
            field="relocation",
        )
    fmt = store.format
    try:
        map_page(
            store,
            fmt,
            store.root,
            plan.relocation,
            plan.control_page,
            CODE_AND_STACK,
            store.new_table,
        )
    except ValueError as err:
        raise DesignError(
            f"one table has no room for V = {plan.relocation:#x}: {err}",
            source=plan.host.source,
            field="relocation",
        ) from err


def chains(plan: Plan, frames: Iterator[int]) -> Tables:
    """2.6.20's page_table_a: every level of both chains is written, whatever was there."""
    fmt = FORMATS[plan.paging]
    store = TableStore(fmt, frames.__next__)
    write_chains(store, fmt, store.root, plan.relocation, plan.control_page, store.new_table)
    return Tables(root=store.root, pages=store.pages())


def write_chains(
    tables: TableMemory,
    fmt: Format,
    root: int,
    relocation: int,
    control_page: int,
    new_table: Callable[[], int],
) -> None:
    """What 2.6.20 writes for V and for P; `prove` runs it for all of both."""
    for address in (relocation, control_page):
        table = root
        for level in range(fmt.leaf):
            below = new_table()
            bits = table_bits(fmt, level, CODE_AND_STACK)
            tables.set_entry(table, fmt.index(address, level), below | bits)
            table = below
        leaf = control_page | leaf_bits(fmt, fmt.leaf, CODE_AND_STACK)
        tables.set_entry(table, fmt.index(address, fmt.leaf), leaf)


def page_table_a(plan: Plan, frames: Iterator[int]) -> Tables:
    """The control page at V and at its own address P, and nothing else (the thread, step 2)."""
    fmt = FORMATS[plan.paging]
    store = TableStore(fmt, frames.__next__)
    map_twice(store, fmt, store.root, plan.relocation, plan.control_page, store.new_table)
    return Tables(root=store.root, pages=store.pages())


def map_twice(
    tables: TableMemory,
    fmt: Format,
    root: int,
    relocation: int,
    control_page: int,
    new_table: Callable[[], int],
) -> None:
    """Fill page_table_a, whatever holds its entries; `prove` runs it for all V and P."""
    for address in (relocation, control_page):
        map_page(tables, fmt, root, address, control_page, CODE_AND_STACK, new_table)


def page_table_b(plan: Plan, frames: Iterator[int]) -> Tables | None:
    """Each address of the plan's identity list to itself; None where step 5 turns paging off."""
    if not plan.paging.long_mode:
        return None
    store = _identity(plan, frames)
    return Tables(root=store.root, pages=store.pages())


def _identity(plan: Plan, frames: Iterator[int]) -> TableStore:
    """The identity map, in the largest pages that fit inside what is asked for.

    A page is never larger than that: a hole or a reserved range that shares 2 MiB or 1 GiB with it
    stays unmapped (Linux commit cc31744a2945 tells what over-mapping costs).
    """
    fmt = FORMATS[plan.paging]
    store = TableStore(fmt, frames.__next__)
    sizes = fmt.page_sizes(gbpages=plan.host.cpu.gbpages)
    if not plan.host.cpu.pse:
        sizes = (PAGE_SIZE,)
    wanted = [each.extent for each in plan.identity]
    reads_root = MODES[plan.paging].reads_root
    if reads_root:
        wanted.append(Extent.sized(store.root, PAGE_SIZE))
    for extent in union(wanted):
        assert extent.start % PAGE_SIZE == 0
        store.map_extent(extent.start, extent, CODE_AND_STACK, page_sizes=sizes)
    if reads_root:
        table = table_at(store, fmt, store.root, 0, 1, CODE_AND_STACK, store.new_table)
        second = Extent.sized(table, PAGE_SIZE)
        if not any(each.covers(second) for each in wanted):
            store.map_extent(second.start, second, CODE_AND_STACK, page_sizes=sizes)
    return store
