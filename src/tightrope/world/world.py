"""A complete old kernel, laid out: what a CPU finds when `machine_kexec` calls V.

    private extent of the host (physical; the old kernel reaches it through its direct map)

      start + 0x0000   gdt        Linux's selectors
      start + 0x1000   idt        256 gates, each to a handler in the kernel text
      start + 0x2000   stack      four pages, the return address of the call on top
      start + 0x6000   tables     the current pgd first

    crash notes, where the host has them      registers and vmcoreinfo, see `notes`
    two words of the BIOS data area           see `bios`

Rules: everything is derived from the `Host`; what comes from outside is the relocation code, which
a kernel has in its text at V, and V itself, which only a plan knows where it is in the direct map.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from tightrope.errors import HostError
from tightrope.memory import PAGE_SIZE, Extent, Phys, Virt, subtract
from tightrope.model import Code, Host, Piece, PieceRole, Registers, World, once_a_host
from tightrope.model.modes import MODES, text_page_size
from tightrope.world import bios, notes
from tightrope.x86.cpu import (
    GENERAL,
    INTERRUPT_GATE,
    RFLAGS_FIXED,
    RFLAGS_IF,
    Gate,
    flat_descriptor,
)
from tightrope.x86.paging import Rights

GDT_SLOTS = 16
SELECTORS = {64: (0x10, 0x18), 32: (0x60, 0x68)}
"""__KERNEL_CS and __KERNEL_DS of a 64-bit and of a 32-bit Linux (asm/segment.h)."""
GATES = 256
LEFTOVER = {64: 0x0A57_E1F7_0B0E_C0DB, 32: 0x0B0E_C0DB}
"""What a register of each width is left with, times its number; each byte of a product is
seldom 0."""
STACK_PAGES = 4


def lay(
    host: Host,
    code: Code,
    relocation: Virt | None = None,
    *,
    selectors: tuple[int, int] | None = None,
) -> World:
    """The old kernel of `host`, with `code` at V: `relocation`, or where the host has it.

    `selectors` are those of code and data, Linux's by default; 0 for data leaves SS null, which
    64-bit code may.  The gdt begins so far below its page that both selectors lie in that page: a
    hypervisor's gdt has 14 pages of its guest's descriptors before its own.  Raises HostError when
    `private` or a crash note is too small, or when V is not mapped or not known.
    """
    relocation = host.relocation if relocation is None else relocation
    if relocation is None:
        raise HostError(
            "V is in the direct map, and only a plan knows where",
            source=host.source,
            field="relocation",
        )
    bits = 64 if MODES[host.paging].efer_on else 32
    word = bits // 8
    direct = host.direct_map.virt
    gdt, idt, stack = (host.private.start + at * PAGE_SIZE for at in range(3))
    first_table = _first_table(host)
    code_phys = _behind(host, relocation)
    stack_top = stack + STACK_PAGES * PAGE_SIZE - 2 * word
    # The address that `call V` pushed: some place in the kernel text behind machine_kexec.
    return_address = host.text.virt + PAGE_SIZE
    code_selector, data_selector = selectors or SELECTORS[bits]
    guests = code_selector & -PAGE_SIZE
    own = {bits: (code_selector - guests, data_selector and data_selector - guests)}
    pieces = (
        Piece(
            phys=Phys(gdt),
            data=_gdt(own if selectors else SELECTORS),
            role=PieceRole.GDT,
        ),
        Piece(phys=Phys(idt), data=_idt(host, bits, code_selector), role=PieceRole.IDT),
        Piece(
            phys=Phys(stack_top),
            data=return_address.to_bytes(word, "little").ljust(2 * word, b"\0"),
            role=PieceRole.STACK,
        ),
        Piece(
            phys=code_phys,
            data=code.data.ljust(PAGE_SIZE, b"\0"),
            role=PieceRole.CODE_AT_V,
        ),
    )
    general = _left_behind(bits)
    general["rsp"] = direct + stack_top
    # A 32-bit kernel has flat data segments; a 64-bit one leaves all but SS null.
    others = 0 if bits == 64 else data_selector
    registers = Registers(
        general=general,
        rip=relocation,
        # machine_kexec has interrupts off; the routine must not depend on it, so they are on.
        rflags=RFLAGS_FIXED | RFLAGS_IF,
        cr0=host.cr0,
        cr2=0,
        cr3=first_table,
        cr4=host.cr4,
        efer=host.efer,
        segments={
            "cs": code_selector,
            "ss": data_selector,
            **dict.fromkeys(("ds", "es", "fs", "gs"), others),
        },
        gdt=(direct + gdt - guests, guests + GDT_SLOTS * 8 - 1),
        idt=(direct + idt, GATES * 2 * word - 1),
    )
    return World(
        host=host,
        laid=(
            *pieces,
            *notes.pieces(host, Phys(first_table), registers),
            # Relocation code in page 0 has nothing of a BIOS's in it.
            *(
                each
                for each in bios.pieces(host.memory)
                if each.phys // PAGE_SIZE * PAGE_SIZE != code_phys
            ),
        ),
        pgd=Phys(first_table),
        tables=dict(_tables(host)),
        code_phys=code_phys,
        registers=registers,
        stack=Extent.sized(stack, STACK_PAGES * PAGE_SIZE),
    )


def _left_behind(bits: int) -> dict[str, int]:
    """General registers as C code leaves them: something, and in each something else.

    A calling convention says nothing of those that are no arguments, so a word that gets through
    the walk from one of them is nobody's zero.  No value is an address: whoever follows one faults.
    """
    wide = bits == 64
    return {
        name: 0 if not wide and name[1:].isdigit() else (number + 1) * LEFTOVER[bits]
        for number, name in enumerate(GENERAL)
    }


def _behind(host: Host, virt: Virt) -> Phys:
    """The frame that the old kernel has at V."""
    text = host.text
    if virt in Extent.sized(text.virt, text.size):
        return Phys(virt - text.virt + text.phys)
    for each in host.low_mappings:
        if virt in Extent.sized(each.virt, each.size):
            return Phys(virt - each.virt + each.phys)
    phys = virt - host.direct_map.virt
    if 0 <= phys < host.direct_map.size:
        return Phys(phys)
    raise HostError(f"V = {virt:#x} is not mapped", source=host.source, field="relocation")


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


def _first_table(host: Host) -> int:
    return host.private.start + (2 + STACK_PAGES) * PAGE_SIZE


@once_a_host
def _tables(host: Host) -> Mapping[int, memoryview]:
    """The current pgd: text in large global pages, the direct map, and what else the host lists."""
    from tightrope.x86.tables import TableStore

    fmt = MODES[host.paging].format
    store = TableStore(fmt, _frames(host, _first_table(host)).__next__)
    large = text_page_size(host.paging, pse=host.cpu.pse)
    is_global = host.cpu.pge
    text = Extent.sized(host.text.phys, host.text.size)
    store.map_extent(
        host.text.virt,
        text,
        Rights(writable=False, is_global=is_global),
        page_sizes=tuple(dict.fromkeys((large, PAGE_SIZE))),
    )
    pgd = Phys(_first_table(host))
    image = notes.pgd_in_image(host, pgd)
    if image is not None:
        store.map_extent(
            image,
            Extent.sized(pgd, PAGE_SIZE),
            Rights(executable=not host.cpu.nx, is_global=is_global),
            page_sizes=(PAGE_SIZE,),
        )
    sizes = tuple(
        size
        for size in fmt.page_sizes(gbpages=host.cpu.gbpages)
        if size <= host.direct_map.page_size
    )
    direct = host.direct_map
    # On i386 the text is a part of the direct map: what is mapped there stays as it is.
    covered = [text] if direct.virt + text.start == host.text.virt else []
    low = [
        Extent(ram.start, min(ram.end, direct.size))
        for ram in host.memory.ram
        if ram.start < direct.size
    ]
    for ram in subtract((each.page_aligned() for each in low), covered):
        try:
            store.map_extent(
                direct.virt + ram.start,
                ram,
                Rights(
                    # V in the direct map: Linux makes the control page executable (set_memory_x).
                    executable=not host.cpu.nx or host.relocation is None,
                    is_global=is_global,
                ),
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


def _gdt(selectors: Mapping[int, tuple[int, int]]) -> bytes:
    """Flat segments at the offsets of each width's code and data."""
    slots = [0] * GDT_SLOTS
    if selectors is SELECTORS:
        slots[1] = flat_descriptor(code=True, bits=32)
    for bits, (code, data) in selectors.items():
        slots[code >> 3] = flat_descriptor(code=True, bits=bits)
        if data:
            slots[data >> 3] = flat_descriptor(code=False, bits=32)
    return struct.pack(f"<{GDT_SLOTS}Q", *slots)


def _idt(host: Host, bits: int, selector: int) -> bytes:
    """Interrupt gates, ring 0; every handler is the same place in the kernel text."""
    gate = Gate(handler=host.text.virt + 2 * PAGE_SIZE, selector=selector, type=INTERRUPT_GATE)
    return gate.encode(long_mode=bits == 64) * GATES
