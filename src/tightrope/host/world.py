"""A complete old kernel, laid out: what a CPU finds when `machine_kexec` calls V.

    private extent of the host (physical; the old kernel reaches it through its direct map)

      start + 0x0000   gdt        Linux's selectors: 0x10 code, 0x18 data
      start + 0x1000   idt        256 gates, each to a handler in the kernel text
      start + 0x2000   stack      four pages, the return address of the call on top
      start + 0x6000   tables     the current pgd first

Rules: everything is derived from the `Host`; the only bytes that come from outside are those of the
relocation code, because a kernel has it in its text at V.  Nothing here knows a plan.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tightrope.errors import HostError
from tightrope.memory import PAGE_SIZE, Extent, Phys, union
from tightrope.model import Code, Host, Piece, Registers, World
from tightrope.x86.cpu import GENERAL, RFLAGS_FIXED, RFLAGS_IF, flat_descriptor
from tightrope.x86.paging import X86_64, Rights

GDT_SLOTS = 16
KERNEL_CS, KERNEL_DS = 0x10, 0x18
GATES = 256
INTERRUPT_GATE = 0x8E
"""Present, ring 0, 64-bit interrupt gate (SDM figure 6-8)."""
STACK_PAGES = 4


def lay(host: Host, code: Code) -> World:
    """The old kernel of `host`, with `code` at V.

    Raises HostError when `private` is too small, or when two mappings want one linear address.
    """
    direct = host.direct_map.virt
    gdt, idt, stack = (host.private.start + at * PAGE_SIZE for at in range(3))
    first_table = stack + STACK_PAGES * PAGE_SIZE
    frames = _frames(host, first_table)
    tables = _tables(host, frames)
    pgd = Phys(first_table)
    code_phys = Phys(host.relocation - host.text.virt + host.text.phys)
    stack_top = stack + STACK_PAGES * PAGE_SIZE - 16
    # The address that `call V` pushed: some place in the kernel text behind machine_kexec.
    return_address = host.text.virt + PAGE_SIZE
    pieces = (
        Piece(phys=Phys(gdt), data=_gdt(), what="the old kernel's gdt"),
        Piece(phys=Phys(idt), data=_idt(host), what="the old kernel's idt"),
        Piece(
            phys=Phys(stack_top),
            data=struct.pack("<QQ", return_address, 0),
            what="the old kernel's stack",
        ),
        Piece(
            phys=code_phys,
            data=code.data.ljust(PAGE_SIZE, b"\0"),
            what="the old kernel's relocation code at V",
        ),
        *(
            Piece(phys=Phys(frame), data=page, what="the old kernel's page tables")
            for frame, page in tables.items()
        ),
    )
    general = dict.fromkeys(GENERAL, 0)
    general["rsp"] = direct + stack_top
    return World(
        host=host,
        pieces=pieces,
        pgd=pgd,
        tables=tables,
        code_phys=code_phys,
        registers=Registers(
            general=general,
            rip=host.relocation,
            # machine_kexec has interrupts off; the routine must not depend on it, so they are on.
            rflags=RFLAGS_FIXED | RFLAGS_IF,
            cr0=host.cr0,
            cr2=0,
            cr3=pgd,
            cr4=host.cr4,
            efer=host.efer,
            segments={
                "cs": KERNEL_CS,
                "ss": KERNEL_DS,
                **dict.fromkeys(("ds", "es", "fs", "gs"), 0),
            },
            gdt=(direct + gdt, GDT_SLOTS * 8 - 1),
            idt=(direct + idt, GATES * 16 - 1),
        ),
    )


def _frames(host: Host, first: int) -> Iterator[int]:
    at = first
    while True:
        if at + PAGE_SIZE > host.private.end:
            raise HostError(
                f"{host.private} is too small for the old kernel's page tables: give it more,"
                " or larger pages in [direct_map]",
                source=host.source,
                field="private.size",
            )
        yield at
        at += PAGE_SIZE


def _tables(host: Host, frames: Iterator[int]) -> dict[int, memoryview]:
    """The current pgd: text in 2 MiB global pages, the direct map, and what else the host lists."""
    from tightrope.x86.tables import TableStore

    store = TableStore(X86_64, frames.__next__)
    large = 1 << 21
    is_global = host.cpu.pge
    store.map_extent(
        host.text.virt,
        Extent.sized(host.text.phys, host.text.size),
        Rights(writable=False, is_global=is_global),
        page_sizes=(large, PAGE_SIZE),
    )
    sizes = tuple(
        size
        for size in X86_64.page_sizes(gbpages=host.cpu.gbpages)
        if size <= host.direct_map.page_size
    )
    # Two pieces of RAM may share a page, so pages are merged before they are mapped.
    for ram in union(each.page_aligned() for each in host.memory.ram):
        try:
            store.map_extent(
                host.direct_map.virt + ram.start,
                ram,
                Rights(executable=not host.cpu.nx, is_global=is_global),
                page_sizes=sizes,
            )
        except ValueError as err:
            raise HostError(
                f"the direct map of {ram} overlaps the kernel text: {err}",
                source=host.source,
                field="direct_map.virt",
            ) from err
    for mapping in host.low_mappings:
        try:
            store.map_extent(
                mapping.virt,
                Extent.sized(mapping.phys, mapping.size),
                Rights(is_global=mapping.is_global),
                page_sizes=(PAGE_SIZE,),
            )
        except ValueError as err:
            raise HostError(
                f"{mapping.virt:#x} is mapped already: {err}", source=host.source, field="mapping"
            ) from err
    return store.pages()


def _gdt() -> bytes:
    slots = [0] * GDT_SLOTS
    slots[1] = flat_descriptor(code=True, bits=32)
    slots[KERNEL_CS >> 3] = flat_descriptor(code=True, bits=64)
    slots[KERNEL_DS >> 3] = flat_descriptor(code=False, bits=32)
    return struct.pack(f"<{GDT_SLOTS}Q", *slots)


def _idt(host: Host) -> bytes:
    """Gates as SDM figure 6-8 draws them; every handler is the same place in the kernel text."""
    handler = host.text.virt + 2 * PAGE_SIZE
    gate = struct.pack(
        "<HHBBHII",
        handler & 0xFFFF,
        KERNEL_CS,
        0,
        INTERRUPT_GATE,
        handler >> 16 & 0xFFFF,
        handler >> 32,
        0,
    )
    return gate * GATES
