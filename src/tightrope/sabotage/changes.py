"""What each sabotage changes: one thing in a host, a routine or a handover.

Rules: each function takes a finished value and gives a changed one; what is not there to be changed
raises BadInput with the reason.  The changing itself is `edits`; which rule has to find it is
`sabotages`.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.abi.elf import (
    CLASS_BITS,
    HEADER_SIZE,
    IDENT_CLASS,
    PROGRAM_HEADER_OFFSETS,
    PROGRAM_HEADER_SIZE,
)
from tightrope.abi.multiboot import LOADED_BY_1, LOADED_BY_2, Given
from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Extent, Phys, Virt, covered
from tightrope.model import (
    Handover,
    Host,
    Paging,
    Piece,
    PieceRole,
    Plan,
    Protocol,
    SegmentRole,
    Tables,
    XenCompat,
)
from tightrope.sabotage.edits import (
    control,
    edit_entry,
    edit_list,
    edit_segment,
    entry_of,
    patch,
    segment_of,
    virt,
    with_global,
    with_tables,
)
from tightrope.sabotage.xen import with_head
from tightrope.x86.cpu import CR4_PGE, EFER_NXE

LAST_ADDRESS_BIT = 51
"""The highest bit of an entry that any CPU has for an address (SDM 4.5)."""


def redirect_command_line(handover: Handover, target: int) -> Handover:
    """Send the command line's page to another destination."""
    line = segment_of(handover, SegmentRole.COMMAND_LINE)
    wanted = line.destination.start | 1

    def change(rows: list[list[int]]) -> None:
        for row in rows:
            if wanted in row:
                row[row.index(wanted)] = target | 1

    return edit_list(handover, change)


def control_page_destination(handover: Handover) -> Handover:
    return redirect_command_line(handover, handover.intent.control_page)


def list_destination(handover: Handover) -> Handover:
    pages = list(handover.page_list)
    # Where there is no list, editing it says so.
    return redirect_command_line(handover, pages[-1] if pages else handover.intent.control_page)


def source_order(handover: Handover) -> Handover:
    """The last page of the kernel is read from where its first page was just copied to."""
    kernel = handover.intent.segments[0]
    pages = len(kernel.destination.pages)
    if pages < 2:
        raise BadInput("the kernel is one page: it has no order", source="--sabotage")

    def change(rows: list[list[int]]) -> None:
        # Word 0 is the kernel's IND_DESTINATION; its last source is word `pages`, links not counted.
        row, column = divmod(pages, len(rows[0]) - 1)
        rows[row][column] = kernel.destination.start | 8

    return edit_list(handover, change)


def table_b_of(handover: Handover) -> Tables:
    """page_table_b, where there is one.  Raises BadInput."""
    if handover.page_table_b is None:
        raise BadInput("there is no page_table_b: paging is turned off", source="--sabotage")
    return handover.page_table_b


def overwrite_pgd(handover: Handover) -> Handover:
    """What Linux did before the thread: the identity map goes into the low half of the live pgd."""
    world = handover.world
    # A 32-bit kernel needs one only for the control page: paging is off when the copy begins.
    tables = handover.page_table_b or handover.page_table_a
    # PAE's pgd is four entries of eight bytes.
    half = 16 if handover.intent.paging is Paging.PAE else PAGE_SIZE // 2
    low = bytes(tables.pages[tables.root])[:half]
    high = bytes(world.tables[world.pgd])[half:]
    if low == bytes(world.tables[world.pgd])[:half]:
        raise BadInput("P lies in the upper half: the low one stays as it was", source="--sabotage")
    piece = Piece(phys=world.pgd, data=low + high, role=PieceRole.PLANTED)
    return replace(handover, extra=(*handover.extra, piece))


def with_pge(host: Host, plan: Plan) -> Host:
    """The same host, if it has global pages at all, and they are there when V is called."""
    if isinstance(plan.through, XenCompat):
        raise BadInput("the way out of long mode has dropped global entries", source="--sabotage")
    if not host.cr4 & CR4_PGE:
        raise BadInput("CR4.PGE is off already", source="--sabotage", field=host.source)
    return host


def global_at_p(host: Host, plan: Plan) -> Host:
    """The old kernel has a global mapping at the linear address P, to some other frame."""
    return with_global(with_pge(host, plan), Virt(plan.control_page))


