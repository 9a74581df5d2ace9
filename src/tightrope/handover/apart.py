"""The designs whose code at V is not what lies in the control page.

    in-place         Linux 2.6.16, before the thread.  x86_64: the low half of the current pgd is
                     overwritten with that of page_table_b, an identity map.  i386 and PAE: one entry for
                     the control page is planted in the current pgd.  Then the control page is called at
                     its physical address.  (Shared notes on kexec, 2.2; Linux 2.6.16
                     arch/i386/kernel/machine_kexec.c and arch/x86_64/kernel/machine_kexec.c.)
    split-function   Biederman's last proposal in the thread (26 May 2006): page_table_a may have to lead
                     V and P through the same entry, and P is known only when the image is loaded.  So
                     what switches tables is a function of its own that stays in the kernel's text,
                     mapped at V and at its own physical address F by tables that are there from the
                     beginning; when it is done it jumps to the control page.

    in-place         current pgd                 after the routine's stores
       V --> machine_kexec, in the text          V --> the same
       P --> whatever                            P --> control page

    split-function   current pgd     page_table_a     page_table_b, or paging off
       V -->         the function    the function     (not mapped)
       F -->         whatever        the function     the function
       P -->         whatever        (not mapped)     control page

Rules: nothing here writes the current pgd: the routine at V does, instruction by instruction, while it
is watched.  page_table_a of `in-place` is what the current pgd has to be after that, and is laid nowhere.
What a kernel has in its own image lies at the end of the host's private memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from tightrope.errors import PlanError
from tightrope.handover.designs import page_table_b
from tightrope.memory import PAGE_SIZE, Extent, Phys, Virt
from tightrope.model import Named, Paging, Piece, Plan, Tables, World
from tightrope.x86.paging import FORMATS, PRESENT, Format, Rights, leaf_bits, map_page
from tightrope.x86.tables import TableStore

IN_PLACE, SPLIT_FUNCTION = "in-place", "split-function"

PLANTED = Rights(writable=True, executable=True)
"""0x63 on every level, and 0x01 in a PDPTE, as 2.6.16 has it: executable where there is NX, too."""
TEXT = Rights(writable=False, executable=True)
"""The switching function has no stack and stores nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Apart:
    """A design laid out: the plan as it needs it, its tables, and what the call hands over."""

    plan: Plan
    table_a: Tables
    table_b: Tables | None
    static: tuple[Piece, ...] = ()
    """What the old kernel has in its image for this, before any image is loaded."""
    jumps_to: Phys | None = None
    """Where step 4 lands, when that is not the control page."""
    arguments: Mapping[str, int] = field(default_factory=dict)


def text_at_v(plan: Plan) -> Virt:
    """V for code that stays in the text: the host's, or the text's last page where it has none."""
    host = plan.host
    if host.relocation is not None:
        return host.relocation
    return Virt(host.text.virt + host.text.size - PAGE_SIZE)


def in_place(plan: Plan, world: World, frames: Iterator[int]) -> Apart:
    """What the routine will have made of the current pgd, and what it makes it from."""
    fmt = FORMATS[plan.host.paging]
    live = bytearray(world.tables[world.pgd])
    arguments = {"rcx": int(plan.host.direct_map.virt)}
    if plan.host.paging.long_mode:
        table_b = page_table_b(plan, frames)
        live[: PAGE_SIZE // 2] = bytes(table_b.pages[table_b.root])[: PAGE_SIZE // 2]
        tables = {**world.tables, **table_b.pages, world.pgd: memoryview(bytes(live))}
        return Apart(
            plan=plan,
            table_a=Tables(root=world.pgd, pages=tables),
            table_b=table_b,
            arguments=arguments,
        )
    # Level 1 first, the pages behind one another, as the routine expects them.
    lower = _static(world, 2 if plan.host.paging is Paging.PAE else 1)
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
    return Apart(
        plan=plan,
        table_a=Tables(
            root=world.pgd,
            pages={frame: memoryview(bytes(page)) for frame, page in {**tables, **pages}.items()},
        ),
        table_b=None,
        static=tuple(
            Piece(phys=Phys(frame), data=bytes(PAGE_SIZE), what="the old kernel's pgtable_level")
            for frame in lower
        ),
        arguments=arguments | {"rbx": lower[0], "rax": int(plan.relocation)},
    )


def split_function(plan: Plan, world: World, frames: Iterator[int]) -> Apart:
    """page_table_a in the kernel's image; page_table_b with the function's page added."""
    fmt = FORMATS[plan.host.paging]
    function = world.code_phys
    own = iter(_static(world, 1 + 2 * fmt.leaf))
    store = TableStore(fmt, own.__next__)
    for address in (plan.relocation, function):
        map_page(store, fmt, store.root, address, function, TEXT, store.new_table)
    table_a = Tables(root=store.root, pages=store.pages())
    named = Named(extent=Extent.sized(function, PAGE_SIZE), what="the switching function")
    plan = replace(plan, identity=(*plan.identity, named))
    where = {"r9": int(function)} if plan.host.paging.long_mode else {"rbx": int(function)}
    if not plan.host.paging.long_mode:
        where["rax"] = int(plan.relocation)
    return Apart(
        plan=plan,
        table_a=table_a,
        table_b=page_table_b(plan, frames) if plan.host.paging.long_mode else None,
        static=tuple(
            Piece(phys=Phys(frame), data=page, what="page_table_a, in the old kernel's image")
            for frame, page in table_a.pages.items()
        ),
        jumps_to=function,
        arguments={"rcx": table_a.root, **where},
    )


def _plant(page: bytearray, fmt: Format, level: int, address: int, entry: int) -> None:
    struct.pack_into(
        "<Q" if fmt.entry_size == 8 else "<I", page, _offset(fmt, level, address), entry
    )


def _offset(fmt: Format, level: int, address: int) -> int:
    return fmt.index(address, level) * fmt.entry_size


def _static(world: World, count: int) -> range:
    """The last pages of the old kernel's private memory.  Raises PlanError where they are taken."""
    private = world.host.private.page_aligned()
    first = private.end - count * PAGE_SIZE
    place = Extent(first, private.end)
    taken = [each.extent for each in world.pieces if each.extent.overlaps(place)]
    if taken or first < private.start:
        raise PlanError(
            f"the old kernel's private memory has no {count} pages left for tables in its image",
            source=world.host.source,
            field="private.size",
        )
    return range(first, private.end, PAGE_SIZE)


DESIGNS: Mapping[str, Callable[[Plan, World, Iterator[int]], Apart]] = {
    IN_PLACE: in_place,
    SPLIT_FUNCTION: split_function,
}
"""Each by its name on the command line."""
