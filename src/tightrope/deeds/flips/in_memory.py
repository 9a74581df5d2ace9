"""A bit flipped in what lies in memory before the walk.

Rules: functions (handover, random numbers) -> `Broken`; BadInput where the handover has nothing of the
kind.  What the plan and the contracts say stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from random import Random

import numpy as np

from tightrope.deeds.flips.subjects import Broken, flipped
from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Handover, Paging, PieceRole, Tables, with_code

WAY_OUT = frozenset(
    {
        PieceRole.WAY_OUT,
        PieceRole.WAY_OUT_GDTR,
        PieceRole.WAY_OUT_IDTR,
        PieceRole.WAY_OUT_FAR,
        PieceRole.WAY_OUT_STACK,
    }
)
HANDED = frozenset({PieceRole.CALL, PieceRole.PAGE_ARRAY, PieceRole.ARRAY_ON_STACK})


def nothing(what: str) -> BadInput:
    """Why there is no flip."""
    return BadInput(f"there is no {what}", source="flips")


def control_page(handover: Handover, random: Random) -> Broken:
    """Any bit of the control page, its unused bytes too; what lies at V stays."""
    at, bit = random.randrange(PAGE_SIZE), random.randrange(8)
    code = handover.relocation_code.code
    data = flipped(bytes(code.data).ljust(PAGE_SIZE, b"\0"), at, bit)
    return Broken(
        handover=replace(handover, chain=with_code(handover.chain, replace(code, data=data))),
        says=f"bit {bit} of byte {at:#x} of the control page",
        places=(Extent.sized(handover.intent.control_page + at, 1),),
    )


def code(handover: Handover, random: Random) -> Broken:
    """The code at V and its copy in the control page, both: what a wrong build would have."""
    mine = handover.relocation_code.code
    at, bit = random.randrange(len(mine.data)), random.randrange(8)
    chain = with_code(handover.chain, replace(mine, data=flipped(mine.data, at, bit)))
    places = [Extent.sized(handover.intent.control_page + at, 1)]
    laid = []
    for each in handover.world.laid:
        # With another code at V there is nothing to keep alike.
        if each.role in (PieceRole.CODE_AT_V, PieceRole.DOM0_CODE) and handover.at_v is None:
            places.append(Extent.sized(each.phys + at, 1))
            each = replace(each, data=flipped(bytes(each.data), at, bit))
        laid.append(each)
    world = replace(handover.world, laid=tuple(laid))
    return Broken(
        handover=replace(handover, chain=chain, world=world),
        says=f"bit {bit} of byte {at:#x} of the code",
        places=tuple(places),
    )


def at_v(handover: Handover, random: Random) -> Broken:
    """The old kernel's own page at V."""
    if handover.world.code_phys == handover.intent.control_page:
        raise nothing("page at V but the control page")
    return _piece(handover, random, {PieceRole.CODE_AT_V})


def _piece(handover: Handover, random: Random, roles: Iterable[PieceRole]) -> Broken:
    """A byte of what the old kernel has laid, of some roles; each piece is as likely as another."""
    wanted = frozenset(roles)
    found = [each for each in handover.world.laid if each.role in wanted and len(each.data)]
    if not found:
        raise nothing(" and no ".join(sorted(wanted)))
    old = random.choice(found)
    at, bit = random.randrange(len(old.data)), random.randrange(8)
    new = replace(old, data=flipped(bytes(old.data), at, bit))
    laid = tuple(new if each is old else each for each in handover.world.laid)
    return Broken(
        handover=replace(handover, world=replace(handover.world, laid=laid)),
        says=f"bit {bit} of byte {at:#x} of {old.what}",
        places=(Extent.sized(old.phys + at, 1),),
    )


def page_list(handover: Handover, random: Random) -> Broken:
    """A bit of a word of the list that says something."""
    places = [
        (frame, int(at))
        for frame, page in sorted(handover.page_list.items())
        for at in np.nonzero(np.frombuffer(bytes(page), np.uint8))[0]
    ]
    if not places:
        raise nothing("page list")
    frame, at = random.choice(places)
    word = handover.intent.word
    at, bit = at - at % word + random.randrange(word), random.randrange(8)
    page = flipped(bytes(handover.page_list[frame]), at, bit)
    return Broken(
        handover=replace(handover, page_list={**handover.page_list, frame: page}),
        says=f"bit {bit} of byte {at:#x} of the page of the list at {frame:#x}",
        places=(Extent.sized(frame + at, 1),),
    )


