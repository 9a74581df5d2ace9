"""What a bit can be flipped in, and the handover with it flipped.

    in memory      a byte that lies there before the walk: plan and rules know what it should be
    as planned     a segment's byte, wrong in plan, source and destination alike: only who asks the image,
                   the files, the line and the host can see it
    at the call    a register, or the old kernel's own tables

Rules: one bit of one byte, by random numbers that are given; places are drawn evenly among the bytes of a
subject, or among its present entries where most bytes mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from random import Random

import numpy as np

from tightrope.deeds.flips.bases import Base
from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Handover, Paging, Registers, Segment, Tables


class Subject(StrEnum):
    """What is flipped; the value is what a report calls it."""

    CONTROL_PAGE = "control page, memory only"
    CODE = "code, at V and in the control page"
    TABLE_A = "page_table_a, any bit"
    TABLE_A_ENTRIES = "page_table_a, present entries"
    TABLE_B = "page_table_b, any bit"
    TABLE_B_ENTRIES = "page_table_b, present entries"
    LIST = "page list, used words"
    LOADED = "a segment in memory only"
    BOOT_PARAMS = "boot_params, as planned"
    COMMAND_LINE = "command line, as planned"
    INITRD = "initrd, as planned"
    KERNEL = "kernel, as planned"
    STUB = "entry stub, as planned"
    CORE_HEADER = "core header, as planned"
    REGISTERS = "registers at the call"
    OLD_TABLES = "the old kernel's tables, present entries"


SEGMENTS: Mapping[Subject, str] = {
    Subject.BOOT_PARAMS: "boot_params",
    Subject.COMMAND_LINE: "command line",
    Subject.INITRD: "initrd",
    Subject.KERNEL: "kernel",
    Subject.STUB: "entry stub",
    Subject.CORE_HEADER: "core header",
}
"""The segment of each subject that is flipped as it was planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A handover with a bit flipped.  `places` is physical memory that differs for that reason alone."""

    handover: Handover
    says: str
    places: tuple[Extent, ...] = ()


def broken(base: Base, subject: Subject, random: Random) -> Broken:
    """One bit of a subject flipped.  Raises BadInput where the base has nothing of the kind."""
    if subject in SEGMENTS:
        return _planned(base, SEGMENTS[subject], random)
    return FLIPS[subject](base.handover, random)


def _bit(data: bytes | memoryview, at: int, bit: int) -> bytes:
    out = bytearray(data)
    out[at] ^= 1 << bit
    return bytes(out)


def _planned(base: Base, name: str, random: Random) -> Broken:
    segments = [each for each in base.plan.segments if each.name == name]
    if not segments or not len(segments[0].data):
        raise BadInput(f"nothing was planned as {name}", source="flips")
    old = segments[0]
    at, bit = random.randrange(len(old.data)), random.randrange(8)

    def other(each: Segment) -> Segment:
        return replace(each, data=_bit(bytes(each.data), at, bit)) if each is old else each

    plan = replace(base.plan, segments=tuple(other(each) for each in base.plan.segments))
    return Broken(handover=base.build(plan), says=f"bit {bit} of byte {at:#x} of the {name}")


def _with_code(handover: Handover, at: int, bit: int) -> Handover:
    """The handover with another control page; what lies at V stays."""
    mine = handover.relocation_code
    data = _bit(bytes(mine.code.data).ljust(PAGE_SIZE, b"\0"), at, bit)
    other = replace(mine, code=replace(mine.code, data=data))
    return replace(
        handover, chain=tuple(other if each is mine else each for each in handover.chain)
    )


def _control_page(handover: Handover, random: Random) -> Broken:
    at, bit = random.randrange(PAGE_SIZE), random.randrange(8)
    return Broken(
        handover=_with_code(handover, at, bit),
        says=f"bit {bit} of byte {at:#x} of the control page",
        places=(Extent.sized(handover.intent.control_page + at, 1),),
    )


def _code(handover: Handover, random: Random) -> Broken:
    """The code at V and its copy in the control page, both: what a wrong build would have."""
    at, bit = random.randrange(len(handover.code.data)), random.randrange(8)
    places = [Extent.sized(handover.intent.control_page + at, 1)]
    pieces = []
    for each in handover.world.laid:
        # With another code at V there is nothing to keep alike.
        if each.phys == handover.world.code_phys and handover.at_v is None:
            pieces.append(replace(each, data=_bit(bytes(each.data), at, bit)))
            places.append(Extent.sized(each.phys + at, 1))
        else:
            pieces.append(each)
    world = replace(handover.world, laid=tuple(pieces))
    return Broken(
        handover=replace(_with_code(handover, at, bit), world=world),
        says=f"bit {bit} of byte {at:#x} of the code",
        places=tuple(places),
    )


def _list(handover: Handover, random: Random) -> Broken:
    places = [
        (frame, int(at))
        for frame, page in sorted(handover.page_list.items())
        for at in np.nonzero(np.frombuffer(bytes(page), np.uint8))[0]
    ]
    if not places:
        raise BadInput("there is no page list", source="flips")
    frame, at = random.choice(places)
    word = handover.intent.word
    at, bit = at - at % word + random.randrange(word), random.randrange(8)
    page = _bit(bytes(handover.page_list[frame]), at, bit)
    return Broken(
        handover=replace(handover, page_list={**handover.page_list, frame: page}),
        says=f"bit {bit} of byte {at:#x} of the page of the list at {frame:#x}",
        places=(Extent.sized(frame + at, 1),),
    )


def _loaded(handover: Handover, random: Random) -> Broken:
    """A byte of what lies in a source page, whatever was planned."""
    full = [each for each in handover.segments if len(each.data)]
    old = random.choice(full)
    at, bit = random.randrange(len(old.data)), random.randrange(8)
    segments = tuple(
        replace(each, data=_bit(bytes(each.data), at, bit)) if each is old else each
        for each in handover.segments
    )
    return Broken(
        handover=replace(handover, segments=segments),
        says=f"bit {bit} of byte {at:#x} of the loaded {old.name}",
    )


def _entry(tables: Tables, size: int, random: Random) -> tuple[int, int]:
    """(frame, byte) of a present entry."""
    frames = sorted(tables.pages)
    entries = [
        (frame, int(at) * size)
        for frame in frames
        for at in np.nonzero(np.frombuffer(bytes(tables.pages[frame]), f"<u{size}") & 1)[0]
    ]
    frame, at = random.choice(entries)
    return frame, at + random.randrange(size)


def _tables(handover: Handover, tables: Tables | None, random: Random, *, entries: bool) -> Broken:
    if tables is None:
        raise BadInput("there is no such tree", source="flips")
    if entries:
        frame, at = _entry(tables, _entry_size(handover), random)
    else:
        frame, at = random.choice(sorted(tables.pages)), random.randrange(PAGE_SIZE)
    bit = random.randrange(8)
    page = memoryview(_bit(bytes(tables.pages[frame]), at, bit))

    def edited(tree: Tables | None) -> Tables | None:
        there = tree is not None and frame in tree.pages
        return replace(tree, pages={**tree.pages, frame: page}) if tree and there else tree

    table_a = edited(handover.page_table_a)
    assert table_a is not None
    world = replace(
        handover.world,
        tables={
            at_frame: page if at_frame == frame else each
            for at_frame, each in handover.world.tables.items()
        },
    )
    return Broken(
        handover=replace(
            handover,
            world=world,
            page_table_a=table_a,
            page_table_b=edited(handover.page_table_b),
        ),
        says=f"bit {bit} of byte {at:#x} of the table at {frame:#x}",
        places=(Extent.sized(frame + at, 1),),
    )


def _entry_size(handover: Handover) -> int:
    return 4 if handover.intent.paging is Paging.I386 else 8


def _old_tables(handover: Handover, random: Random) -> Broken:
    old = Tables(root=handover.world.pgd, pages=handover.world.tables)
    return _tables(handover, old, random, entries=True)


def _registers(handover: Handover, random: Random) -> Broken:
    """A bit of anything that the CPU holds at the call, rip apart."""
    now, wide = handover.registers, handover.world.host.paging.long_mode
    bits = 64 if wide else 32
    general = [name for name in now.general if wide or not name[1:].isdigit()]
    names = [*general, "rflags", "cr0", "cr3", "cr4", "efer", *now.segments, "gdt", "idt"]
    name = random.choice(names)
    if name in now.general:
        bit = random.randrange(bits)
        value = {**now.general, name: now.general[name] ^ 1 << bit}
        changed = replace(now, general=value)
    elif name in now.segments:
        bit = random.randrange(16)
        changed = replace(now, segments={**now.segments, name: now.segments[name] ^ 1 << bit})
    elif name in ("gdt", "idt"):
        base, limit = now.gdt if name == "gdt" else now.idt
        bit = random.randrange(bits + 16)
        table = (base ^ 1 << bit, limit) if bit < bits else (base, limit ^ 1 << bit - bits)
        changed = replace(now, gdt=table) if name == "gdt" else replace(now, idt=table)
    else:
        bit = random.randrange(bits if name in ("cr3", "cr4") else 32)
        changed = _with(now, name, getattr(now, name) ^ 1 << bit)
    return Broken(handover=replace(handover, registers=changed), says=f"bit {bit} of {name}")


def _with(registers: Registers, name: str, value: int) -> Registers:
    values: dict[str, Registers] = {
        "rflags": replace(registers, rflags=value),
        "cr0": replace(registers, cr0=value),
        "cr3": replace(registers, cr3=value),
        "cr4": replace(registers, cr4=value),
        "efer": replace(registers, efer=value),
    }
    return values[name]


FLIPS: Mapping[Subject, Callable[[Handover, Random], Broken]] = {
    Subject.CONTROL_PAGE: _control_page,
    Subject.CODE: _code,
    Subject.TABLE_A: lambda it, random: _tables(it, it.page_table_a, random, entries=False),
    Subject.TABLE_A_ENTRIES: lambda it, random: _tables(it, it.page_table_a, random, entries=True),
    Subject.TABLE_B: lambda it, random: _tables(it, it.page_table_b, random, entries=False),
    Subject.TABLE_B_ENTRIES: lambda it, random: _tables(it, it.page_table_b, random, entries=True),
    Subject.LIST: _list,
    Subject.LOADED: _loaded,
    Subject.REGISTERS: _registers,
    Subject.OLD_TABLES: _old_tables,
}
"""How each of the others is flipped."""
