"""A hypervisor with a dom0, laid out: what a CPU finds when the hypervisor calls V.

    current pgd: dom0's, because a hypercall switches no tables; the hypervisor's own when it
    crashes

      dom0's root   |  dom0's kernel, scattered frames  |  the hypervisor's slots  --+
      Xen's root    |                                   |  the hypervisor's slots  --+--> text, direct
                                                                                          map,
                                                                                          fixmaps
    last page of `private`     struct xen_kexec_image as the hypervisor keeps it: v1's page_list

Sources: machine_kexec_load and machine_kexec of Xen 3.0.4 (xen/arch/x86/machine_kexec.c and
asm-x86/x86_{32,64}/kexec.h, commits 6dd60f6880 and 6fc8621b96); xen/include/public/kexec.h.

Rules: the hypervisor's own side is `world.lay`; this file adds the fixmaps, dom0, and what the call
hands over in memory.  dom0's tables hold machine addresses, and lie where its p2m has their frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

import numpy as np

from tightrope import routines
from tightrope.errors import HostError
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent, Phys, PseudoPhys, Virt
from tightrope.model import (
    Code,
    Dom0,
    Host,
    LowMapping,
    Piece,
    PieceRole,
    Plan,
    UnderXen,
    World,
    XenCompat,
    XenCrash,
    XenV1,
    XenV2,
)
from tightrope.model.modes import MODES
from tightrope.world import world
from tightrope.world.xen import leave as xen_leave
from tightrope.world.xen import notes as xen_notes
from tightrope.x86.cpu import CR4_PAE
from tightrope.x86.paging import PRESENT, Rights
from tightrope.x86.tables import TableStore

SELECTORS = {True: (0xE008, 0), False: (0xE008, 0xE010)}
"""__HYPERVISOR_CS and __HYPERVISOR_DS, in long mode and without it (asm-x86/config.h)."""
HAS_PAE = 1
"""The fourth argument of a 32-bit v1 call: cpu_has_pae."""


def lay_xen(plan: Plan, load: UnderXen, code: Code, host: Host) -> World:
    """The hypervisor and dom0 of a plan, with `code` at V.

    `host` is the plan's unless a sabotage says otherwise.  Raises HostError as `world.lay` does,
    when dom0's tables do not fit, and when something of dom0's lies in a hole of its p2m.
    """
    called, virt, low = code, plan.relocation, host.low_mappings
    kept, what = 1, "page_list"
    if isinstance(load, XenCompat):
        called, virt = routines.read(routines.LEAVE_XEN), load.leaves
        kept, what = xen_leave.PAGES, "the way out of long mode"
    elif isinstance(load, XenV1):
        low += tuple(
            LowMapping(virt=each.fixmap, phys=each.machine, size=PAGE_SIZE, is_global=host.cpu.pge)
            for each in load.pages
            if each.fixmap is not None
        )
    end = Phys(host.private.end - kept * PAGE_SIZE)
    if end <= host.private.start:
        raise HostError(
            f"{host.private} has no room for {what}, {kept * PAGE_SIZE:#x} bytes",
            source=host.source,
            field="private.size",
        )
    private = Extent(host.private.start, end)
    own = replace(host, low_mappings=low, private=private, crash_notes=())
    base = world.lay(own, called, virt, selectors=SELECTORS[host.paging.long_mode])
    dom0 = load.xen.dom0
    root, tables = _dom0_tables(host, dom0, base)
    crashed = load.crash is XenCrash.HYPERVISOR
    pgd = base.pgd if crashed else root
    out = replace(
        base,
        host=host,
        pgd=pgd,
        tables={**base.tables, **tables},
        dom0_tables=frozenset(tables),
        laid=(*base.laid, _own_code(dom0, code)),
        registers=replace(base.registers, cr3=pgd),
    )
    match load:
        case XenCompat():
            out = _called_out(plan, load, host, out)
        case XenV1():
            out = _called(plan, load, out, end)
        case XenV2():
            pass
        case _:
            assert_never(load)
    notes = tuple(xen_notes.pieces(host, load.xen, base.pgd, out.registers))
    return replace(out, laid=(*out.laid, *notes))


def _called_out(plan: Plan, load: XenCompat, host: Host, base: World) -> World:
    """v1's call by a 64-bit hypervisor of 32-bit code: of its own code first, which leaves long
    mode."""
    virt = Virt(base.registers.rip)
    laid = xen_leave.lay(plan, load, host, virt, base.code_phys, Phys(host.private.end))
    pieces = (
        replace(each, role=PieceRole.WAY_OUT) if each.phys == base.code_phys else each
        for each in base.laid
    )
    return replace(
        base,
        laid=(*pieces, *laid.pieces),
        code_phys=plan.control_page,
        way_out=laid.way_out,
        arguments=laid.read,
        registers=replace(base.registers, general={**base.registers.general, **laid.registers}),
    )


def _dom0_tables(host: Host, dom0: Dom0, base: World) -> tuple[Phys, dict[int, memoryview]]:
    """dom0's root and its tables: its kernel, and the hypervisor's slots beside it."""
    fmt = MODES[host.paging].format
    store = TableStore(fmt, _table_frames(host, dom0).__next__)
    pages = dom0.text_size // PAGE_SIZE
    first = dom0.text_start >> PAGE_SHIFT
    frames = dom0.p2m.to_machine(np.arange(first, first + pages, dtype=np.int64))
    # A 64-bit PV kernel runs in ring 3, a 32-bit one in ring 1, which is supervisor to the tables.
    store.map_frames(dom0.text, frames, Rights(user=dom0.bits == 64))
    _share(store, base, int(base.pgd), int(store.root), 0)
    return Phys(store.root), store.pages()


def _table_frames(host: Host, dom0: Dom0) -> Iterator[int]:
    """Machine addresses of dom0's table frames, those that a 32-bit CR3 can hold first."""
    first, last = dom0.tables.pages.start, dom0.tables.pages.stop
    frames = dom0.p2m.to_machine(np.arange(first, last, dtype=np.int64))
    if not host.paging.long_mode:
        frames = frames[np.argsort(frames >= 1 << 20, kind="stable")]
    yield from (frames << PAGE_SHIFT).tolist()
    raise HostError(
        f"{dom0.tables} is too small for dom0's page tables",
        source=host.source,
        field="xen.dom0.tables.size",
    )


