"""The sabotages: what each does, and the rule and step that have to find it.

Rules: a sabotage is data and a small function; the changing itself is `edits`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Phys, Virt, covered
from tightrope.model import Code, Handover, Host, LowMapping, Piece, Plan, Step, Tables
from tightrope.sabotage.edits import (
    control,
    edit_entry,
    edit_list,
    edit_segment,
    entry_of,
    patch,
    virt,
)
from tightrope.x86.cpu import CR4_PGE, EFER_LMA, EFER_NXE

LAST_ADDRESS_BIT = 51
"""The highest bit of an entry that any CPU has for an address (SDM 4.5)."""


def _same_host(host: Host, _plan: Plan) -> Host:
    return host


def _same_code(code: Code) -> Code:
    return code


def _same_handover(handover: Handover) -> Handover:
    return handover


@dataclass(frozen=True, slots=True, kw_only=True)
class Sabotage:
    """One way to fall: `rule` and `step` are those of the first finding that has to come of it."""

    name: str
    says: str
    rule: str
    step: Step
    host: Callable[[Host, Plan], Host] = _same_host
    code: Callable[[Code], Code] = _same_code
    handover: Callable[[Handover], Handover] = _same_handover
    crash: bool = False
    """It breaks a crash kexec and no other."""


def _redirect_command_line(handover: Handover, target: int) -> Handover:
    """Send the command line's page to another destination."""
    line = next(s for s in handover.plan.segments if s.name == "command line")
    wanted = line.destination.start | 1

    def change(rows: list[list[int]]) -> None:
        for row in rows:
            if wanted in row:
                row[row.index(wanted)] = target | 1

    return edit_list(handover, change)


def _control_page_destination(handover: Handover) -> Handover:
    return _redirect_command_line(handover, handover.plan.control_page)


def _list_destination(handover: Handover) -> Handover:
    pages = [p.phys for p in handover.pieces if p.what == "the page list"]
    # Where there is no list, editing it says so.
    return _redirect_command_line(handover, pages[-1] if pages else handover.plan.control_page)


def _source_order(handover: Handover) -> Handover:
    """The last page of the kernel is read from where its first page was just copied to."""
    kernel = handover.plan.segments[0]
    pages = len(kernel.destination.pages)
    if pages < 2:
        raise BadInput("the kernel is one page: it has no order", source="--sabotage")

    def change(rows: list[list[int]]) -> None:
        # Word 0 is the kernel's IND_DESTINATION; its last source is word `pages`, links not counted.
        row, column = divmod(pages, len(rows[0]) - 1)
        rows[row][column] = kernel.destination.start | 8

    return edit_list(handover, change)


def _table_b(handover: Handover) -> Tables:
    """page_table_b, where there is one.  Raises BadInput."""
    if handover.page_table_b is None:
        raise BadInput("there is no page_table_b: paging is turned off", source="--sabotage")
    return handover.page_table_b


