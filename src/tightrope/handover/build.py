"""Building a handover: tables, control page, list, and the registers of the call.

Rules: what lies in memory before the walk is a list of pieces, each with its reason; nothing is
written anywhere.  The control page is byte for byte the old kernel's page at V, so that the switch
to page_table_a at V changes nothing that is executed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tightrope.errors import MachineError
from tightrope.handover.designs import DESIGNS
from tightrope.memory import PAGE_SIZE, Extent, Phys
from tightrope.model import Code, Handover, Piece, Plan, World


def build(plan: Plan, world: World, code: Code, *, design: str) -> Handover:
    """Everything `machine_kexec` needs.  Raises MachineError for a design that is not built (yet)."""
    if design not in DESIGNS:
        raise MachineError(f"no design {design!r}; there is {', '.join(DESIGNS)}")
    frames = _frames(plan.spare)
    table_a, table_b = DESIGNS[design](plan, frames)
    pieces = [
        Piece(
            phys=plan.control_page,
            data=code.data.ljust(PAGE_SIZE, b"\0"),
            what="the control page",
        )
    ]
    trees = [("page_table_a", table_a)] + (
        [("page_table_b", table_b)] if table_b and table_b is not table_a else []
    )
    for what, tables in trees:
        pieces += [
            Piece(phys=Phys(frame), data=page, what=what) for frame, page in tables.pages.items()
        ]
    pieces += [
        Piece(phys=Phys(frame), data=words.tobytes(), what="the page list")
        for frame, words in plan.list_pages.items()
    ]
    arguments = {
        "rdi": plan.head,
        "rsi": plan.control_page,
        "rdx": plan.entry,
        "rcx": table_a.root,
    }
    if table_b:
        arguments["r8"] = table_b.root
    return Handover(
        plan=plan,
        world=world,
        design=design,
        code=code,
        page_table_a=table_a,
        page_table_b=table_b,
        pieces=tuple(pieces),
        segments=plan.segments,
        registers=replace(world.registers, general={**world.registers.general, **arguments}),
    )


def _frames(spare: tuple[Extent, ...]) -> Iterator[int]:
    for extent in spare:
        yield from range(extent.start, extent.end, PAGE_SIZE)
