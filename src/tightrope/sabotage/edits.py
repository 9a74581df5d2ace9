"""Finished values changed into others: one entry, one word, some bytes of code or of a segment.

Rules: every function gives a new value and leaves the old one alone.  What cannot be changed in
this handover (there is no such routine, entry or segment) raises BadInput.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Phys, Virt
from tightrope.model import (
    Code,
    Given,
    Handover,
    Host,
    LowMapping,
    Paging,
    Segment,
    SegmentRole,
    Tables,
)
from tightrope.x86.cpu import EFER_LMA, EFER_LME
from tightrope.x86.walk import Access, entries_in, walk


def with_tables(handover: Handover, frame: int, page: bytes) -> Handover:
    """The same handover with one page of its tables replaced.

    Raises BadInput for a page that the handover does not lay out: one of the current pgd, or one
    that the code at V makes.
    """
    if all(piece.phys != frame for piece in (*handover.pieces, *handover.static)):
        raise BadInput(f"{frame:#x} is not a table of the handover", source="--sabotage")
    if frame in handover.levels:
        raise BadInput(f"{frame:#x} is made while the code runs", source="--sabotage")

    def edited(tables: Tables) -> Tables:
        # page_table_a of `in-place` has page_table_b's pages below it.
        there = frame in tables.pages
        return replace(tables, pages={**tables.pages, frame: memoryview(page)}) if there else tables

    table_b = handover.page_table_b
    return replace(
        handover,
        page_table_a=edited(handover.page_table_a),
        page_table_b=table_b and edited(table_b),
    )


def leaf_entry(handover: Handover, tables: Tables, virt: int) -> tuple[int, int]:
    """The physical address and the value of the entry that maps `virt`."""

    registers = handover.registers
    left = EFER_LME | EFER_LMA if handover.world.way_out else 0
    mmu = replace(registers, efer=registers.efer & ~left).mmu(handover.host.cpu, root=tables.root)
    last = walk(entries_in(tables.pages), mmu, virt, Access.READ).visits[-1]
    return last.at, last.entry


def edit_entry(
    handover: Handover, tables: Tables, virt: int, change: Callable[[int], int]
) -> Handover:
    at, entry = leaf_entry(handover, tables, virt)
    frame = at & -PAGE_SIZE
    page = bytearray(tables.pages[frame])
    size = 4 if handover.intent.paging is Paging.I386 else 8
    changed = change(entry)
    if changed >> 8 * size:
        raise BadInput(f"an entry of {size} bytes has no such bit", source="--sabotage")
    page[at - frame : at - frame + size] = changed.to_bytes(size, "little")
    return with_tables(handover, frame, bytes(page))


def entry_of(
    which: Callable[[Handover], int], change: Callable[[int], int]
) -> Callable[[Handover], Handover]:
    """Change the entry of page_table_a that maps an address."""
    return lambda handover: edit_entry(handover, handover.page_table_a, which(handover), change)


def virt(handover: Handover) -> int:
    return handover.intent.relocation


def control(handover: Handover) -> int:
    """The identity address that step 4 jumps to."""
    jumps_to = handover.jumps_to
    return handover.intent.control_page if jumps_to is None else jumps_to


INDIRECTION = 2

Patch = tuple[str, int, bytes, bytes]
"""(symbol, offset from it, the bytes that have to be there, what replaces them)."""


def patch(**patches: Patch) -> Callable[[Code], Code]:
    """Replace bytes of a routine; a keyword is the name of the routine that a patch is for.

    The routines that Xen's v1 calls are the same from the first symbol on.
    """

    def change(code: Code) -> Code:
        name = code.name.removesuffix("_page_list")
        if name not in patches:
            raise BadInput(
                f"{code.name} is not the code that this sabotage knows", source="--sabotage"
            )
        symbol, offset, old, new = patches[name]
        at = code.symbols[symbol] + offset
        if code.data[at : at + len(old)] != old:
            raise BadInput(f"{code.name} is not the code that this sabotage knows", source=symbol)
        return replace(code, data=code.data[:at] + new + code.data[at + len(new) :])

    return change


def segment_of(handover: Handover, role: SegmentRole) -> Segment:
    """The segment of a role.  Raises BadInput where there is none."""
    found = next((each for each in handover.segments if each.role is role), None)
    if found is None:
        raise BadInput(f"there is no {role} to sabotage", source="--sabotage", field=role)
    return found


def edit_segment(
    handover: Handover, role: SegmentRole, change: Callable[[bytearray], None], *, planned: bool
) -> Handover:
    """Change a segment's bytes; `planned` says whether that is what is wanted."""
    old = segment_of(handover, role)
    data = bytearray(old.data)
    change(data)
    new = replace(old, data=bytes(data))
    changed = replace(
        handover, segments=tuple(new if each is old else each for each in handover.segments)
    )
    if not planned:
        return changed
    wanted = tuple(new if each.role is role else each for each in handover.intent.segments)
    return replace(changed, intent=replace(handover.intent, segments=wanted))


def edit_list(handover: Handover, change: Callable[[list[list[int]]], None]) -> Handover:
    """Change the words of the page list: `change` gets a list of pages of words."""
    word, pages = handover.intent.word, handover.page_list
    if not pages:
        raise BadInput("there is no page list to sabotage", source="--sabotage")
    rows = [
        list(memoryview(bytes(each)).cast("Q" if word == 8 else "I")) for each in pages.values()
    ]
    change(rows)
    packed = (b"".join(each.to_bytes(word, "little") for each in row) for row in rows)
    return replace(handover, page_list=dict(zip(pages, packed, strict=True)))


def with_global(host: Host, virt: Virt) -> Host:
    """The host with a global mapping at `virt`, of the first frame of its text."""
    stray = LowMapping(virt=virt, phys=host.text.phys, size=PAGE_SIZE, is_global=True)
    return replace(host, low_mappings=(*host.low_mappings, stray))


def with_head(handover: Handover, place: Phys) -> Handover:
    """The page list begins at `place`, wherever the call hands its head over."""
    contract = handover.relocation_code.contract
    page = contract.where(Given.LIST_PAGE)
    at = page or contract.where(Given.LIST) or ""
    word = place if page else place | INDIRECTION
    if at in handover.registers.general:
        general = {**handover.registers.general, at: word}
        return replace(handover, registers=replace(handover.registers, general=general))
    stack = handover.world.arguments[-1].start - 4

    def change(data: bytearray) -> None:
        data[4:8] = word.to_bytes(4, "little")

    return with_piece(handover, stack, change)


def with_piece(handover: Handover, at: int, change: Callable[[bytearray], None]) -> Handover:
    """Change the bytes of the old kernel's piece that begins at `at`, which is no page table."""
    world = handover.world
    old = next(each for each in world.laid if each.phys == at)
    data = bytearray(old.data)
    change(data)
    new = replace(old, data=bytes(data))
    laid = tuple(new if each is old else each for each in world.laid)
    return replace(handover, world=replace(world, laid=laid))