def without_p(handover: Handover) -> Handover:
    """page_table_a without P, where that is another address than V."""
    if handover.intent.relocation == control(handover):
        raise BadInput("V and P are one address here: see no-v", source="--sabotage")
    return entry_of(control, lambda _entry: 0)(handover)


def shrink_table_b(handover: Handover) -> Handover:
    """page_table_b leaves out where the kernel goes."""
    kernel = handover.intent.segments[0].destination
    return edit_entry(handover, table_b_of(handover), kernel.start, lambda _entry: 0)


def unmap_top(handover: Handover) -> Handover:
    """page_table_b leaves out its own root, which is in it with 5 levels only."""
    tables = table_b_of(handover)
    return edit_entry(handover, tables, tables.root, lambda _entry: 0)


def mark_top(handover: Handover) -> Handover:
    """Bit 58, which a CPU ignores: _PAGE_BIT_NOPTISHADOW (Linux arch/x86, asm/pgtable_types.h)."""
    tables = table_b_of(handover)
    page = bytearray(tables.pages[tables.root])
    page[7] |= 1 << 58 - 56
    return with_tables(handover, tables.root, bytes(page))


def set_nx(handover: Handover) -> Handover:
    """NX in the entry for V; without EFER.NXE that bit is reserved, and another sabotage."""
    if not handover.registers.efer & EFER_NXE:
        raise BadInput("EFER.NXE is off: there is no NX", source="--sabotage")
    return entry_of(virt, lambda entry: entry | 1 << 63)(handover)


def set_in_pdpte(handover: Handover) -> Handover:
    """NX in page_table_a's PDPTE for V: execute-disable begins a level below it (SDM 4.4.1)."""
    tables = handover.page_table_a
    page = bytearray(tables.pages[tables.root])
    # The highest byte of the entry that linear bits 31:30 choose.
    page[8 * (handover.intent.relocation >> 30) + 7] |= 0x80
    return with_tables(handover, tables.root, bytes(page))


KEEP_PGE = patch(
    relocate_x86_64=("after_table_a", 3, b"\x25\x20\x10\x00\x00", b"\x25\xa0\x10\x00\x00"),
    relocate_xen=("after_table_a", 0, b"\xb8\x20\x00\x00\x00", b"\xb8\xa0\x00\x00\x00"),
    relocate_i386=("after_table_a", 3, b"\x83\xe0\x20", b"\x83\xe0\xa0"),
)
"""`and $CR4_KEPT` keeps PGE too; under Xen `mov` sets it."""
TOGGLE_LA57 = patch(
    relocate_x86_64=("after_table_a", 3, b"\x25\x20\x10\x00\x00", b"\x25\x20\x00\x00\x00")
)
"""`and` keeps PAE alone."""
CLEAR_PAE_FIRST = patch(
    relocate_i386=(
        "identity",
        0,
        # mov $0x33, %eax; mov %eax, %cr0; jmp; xor %eax, %eax; mov %eax, %cr4
        b"\xb8\x33\0\0\0\x0f\x22\xc0\xeb\0\x31\xc0\x0f\x22\xe0",
        b"\x31\xc0\x0f\x22\xe0\xb8\x33\0\0\0\x0f\x22\xc0\xeb\0",
    )
)


def set_reserved(handover: Handover) -> Handover:
    """The lowest address bit that the CPU does not have, in the entry for V."""
    bits = handover.host.cpu.physical_bits
    if bits > LAST_ADDRESS_BIT:
        raise BadInput(f"a CPU with {bits} address bits reserves none", source="--sabotage")
    return entry_of(virt, lambda entry: entry | 1 << bits)(handover)


def copy_outside(handover: Handover) -> Handover:
    """A list of one copy, out of the crash region into the first page of low memory.

    Low memory is what page_table_b maps outside the region; the list lies in the zeros at the end of
    the kernel's init_size, because it has to be mapped as well.
    """
    plan = handover.intent
    region = handover.host.crash_region
    if not plan.crash or region is None:
        raise BadInput("the plan is no crash plan: it may write anywhere", source="--sabotage")
    ram = handover.host.memory.ram
    outside = [
        named.extent
        for named in plan.identity
        if not region.overlaps(named.extent) and covered(named.extent, ram)
    ]
    kernel = plan.segments[0]
    if not outside or len(kernel.data) > kernel.destination.size - PAGE_SIZE:
        raise BadInput("there is no low memory, or no room for a list", source="--sabotage")
    place = Phys(kernel.destination.end - PAGE_SIZE)
    word = plan.word
    words = (outside[0].start | 1, plan.entry | 8, 4)
    data = b"".join(each.to_bytes(word, "little") for each in words).ljust(PAGE_SIZE, b"\0")
    return with_head(replace(handover, page_list={**handover.page_list, int(place): data}), place)


