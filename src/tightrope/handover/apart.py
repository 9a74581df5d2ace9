"""Tables for code at V that is not the control page's, and stays where it is.

    the current pgd   what the code at V makes of it, store by store, and what it makes it from
    in the image      page_table_a is the old kernel's own from the beginning, and leads V and F, the
                      function's own address, to the function

Rules: nothing here writes the current pgd: the routine at V does, instruction by instruction, while
it is watched.  What the current pgd has to be after that is laid nowhere.  What a kernel has in its
own image lies at the end of the host's private memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace

from tightrope.errors import DesignError
from tightrope.handover.designs import page_table_b
from tightrope.handover.laid import Laid
from tightrope.memory import PAGE_SIZE, Extent, Phys
from tightrope.model import Named, Plan, Tables, World
from tightrope.x86.paging import FORMATS, PRESENT, Format, Rights, leaf_bits, map_page
from tightrope.x86.tables import TableStore

PLANTED = Rights(writable=True, executable=True)
"""0x63 on every level, and 0x01 in a PDPTE, as 2.6.16 has it: executable where there is NX, too."""
TEXT = Rights(writable=False, executable=True)
"""The switching function has no stack and stores nothing."""


def current(plan: Plan, world: World, frames: Iterator[int]) -> Laid:
    """What the routine will have made of the current pgd, and what it makes it from."""
    fmt = FORMATS[plan.paging]
    live = bytearray(world.tables[world.pgd])
    table_b = page_table_b(plan, frames)
    if table_b is not None:
        live[: PAGE_SIZE // 2] = bytes(table_b.pages[table_b.root])[: PAGE_SIZE // 2]
        tables = {**world.tables, **table_b.pages, world.pgd: memoryview(bytes(live))}
        return Laid(table_a=Tables(root=world.pgd, pages=tables), table_b=table_b)
    # Level 1 first, the pages behind one another, as the routine expects them.
    lower = _static(world, fmt.leaf)
    tables = {**world.tables, world.pgd: memoryview(live)}
    table = int(world.pgd)
    pages = {frame: bytearray(PAGE_SIZE) for frame in lower}
    for level, below in enumerate(reversed(lower)):
        page = live if level == 0 else pages[table]
        bits = leaf_bits(fmt, fmt.leaf, PLANTED) if fmt.levels[level].rights else PRESENT
        _plant(page, fmt, level, plan.control_page, below | bits)
        table = below
    entry = plan.control_page | leaf_bits(fmt, fmt.leaf, PLANTED)
    _plant(pages[table], fmt, fmt.leaf, plan.control_page, entry)
    made = {frame: memoryview(bytes(page)) for frame, page in {**tables, **pages}.items()}
    return Laid(
        table_a=Tables(root=world.pgd, pages=made),
        table_b=None,
        levels=tuple(Phys(frame) for frame in lower),
    )


def in_image(plan: Plan, world: World, frames: Iterator[int]) -> Laid:
    """page_table_a in the kernel's image; page_table_b with the function's page added."""
    fmt = FORMATS[plan.paging]
    function = world.code_phys
    store = TableStore(fmt, iter(_static(world, 1 + 2 * fmt.leaf)).__next__)
    for address in (plan.relocation, function):
        map_page(store, fmt, store.root, address, function, TEXT, store.new_table)
    named = Named(extent=Extent.sized(function, PAGE_SIZE), what="the switching function")
    return Laid(
        table_a=Tables(root=store.root, pages=store.pages()),
        table_b=page_table_b(replace(plan, identity=(*plan.identity, named)), frames),
        reach=(named,),
        jumps_to=function,
    )


def _plant(page: bytearray, fmt: Format, level: int, address: int, entry: int) -> None:
    struct.pack_into(
        "<Q" if fmt.entry_size == 8 else "<I", page, _offset(fmt, level, address), entry
    )


def _offset(fmt: Format, level: int, address: int) -> int:
    return fmt.index(address, level) * fmt.entry_size


def _static(world: World, count: int) -> range:
    """The last pages of the old kernel's private memory.  Raises DesignError where they are
    taken."""
    private = world.host.private.page_aligned()
    first = private.end - count * PAGE_SIZE
    place = Extent(first, private.end)
    taken = [each.extent for each in world.pieces if each.extent.overlaps(place)]
    if taken:
        raise DesignError(
            f"the old kernel's private memory has no {count} pages left for tables in its image",
            source=world.host.source,
            field="private.size",
        )
    return range(first, private.end, PAGE_SIZE)