def loaded(handover: Handover, random: Random) -> Broken:
    """A byte of what lies in a source page, whatever was planned."""
    old = random.choice([each for each in handover.segments if len(each.data)])
    at, bit = random.randrange(len(old.data)), random.randrange(8)
    segments = tuple(
        replace(each, data=flipped(bytes(each.data), at, bit)) if each is old else each
        for each in handover.segments
    )
    return Broken(
        handover=replace(handover, segments=segments),
        says=f"bit {bit} of byte {at:#x} of the loaded {old.name}",
    )


def gdt(handover: Handover, random: Random) -> Broken:
    """The descriptors that the old kernel's segments were loaded from."""
    return _piece(handover, random, {PieceRole.GDT})


def idt(handover: Handover, random: Random) -> Broken:
    """The old kernel's gates."""
    return _piece(handover, random, {PieceRole.IDT})


def handed(handover: Handover, random: Random) -> Broken:
    """Words on the stack, the array of pages; the return address lies beside them."""
    return _piece(handover, random, HANDED)


def notes(handover: Handover, random: Random) -> Broken:
    """What a crash kernel is told of the dying one."""
    return _piece(handover, random, {PieceRole.NOTE})


def table_a(handover: Handover, random: Random) -> Broken:
    """Any bit of page_table_a."""
    return _table(handover, handover.page_table_a, random, entries=False)


def table_a_entries(handover: Handover, random: Random) -> Broken:
    """A bit of an entry that is there."""
    return _table(handover, handover.page_table_a, random, entries=True)


def table_b(handover: Handover, random: Random) -> Broken:
    """Any bit of page_table_b."""
    return _table(handover, handover.page_table_b, random, entries=False)


def table_b_entries(handover: Handover, random: Random) -> Broken:
    """A bit of an entry that is there."""
    return _table(handover, handover.page_table_b, random, entries=True)


def old_tables(handover: Handover, random: Random) -> Broken:
    """A bit of an entry that is there in the current pgd or below it."""
    own = Tables(root=handover.world.pgd, pages=handover.world.tables)
    return _table(handover, own, random, entries=True)


def way_out(handover: Handover, random: Random) -> Broken:
    """A hypervisor's code that leaves long mode, what it reads, and its two trees of tables."""
    way = handover.world.way_out
    if way is None:
        raise nothing("way out of long mode")
    part = random.randrange(3)
    if part == 0:
        return _piece(handover, random, WAY_OUT)
    tree = way.wide if part == 1 else way.narrow
    return _table(handover, tree, random, entries=True)


def dom0(handover: Handover, random: Random) -> Broken:
    """dom0's own tables and its page of relocation code, where a hypervisor calls."""
    world = handover.world
    if not world.dom0_tables:
        raise nothing("dom0")
    if random.random() < 0.3:
        return _piece(handover, random, {PieceRole.DOM0_CODE})
    pages = {frame: page for frame, page in world.tables.items() if frame in world.dom0_tables}
    return _table(handover, Tables(root=world.pgd, pages=pages), random, entries=True)


def _table(handover: Handover, tables: Tables | None, random: Random, *, entries: bool) -> Broken:
    """A bit of a tree of tables, in every tree that has the page."""
    if tables is None or not tables.pages:
        raise nothing("such tree")
    if entries:
        frame, at = _entry(tables, 4 if handover.host.paging is Paging.I386 else 8, random)
    else:
        frame, at = random.choice(sorted(tables.pages)), random.randrange(PAGE_SIZE)
    bit = random.randrange(8)
    page = memoryview(flipped(tables.pages[frame], at, bit))

    def edited(tree: Tables) -> Tables:
        return replace(tree, pages={**tree.pages, frame: page}) if frame in tree.pages else tree

    world, b = handover.world, handover.page_table_b
    way = world.way_out
    world = replace(
        world,
        tables={old: page if old == frame else each for old, each in world.tables.items()},
        way_out=replace(way, wide=edited(way.wide), narrow=edited(way.narrow)) if way else None,
    )
    return Broken(
        handover=replace(
            handover,
            world=world,
            page_table_a=edited(handover.page_table_a),
            page_table_b=edited(b) if b else None,
        ),
        says=f"bit {bit} of byte {at:#x} of the table at {frame:#x}",
        places=(Extent.sized(frame + at, 1),),
    )


def _entry(tables: Tables, size: int, random: Random) -> tuple[int, int]:
    """(frame, byte) of a byte of a present entry."""
    entries = [
        (frame, int(at) * size)
        for frame in sorted(tables.pages)
        for at in np.nonzero(np.frombuffer(tables.pages[frame], f"<u{size}") & 1)[0]
    ]
    if not entries:
        raise nothing("present entry")
    frame, at = random.choice(entries)
    return frame, at + random.randrange(size)
