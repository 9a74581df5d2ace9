"""The handover through a hypervisor: what dom0 prepares, what the hypervisor makes of it.

    v1   dom0 fills page_table_a for the V of bare Linux, and page_table_b, in machine addresses;
         the hypervisor takes the pages of page_table_a from page_list and fills them again, for the
         fixmap's V.  It never parses a table: it knows each page by its slot (this is why the thread
         passes an array of pages and not a root).
    v2   the hypervisor's own single tree: V -> the code page, and in 4 KiB pages, each to itself, the
         code page, the list, the sources, the segments.

Sources: the thread, its second half; machine_kexec_load of Xen 3.0.4 and machine_kexec_add_page of Xen
4.4 (xen/arch/x86/machine_kexec.c).

Rules: tables are filled by the designs, with the pages that were handed over as their only frames.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tightrope import routines
from tightrope.errors import PlanError
from tightrope.handover.designs import (
    CODE_AND_STACK,
    DAMM_V4,
    DESIGNS,
    TWO_TABLES,
    page_table_b,
)
from tightrope.memory import PAGE_SIZE, Extent, Phys, union
from tightrope.model import Code, Handover, Piece, Plan, Tables, World, XenInterface
from tightrope.x86.paging import FORMATS, map_page
from tightrope.x86.tables import TableStore

PAGE_LIST_DESIGNS = (TWO_TABLES, DAMM_V4)
"""What v1's slots are made for."""
XEN_V2 = "xen-v2"
"""The name of the hypervisor's own design."""
CHAIN_ORDER = ("PGD", "PUD_0", "PMD_0", "PTE_0", "PUD_1", "PMD_1", "PTE_1")
ENTER_LEGACY = 1
"""Bit 0 of the flags that the hypervisor's code page takes in r8."""


def code_xen(plan: Plan) -> Code:
    """The control page's code, by who calls it and how wide the hypervisor is."""
    assert plan.xen is not None
    if plan.xen.interface is XenInterface.V2:
        return routines.read(routines.RELOCATE_XEN)
    wide = plan.paging.long_mode
    return routines.read(
        routines.RELOCATE_X86_64_PAGE_LIST if wide else routines.RELOCATE_I386_PAGE_LIST
    )


def build_xen(plan: Plan, world: World, code: Code, *, design: str) -> Handover:
    """Everything that the hypervisor needs.

    v1 takes the designs that fill an array of pages, and v2 has its own: for another one PlanError.
    """
    assert plan.xen is not None
    prepared: Tables | None = None
    table_b: Tables | None
    if plan.xen.interface is XenInterface.V1:
        if design not in PAGE_LIST_DESIGNS:
            raise PlanError(
                f"page_list has no slots for {design}: v1 takes {' and '.join(PAGE_LIST_DESIGNS)}",
                source=plan.host.source,
                field="design",
            )
        chains, rest = _handed_over(plan)
        assert world.host.xen is not None
        bare = replace(plan, relocation=world.host.xen.dom0.relocation)
        prepared = _filled(bare, design, chains)
        table_a = _filled(plan, design, chains)
        table_b = page_table_b(plan, iter(rest)) if plan.paging.long_mode else None
        arguments = {}
    else:
        if design not in (TWO_TABLES, XEN_V2):
            raise PlanError(
                f"under v2 the tables are the hypervisor's own: there is no {design}",
                source=plan.host.source,
                field="design",
            )
        design = XEN_V2
        table_a = table_b = _own_tree(plan)
        arguments = {
            "rdi": int(plan.control_page),
            "rsi": int(table_a.root),
            "rdx": plan.head & -PAGE_SIZE,
            "rcx": int(plan.entry),
            "r8": ENTER_LEGACY if plan.xen.legacy_exit else 0,
        }
    return Handover(
        plan=plan,
        world=world,
        design=design,
        code=code,
        page_table_a=table_a,
        page_table_b=table_b,
        pieces=tuple(_pieces(plan, code, table_a, table_b)),
        segments=plan.segments,
        registers=replace(world.registers, general={**world.registers.general, **arguments}),
        prepared=prepared,
    )


def _handed_over(plan: Plan) -> tuple[list[int], list[int]]:
    """The frames of page_table_a in the order in which they are filled; then page_table_b's."""
    assert plan.xen is not None
    places = {each.name: int(each.machine) for each in plan.xen.pages}
    chains = [places[name] for name in CHAIN_ORDER if name in places]
    root = [places["TABLE_PAGE"]] if "TABLE_PAGE" in places else []
    taken = {*chains, *root}
    spare = (at for each in plan.spare for at in range(each.start, each.end, PAGE_SIZE))
    return chains, [*root, *(at for at in spare if at not in taken)]


def _filled(plan: Plan, design: str, chains: list[int]) -> Tables:
    """page_table_a in the pages of the list; those that two chains share leave others empty."""

    def frames() -> Iterator[int]:
        yield from chains
        yield -PAGE_SIZE  # the root of a page_table_b that maps nothing and is not kept

    tables, _nothing = DESIGNS[design](replace(plan, identity=()), frames())
    empty = memoryview(bytes(PAGE_SIZE))
    return Tables(root=tables.root, pages={at: tables.pages.get(at, empty) for at in chains})


def _own_tree(plan: Plan) -> Tables:
    fmt = FORMATS[plan.host.paging]
    frames = (at for each in plan.spare for at in range(each.start, each.end, PAGE_SIZE))
    store = TableStore(fmt, frames.__next__)
    for extent in union(each.extent for each in plan.identity):
        store.map_extent(extent.start, extent, CODE_AND_STACK, page_sizes=(PAGE_SIZE,))
    virt = Extent.sized(plan.relocation, PAGE_SIZE)
    taken = next((each for each in plan.identity if each.extent.overlaps(virt)), None)
    if taken is not None:
        raise PlanError(
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


def _pieces(plan: Plan, code: Code, table_a: Tables, table_b: Tables | None) -> Iterator[Piece]:
    yield Piece(
        phys=plan.control_page, data=code.data.ljust(PAGE_SIZE, b"\0"), what="the control page"
    )
    trees = [("page_table_a", table_a)]
    if table_b is not None and table_b is not table_a:
        trees.append(("page_table_b", table_b))
    for what, tables in trees:
        for frame, page in tables.pages.items():
            yield Piece(phys=Phys(frame), data=page, what=what)
    for frame, words in plan.list_pages.items():
        yield Piece(phys=Phys(frame), data=words.tobytes(), what="the page list")