def _share(store: TableStore, base: World, theirs: int, ours: int, level: int) -> None:
    """Enter what the hypervisor's table has into dom0's at the same level, dom0's own apart."""
    fmt = store.format
    rows = np.frombuffer(base.tables[theirs], f"<u{fmt.entry_size}")
    for slot in np.nonzero(rows & np.asarray(PRESENT, rows.dtype))[0].tolist():
        entry, mine = int(rows[slot]), store.entry(ours, slot)
        if not mine & PRESENT:
            store.set_entry(ours, slot, entry)
        elif level < fmt.leaf:
            _share(store, base, entry & fmt.address.mask, mine & fmt.address.mask, level + 1)
        else:
            raise HostError(
                "dom0's kernel lies where the hypervisor is",
                source=base.host.source,
                field="xen.dom0.text",
            )


def _own_code(dom0: Dom0, code: Code) -> Piece:
    """dom0's own page of relocation code, at V of bare Linux: nobody calls it there."""
    pseudo = PseudoPhys(dom0.relocation - dom0.text + dom0.text_start)
    return Piece(
        phys=dom0.p2m.machine(pseudo, "dom0's relocation code"),
        data=code.data.ljust(PAGE_SIZE, b"\0"),
        role=PieceRole.DOM0_CODE,
    )


def _called(plan: Plan, load: XenV1, base: World, image: Phys) -> World:
    """v1's call: the image in the hypervisor's memory, and on i386 four words on the stack."""
    host = plan.host
    kept = xen_leave.page_array(plan, load)
    pieces = [
        *base.laid,
        Piece(phys=image, data=kept, role=PieceRole.PAGE_ARRAY),
    ]
    arguments = [Extent.sized(image, len(kept))]
    at = host.direct_map.virt + image
    registers = base.registers
    if host.paging.long_mode:
        general = {**registers.general, "rdi": plan.head, "rsi": at, "rdx": plan.entry}
    else:
        number = next(n for n, p in enumerate(pieces) if p.role is PieceRole.STACK)
        stack = pieces[number]
        has_pae = HAS_PAE if host.cr4 & CR4_PAE else 0
        words = struct.pack("<4I", plan.head, at, plan.entry, has_pae)
        lower = Phys(stack.phys - len(words))
        pieces[number] = replace(
            stack, phys=lower, data=bytes(stack.data[:4]) + words + bytes(stack.data[4:])
        )
        arguments.append(Extent.sized(lower + 4, len(words)))
        general = {**registers.general, "rsp": registers.general["rsp"] - len(words)}
    return replace(
        base,
        laid=tuple(pieces),
        arguments=tuple(arguments),
        registers=replace(registers, general=general),
    )
