"""A 64-bit hypervisor's way to a 32-bit dom0's code: two small trees and a page of words, laid out
at load.

    wide     4 levels   V' and T -> the code that leaves long mode, W -> the words
    narrow   PAE        T and W to themselves, each page of page_list to the address in its odd slot

    V' is where the hypervisor's text has that code, T its frame, W the words; T and W lie below 4
    GiB.

Xen's own (x86_64/compat_kexec.S, commit 18a6498ae3, its tables static) puts all RAM below 4 GiB,
each byte to itself, in both trees, writes a slot of its own idle tables and a list of 32-bit words
when it is called, and counts on lying low.  Here the trees map what is used, and nothing is written
at the call.

Rules: as `xen_world`.  Whatever is read on the way is here, and the frames are the end of
`private`.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tightrope import routines
from tightrope.abi import xen as abi
from tightrope.errors import HostError
from tightrope.memory import PAGE_SIZE, Extent, Phys, Virt
from tightrope.model import Code, Host, PageList, Piece, PieceRole, Plan, Tables, WayOut, XenCompat
from tightrope.x86.cpu import EFER_NXE
from tightrope.x86.paging import FORMATS, Rights, map_page
from tightrope.x86.tables import TableStore

PAGES = 32
"""The words and the tables of both trees: at most 8 of 4 levels and 13 of PAE."""
CODE_SELECTOR = 0x10
GDTR, IDTR, FAR, STACK = 0x100, 0x110, 0x120, 0xFE0
"""Where the routine looks for what in the words: see routines/leave_xen.S."""
HAS_PAE = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """A way out of long mode, its bytes, and what of them is read."""

    way_out: WayOut
    pieces: tuple[Piece, ...]
    read: tuple[Extent, ...]
    """page_list first, the arguments of the call last."""
    registers: dict[str, int]


def lay(plan: Plan, load: XenCompat, host: Host, virt: Virt, frame: Phys, end: Phys) -> Laid:
    """The way out whose code is at `virt`, in `frame`; the PAGES below `end` are for it.

    Raises HostError for what lies where 32-bit code cannot reach.
    """
    code = routines.read(routines.LEAVE_XEN)
    if max(frame, end) > 1 << 32:
        raise HostError(
            f"the code that leaves long mode lies at {frame:#x}, its words below {end:#x}: paging is"
            " off in the middle of it, and all has to be below 4 GiB",
            source=host.source,
            field="text.phys" if frame >> 32 else "private",
            limit=1 << 32,
        )
    words = Phys(end - PAGE_SIZE)
    frames = iter(range(end - PAGES * PAGE_SIZE, words, PAGE_SIZE))
    readable = Rights(writable=True, executable=not host.efer & EFER_NXE)
    runs = Rights(writable=False, executable=True)
    both = Rights(writable=True, executable=True)
    own = [(virt, frame, runs), (Virt(frame), frame, runs), (Virt(words), words, readable)]
    listed = [
        (each.fixmap, Phys(each.machine), both) for each in load.pages if each.fixmap is not None
    ]
    trees = []
    for name, wanted in (("x86_64", own), ("pae", [*own[1:], *listed])):
        fmt = FORMATS[name]
        store = TableStore(fmt, frames.__next__)
        for at, phys, rights in wanted:
            map_page(store, fmt, store.root, at, phys, rights, store.new_table)
        trees.append(Tables(root=store.root, pages=store.pages()))
    way_out = WayOut(virt=virt, code=frame, words=words, wide=trees[0], narrow=trees[1])
    pieces, read = _words(plan, load, way_out, code)
    called = int.from_bytes(pieces[0].data[4:8], "little")
    return Laid(
        way_out=way_out,
        pieces=tuple(pieces),
        read=read,
        registers={
            "rdi": called,
            "rsi": int(trees[0].root),
            "rdx": int(trees[1].root),
            "rcx": int(words),
        },
    )


def _words(
    plan: Plan, load: XenCompat, way: WayOut, code: Code
) -> tuple[list[Piece], tuple[Extent, ...]]:
    """The page W in pieces, and each but the return address as an extent that is read."""
    at = way.words
    gdt, size = way.code + code.symbols["gdt"], code.symbols["gdt_end"] - code.symbols["gdt"]
    rows = [
        (0, page_array(plan, load), PieceRole.PAGE_ARRAY),
        (GDTR, struct.pack("<HQ", size - 1, gdt), PieceRole.WAY_OUT_GDTR),
        (IDTR, struct.pack("<HQ", 0, 0), PieceRole.WAY_OUT_IDTR),
        (
            FAR,
            struct.pack("<QQ", way.code + code.symbols["compatibility"], CODE_SELECTOR),
            PieceRole.WAY_OUT_FAR,
        ),
        (
            STACK,
            struct.pack("<5I", 0, plan.head, at, plan.entry, HAS_PAE),
            PieceRole.WAY_OUT_STACK,
        ),
    ]
    pieces = [Piece(phys=Phys(at + offset), data=data, role=role) for offset, data, role in rows]
    read = [each.extent for each in pieces[:-1]]
    stack = pieces[-1].extent
    own = Extent.sized(gdt, size)
    return pieces, (*read, own, Extent(stack.start + 4, stack.end))


def page_array(plan: Plan, load: PageList) -> bytes:
    """page_list as the hypervisor keeps it: machine addresses in the even slots, its own in the
    odd."""
    slots = [0] * abi.NO_PAGES
    for each in load.pages:
        slots[each.slot] = each.machine
        if each.fixmap is not None:
            slots[each.slot + 1] = each.fixmap
    layout = abi.KEXEC_LOAD_V1 if plan.paging.long_mode else abi.KEXEC_LOAD_V1_I386
    packed = layout.pack(
        page_list=tuple(slots), indirection_page=plan.head, start_address=plan.entry
    )
    return packed[layout.offset("page_list") :]
