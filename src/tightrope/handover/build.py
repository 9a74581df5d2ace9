"""Building a handover: tables, control page, list, and the registers of the call.

Rules: what lies in memory before the walk is a list of pieces, each with its reason; nothing is
written anywhere.  The control page is byte for byte the old kernel's page at V, so that the switch
to page_table_a at V changes nothing that is executed; in the designs of `apart` the page at V stays
what it is, and the control page holds other code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from tightrope import routines
from tightrope.errors import MachineError
from tightrope.handover import apart, designs
from tightrope.handover.apart import Apart
from tightrope.memory import PAGE_SIZE, Extent, Phys
from tightrope.model import Code, Handover, Paging, Piece, Plan, World

DESIGNS: tuple[str, ...] = (apart.IN_PLACE, *designs.DESIGNS, apart.SPLIT_FUNCTION)
"""All designs by name, in the order of history but for the thread's own."""


AT_V: Mapping[str, Mapping[Paging, str]] = {
    apart.IN_PLACE: {
        Paging.I386: routines.IN_PLACE_I386,
        Paging.PAE: routines.IN_PLACE_PAE,
        Paging.X86_64: routines.IN_PLACE_X86_64,
        Paging.LA57: routines.IN_PLACE_X86_64,
    },
    apart.SPLIT_FUNCTION: {
        Paging.I386: routines.SWITCH_I386,
        Paging.PAE: routines.SWITCH_I386,
        Paging.X86_64: routines.SWITCH_X86_64,
        Paging.LA57: routines.SWITCH_X86_64,
    },
}
"""The routine at V, where it is not the control page's."""


def known(design: str) -> str:
    """The name, if there is such a design.  Raises MachineError."""
    if design not in DESIGNS:
        raise MachineError(f"no design {design!r}; there is {', '.join(DESIGNS)}")
    return design


def codes(design: str, paging: Paging) -> tuple[Code, Code | None]:
    """The control page's code, and the code at V where it is not the same."""
    wide = paging.long_mode
    if known(design) not in apart.DESIGNS:
        return routines.read(routines.RELOCATE_X86_64 if wide else routines.RELOCATE_I386), None
    control = routines.read(routines.CONTROL_X86_64 if wide else routines.CONTROL_I386)
    return control, routines.read(AT_V[design][paging])


def fitted(plan: Plan, design: str) -> Plan:
    """The plan with V where the design's code at V lies."""
    return replace(plan, relocation=apart.text_at_v(plan)) if design in apart.DESIGNS else plan


def build(
    plan: Plan, world: World, code: Code, *, design: str, at_v: Code | None = None
) -> Handover:
    """Everything `machine_kexec` needs: `code` goes into the control page.

    `at_v` is what `world` has at V where that is other code.  Raises MachineError for a design that
    is none, PlanError for one that cannot exist on this host.
    """
    frames = _frames(plan.spare)
    if known(design) in apart.DESIGNS:
        laid = apart.DESIGNS[design](plan, world, frames)
    else:
        table_a, table_b = designs.DESIGNS[design](plan, frames)
        laid = Apart(
            plan=plan,
            table_a=table_a,
            table_b=table_b,
            arguments={"rcx": table_a.root},
        )
    plan, table_a, table_b = laid.plan, laid.table_a, laid.table_b
    pieces = [
        Piece(
            phys=plan.control_page,
            data=code.data.ljust(PAGE_SIZE, b"\0"),
            what="the control page",
        )
    ]
    # What lies in the old kernel's image, or is the current pgd, is not laid a second time.
    trees = [("page_table_a", table_a)] if design not in apart.DESIGNS else []
    trees += [("page_table_b", table_b)] if table_b and table_b is not table_a else []
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
        **laid.arguments,
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
        at_v=at_v,
        static=laid.static,
        jumps_to=laid.jumps_to,
    )


def _frames(spare: tuple[Extent, ...]) -> Iterator[int]:
    for extent in spare:
        yield from range(extent.start, extent.end, PAGE_SIZE)
