"""Finished values changed into others: one entry, one word, some bytes of code or of a segment.

Rules: every function gives a new value and leaves the old one alone.  What cannot be changed in this
handover (there is no such routine, entry or segment) raises BadInput.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Virt
from tightrope.model import Code, Handover, Host, LowMapping, Paging, Segment, Tables
from tightrope.x86.cpu import EFER_LMA, EFER_LME
from tightrope.x86.walk import Access, entries_in, walk


def with_tables(handover: Handover, old: Tables, frame: int, page: bytes) -> Handover:
    """The same handover with one page of a tree of tables replaced, in the tree and in its piece.

    Raises BadInput for a page that the handover does not lay out: one of the current pgd.
    """

    def edited(tables: Tables) -> Tables:
        # page_table_a of `in-place` has page_table_b's pages below it.
        there = frame in tables.pages
        return replace(tables, pages={**tables.pages, frame: memoryview(page)}) if there else tables

    laid = [
        tuple(replace(piece, data=page) if piece.phys == frame else piece for piece in pieces)
        for pieces in (handover.pieces, handover.static)
    ]
    if laid == [handover.pieces, handover.static] and page != old.pages[frame]:
        raise BadInput(f"{frame:#x} is not a table of the handover", source="--sabotage")
    pieces, static = laid
    table_b = handover.page_table_b
    return replace(
        handover,
        page_table_a=edited(handover.page_table_a),
        page_table_b=table_b and edited(table_b),
        pieces=pieces,
        static=static,
    )


def leaf_entry(handover: Handover, tables: Tables, virt: int) -> tuple[int, int]:
    """The physical address and the value of the entry that maps `virt`."""

    registers = handover.registers
    left = EFER_LME | EFER_LMA if handover.world.way_out else 0
    mmu = replace(registers, efer=registers.efer & ~left).mmu(
        handover.plan.host.cpu, root=tables.root
    )
    last = walk(entries_in(tables.pages), mmu, virt, Access.READ).visits[-1]
    return last.at, last.entry


def edit_entry(
    handover: Handover, tables: Tables, virt: int, change: Callable[[int], int]
) -> Handover:
    at, entry = leaf_entry(handover, tables, virt)
    frame = at & -PAGE_SIZE
    page = bytearray(tables.pages[frame])
    size = 4 if handover.plan.paging is Paging.I386 else 8
    changed = change(entry)
    if changed >> 8 * size:
        raise BadInput(f"an entry of {size} bytes has no such bit", source="--sabotage")
    page[at - frame : at - frame + size] = changed.to_bytes(size, "little")
    return with_tables(handover, tables, frame, bytes(page))


def entry_of(
    which: Callable[[Handover], int], change: Callable[[int], int]
) -> Callable[[Handover], Handover]:
    """Change the entry of page_table_a that maps an address."""
    return lambda handover: edit_entry(handover, handover.page_table_a, which(handover), change)


def virt(handover: Handover) -> int:
    return handover.plan.relocation


def control(handover: Handover) -> int:
    """The identity address that step 4 jumps to."""
    jumps_to = handover.jumps_to
    return handover.plan.control_page if jumps_to is None else jumps_to


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


def edit_segment(
    handover: Handover, name: str, change: Callable[[bytearray], None], *, planned: bool
) -> Handover:
    """Change a segment's bytes; `planned` says whether the plan itself wants them so."""

    def edit(segments: tuple[Segment, ...]) -> tuple[Segment, ...]:
        out = []
        for segment in segments:
            if segment.name == name:
                data = bytearray(segment.data)
                change(data)
                segment = replace(segment, data=bytes(data))
            out.append(segment)
        return tuple(out)

    if all(segment.name != name for segment in handover.segments):
        raise BadInput(f"there is no {name} to sabotage", source="--sabotage", field=name)
    plan = replace(handover.plan, segments=edit(handover.plan.segments))
    return replace(
        handover, segments=edit(handover.segments), plan=plan if planned else handover.plan
    )


def edit_list(handover: Handover, change: Callable[[list[list[int]]], None]) -> Handover:
    """Change the words of the page list: `change` gets a list of pages of words."""
    word = handover.plan.word
    pages = [piece for piece in handover.pieces if piece.what == "the page list"]
    if not pages:
        raise BadInput("there is no page list to sabotage", source="--sabotage")
    rows = [list(memoryview(bytes(piece.data)).cast("Q" if word == 8 else "I")) for piece in pages]
    change(rows)
    edited = {
        piece.phys: b"".join(each.to_bytes(word, "little") for each in row)
        for piece, row in zip(pages, rows, strict=True)
    }
    return replace(
        handover,
        pieces=tuple(
            replace(piece, data=edited[piece.phys]) if piece.phys in edited else piece
            for piece in handover.pieces
        ),
    )


def with_global(host: Host, virt: Virt) -> Host:
    """The host with a global mapping at `virt`, of the first frame of its text."""
    stray = LowMapping(virt=virt, phys=host.text.phys, size=PAGE_SIZE, is_global=True)
    return replace(host, low_mappings=(*host.low_mappings, stray))