def _overwrite_pgd(handover: Handover) -> Handover:
    """What Linux did before the thread: the identity map goes into the low half of the live pgd."""
    world = handover.world
    table_b = _table_b(handover)
    low = bytes(table_b.pages[table_b.root])[: PAGE_SIZE // 2]
    high = bytes(world.tables[world.pgd])[PAGE_SIZE // 2 :]
    piece = Piece(phys=world.pgd, data=low + high, what="an identity map in the current pgd")
    return replace(handover, pieces=(*handover.pieces, piece))


def _with_pge(host: Host, _plan: Plan) -> Host:
    """The same host, if it has global pages at all."""
    if not host.cr4 & CR4_PGE:
        raise BadInput("CR4.PGE is off already", source="--sabotage", field=host.source)
    return host


def _global_at_p(host: Host, plan: Plan) -> Host:
    """The old kernel has a global mapping at the linear address P, to some other frame."""
    _with_pge(host, plan)
    stray = LowMapping(
        virt=Virt(plan.control_page), phys=host.text.phys, size=PAGE_SIZE, is_global=True
    )
    return replace(host, low_mappings=(*host.low_mappings, stray))


def _shrink_table_b(handover: Handover) -> Handover:
    """page_table_b leaves out where the kernel goes."""
    kernel = handover.plan.segments[0].destination
    return edit_entry(handover, _table_b(handover), kernel.start, lambda _entry: 0)


def _set_nx(handover: Handover) -> Handover:
    """NX in the entry for V; without EFER.NXE that bit is reserved, and another sabotage."""
    if not handover.registers.efer & EFER_NXE:
        raise BadInput("EFER.NXE is off: there is no NX", source="--sabotage")
    return entry_of(virt, lambda entry: entry | 1 << 63)(handover)


def _set_reserved(handover: Handover) -> Handover:
    """The lowest address bit that the CPU does not have, in the entry for V."""
    bits = handover.plan.host.cpu.physical_bits
    if bits > LAST_ADDRESS_BIT:
        raise BadInput(f"a CPU with {bits} address bits reserves none", source="--sabotage")
    return entry_of(virt, lambda entry: entry | 1 << bits)(handover)


def _copy_outside(handover: Handover) -> Handover:
    """A list of one copy, out of the crash region into the first page of low memory.

    Low memory is what page_table_b maps outside the region; the list lies in the zeros at the end of
    the kernel's init_size, because it has to be mapped as well.
    """
    plan = handover.plan
    region = plan.host.crash_region
    if not plan.crash or region is None:
        raise BadInput("the plan is no crash plan: it may write anywhere", source="--sabotage")
    ram = plan.host.memory.ram
    outside = [
        named.extent
        for named in plan.identity
        if not region.overlaps(named.extent) and covered(named.extent, ram)
    ]
    kernel = plan.segments[0]
    if not outside or len(kernel.data) > kernel.destination.size - PAGE_SIZE:
        raise BadInput("there is no low memory, or no room for a list", source="--sabotage")
    place = Phys(kernel.destination.end - PAGE_SIZE)
    word = 8 if handover.registers.efer & EFER_LMA else 4
    words = (outside[0].start | 1, plan.boot_params | 8, 4)
    data = b"".join(each.to_bytes(word, "little") for each in words).ljust(PAGE_SIZE, b"\0")
    piece = Piece(phys=place, data=data, what="the page list")
    general = {**handover.registers.general, "rdi": place | 2}
    return replace(
        handover,
        pieces=(*handover.pieces, piece),
        registers=replace(handover.registers, general=general),
    )


def _flip(data: bytearray) -> None:
    data[len(data) // 2] ^= 0x40


def _point_elsewhere(data: bytearray) -> None:
    # The stub's last word is the address of boot_params.
    value = int.from_bytes(data[-8:], "little") + PAGE_SIZE
    data[-8:] = value.to_bytes(8, "little")


def _sti(data: bytearray) -> None:
    # The stub clears the flags with its first popfq; sti in its place leaves interrupts on.
    at = data.find(b"\x9d")
    if at < 0:
        raise BadInput("the entry stub is not the code that this sabotage knows", source="popfq")
    data[at] = 0xFB


_ALL = (
    Sabotage(
        name="no-v",
        says="leave the mapping of V out of page_table_a",
        rule="table-a-maps-v",
        step=Step.TABLE_A,
        handover=entry_of(virt, lambda _entry: 0),
    ),
    Sabotage(
        name="no-p",
        says="leave the mapping of P out of page_table_a",
        rule="table-a-maps-p",
        step=Step.STATE,
        handover=entry_of(control, lambda _entry: 0),
    ),
    Sabotage(
        name="nx",
        says="set NX on the control page at V",
        rule="table-a-rights",
        step=Step.TABLE_A,
        handover=_set_nx,
    ),
    Sabotage(
        name="overwrite-pgd",
        says="overwrite the low half of the current pgd, as Linux did before the thread",
        rule="current-pgd-kept",
        step=Step.PREPARE,
        handover=_overwrite_pgd,
    ),
    Sabotage(
        name="control-page-destination",
        says="copy the command line's page onto the control page",
        rule="control-page-kept",
        step=Step.COPY,
        handover=_control_page_destination,
    ),
    Sabotage(
        name="list-page-destination",
        says="copy the command line's page onto a page of the list",
        rule="list-kept",
        step=Step.COPY,
        handover=_list_destination,
    ),
    Sabotage(
        name="source-order",
        says="read a source after it was overwritten",
        rule="source-intact",
        step=Step.COPY,
        handover=_source_order,
    ),
    Sabotage(
        name="stack-outside",
        says="put the stack one page too high",
        rule="stack-inside",
        step=Step.STATE,
        code=patch(
            relocate_x86_64=("set_stack", 3, b"\x00\x10\x00\x00", b"\x00\x20\x00\x00"),
            relocate_i386=("set_stack", 2, b"\x00\x10\x00\x00", b"\x00\x20\x00\x00"),
        ),
    ),
    Sabotage(
        name="stale-global",
        says="a global entry of the old kernel at the linear address P, and CR4 never written",
        rule="tlb-agreement",
        step=Step.STATE,
        host=_global_at_p,
        code=patch(
            relocate_x86_64=("clear_pge", 0, b"\x0f\x22\xe0", b"\x90\x90\x90"),
            relocate_i386=("clear_pge", 0, b"\x0f\x22\xe0", b"\x90\x90\x90"),
        ),
    ),
    Sabotage(
        name="pge-on",
        says="leave CR4.PGE on",
        rule="pge-before-identity",
        step=Step.STATE,
        host=_with_pge,
        code=patch(
            relocate_x86_64=("after_table_a", 3, b"\x25\x20\x10\x00\x00", b"\x25\xa0\x10\x00\x00"),
            relocate_i386=("after_table_a", 3, b"\x83\xe0\x20", b"\x83\xe0\xa0"),
        ),
    ),
    Sabotage(
        name="table-b-small",
        says="leave the kernel's destination out of page_table_b",
        rule="table-b-covers",
        step=Step.TABLE_B,
        handover=_shrink_table_b,
    ),
    Sabotage(
        name="reserved-bit",
        says="set a physical address bit that the CPU does not have, in the entry for V",
        rule="reserved-bits",
        step=Step.TABLE_A,
        handover=_set_reserved,
    ),
    Sabotage(
        name="accessed-clear",
        says="clear accessed and dirty in the entry for V",
        rule="accessed-dirty-preset",
        step=Step.TABLE_A,
        handover=entry_of(virt, lambda entry: entry & ~0x60),
    ),
    Sabotage(
        name="interrupts-on",
        says="enter the new kernel with interrupts on",
        rule="interrupts-off",
        step=Step.COPY,
        handover=lambda handover: edit_segment(handover, "entry stub", _sti, planned=True),
    ),
    Sabotage(
        name="wrong-boot-params",
        says="give the new kernel a boot_params pointer one page too high",
        rule="entry-boot-params",
        step=Step.COPY,
        handover=lambda handover: edit_segment(
            handover, "entry stub", _point_elsewhere, planned=True
        ),
    ),
    Sabotage(
        name="initrd-byte",
        says="flip one bit in the middle of the initrd after it was loaded",
        rule="destinations-complete",
        step=Step.COPY,
        handover=lambda handover: edit_segment(handover, "initrd", _flip, planned=False),
    ),
    Sabotage(
        name="crash-outside",
        says="in a crash kexec, copy one page out of the crash region",
        rule="crash-region-only",
        step=Step.COPY,
        handover=_copy_outside,
        crash=True,
    ),
)
SABOTAGES: Mapping[str, Sabotage] = {each.name: each for each in _ALL}


def named(name: str) -> Sabotage:
    """The sabotage of that name.  Raises BadInput."""
    try:
        return SABOTAGES[name]
    except KeyError:
        raise BadInput(
            f"no sabotage {name!r}; `--sabotage list` names them", source="--sabotage"
        ) from None