def stub_edit(handover: Handover, old: bytes, new: bytes, source: str) -> Handover:
    """The same handover with bytes of its entry stub replaced, which the plan then wants so."""

    def change(data: bytearray) -> None:
        at = data.find(old)
        if at < 0:
            raise BadInput("the entry stub is not the code that this sabotage knows", source=source)
        data[at : at + len(old)] = new

    return edit_segment(handover, SegmentRole.ENTRY_STUB, change, planned=True)


def leave_paging_on(handover: Handover) -> Handover:
    """A jump over all that leaves long mode, to where the stub loads the arguments."""
    plan = handover.intent
    if plan.entry_bits != 32 or not plan.paging.long_mode:
        raise BadInput("the entry does not leave long mode", source="--sabotage")
    # mov %eax, %cr0; jmp; ...; mov %eax, %cr4; mov %eax, %cr3 becomes jmp behind them.
    return stub_edit(handover, b"\x0f\x22\xc0\xeb\0\xb9", b"\xeb\x19\x90\x90\x90\xb9", "paging_off")


def wrong_magic(handover: Handover) -> Handover:
    """Multiboot2's word where Multiboot's belongs."""
    if handover.intent.protocol is not Protocol.MULTIBOOT:
        raise BadInput("only a Multiboot kernel is entered with its word", source="--sabotage")
    old, new = (each.to_bytes(8, "little") for each in (LOADED_BY_1, LOADED_BY_2))
    return stub_edit(handover, old, new, "word_eax")


def no_memory_map(handover: Handover) -> Handover:
    """The flag that says that there is a memory map, cleared."""

    def change(data: bytearray) -> None:
        data[0] &= ~Given.MEMORY_MAP & 0xFF

    return edit_segment(handover, SegmentRole.MULTIBOOT, change, planned=True)


def flip(data: bytearray) -> None:
    data[len(data) // 2] ^= 0x40


def point_elsewhere(data: bytearray) -> None:
    # The stub's last word is the address of boot_params.
    value = int.from_bytes(data[-8:], "little") + PAGE_SIZE
    data[-8:] = value.to_bytes(8, "little")


def interrupts_on(data: bytearray) -> None:
    # The stub clears the flags with its first popfq; sti in its place leaves interrupts on.
    at = data.find(b"\x9d")
    if at < 0:
        raise BadInput("the entry stub is not the code that this sabotage knows", source="popfq")
    data[at] = 0xFB


def no_backup(handover: Handover) -> Handover:
    """The rows of the entry stub's backup are gone, as if nothing were to be saved."""
    _saved(handover)

    def clear(data: bytearray) -> None:
        for each in handover.intent.backup:
            row = b"".join(n.to_bytes(8, "little") for n in (each.source.start, each.copy))
            at = data.index(row)
            data[at + 16 : at + 24] = bytes(8)

    return edit_segment(handover, SegmentRole.ENTRY_STUB, clear, planned=True)


def past_the_backup(handover: Handover) -> Handover:
    """The core header's file offsets into the backup become the saved memory's own addresses."""
    saved = _saved(handover)

    def lead(data: bytearray) -> None:
        bits = CLASS_BITS[data[IDENT_CLASS]]
        size, offset = PROGRAM_HEADER_SIZE[bits], PROGRAM_HEADER_OFFSETS[bits]
        width = bits // 8
        for row in range(HEADER_SIZE[bits], len(data), size):
            at, phys = row + offset["p_offset"], row + offset["p_paddr"]
            if int.from_bytes(data[phys : phys + width], "little") in saved:
                data[at : at + width] = data[phys : phys + width]

    return edit_segment(handover, SegmentRole.CORE_HEADER, lead, planned=True)


def _saved(handover: Handover) -> Extent:
    """Low memory as far as it is saved.  Raises BadInput where none is."""
    backup = handover.intent.backup
    if not backup:
        raise BadInput("the plan saves no low memory: see --backup", source="--sabotage")
    return Extent(backup[0].source.start, backup[-1].source.end)
