"""The thread's rival designs on one host, side by side.

Rules: one row is one rehearsal of the same plan's request under another design, or the reason why the
design cannot exist there.  Numbers are what was seen: nothing is taken from the designs' descriptions.

May import: errors, handover, machine, machines, model, plan, rehearse, x86
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tightrope.errors import PlanError
from tightrope.handover import DESIGNS
from tightrope.machine.port import Machine, Progress, no_progress
from tightrope.machines import emulator
from tightrope.model import Host, Image, Outcome, Verdict
from tightrope.plan import Request
from tightrope.rehearse import rehearse
from tightrope.x86.cpu import CR4_PGE


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One design: `outcome` None where it cannot exist, for the reason in `detail`."""

    design: str
    outcome: Outcome | None
    detail: str
    """The first finding's rule and step where it falls."""
    table_pages: int
    old_bytes_changed: int
    """Bytes of the old kernel's own memory (tables, text, gdt, idt, stack) that are not what they were."""
    pages_copied: int
    instructions: int
    flushes: int
    """Writes of CR3, and of CR4 that clear PGE."""


def compare(
    image: Image,
    old: Host,
    request: Request,
    *,
    designs: Sequence[str] = tuple(DESIGNS),
    machine: Machine | None = None,
    progress: Progress = no_progress,
) -> tuple[Row, ...]:
    """Rehearse each design.  Raises PlanError when not even the plan can be made."""
    machine = machine or emulator()
    rows = []
    for number, design in enumerate(designs):
        progress("designs", number, len(designs))
        try:
            verdict = rehearse(image, old, request, design=design, machine=machine)
        except PlanError as err:
            if err.field != "relocation":
                raise
            rows.append(_cannot(design, err.problem))
        else:
            rows.append(_row(design, verdict))
    return tuple(rows)


def _cannot(design: str, why: str) -> Row:
    return Row(
        design=design,
        outcome=None,
        detail=why,
        table_pages=0,
        old_bytes_changed=0,
        pages_copied=0,
        instructions=0,
        flushes=0,
    )


def _row(design: str, verdict: Verdict) -> Row:
    run, built = verdict.run, verdict.handover
    first = verdict.findings[0] if verdict.findings else None
    trees = {id(each): each for each in (built.page_table_a, built.page_table_b) if each}
    destinations = set(built.plan.destinations.tolist())
    changed = 0
    for piece in built.world.pieces:
        if destinations.issuperset(piece.extent.pages):
            continue  # a destination: overwriting it is what the copy is for
        if piece.phys == built.plan.control_page:
            continue  # V in the direct map: the control page is the walk's own
        now = run.memory.read(piece.extent)
        changed += sum(a != b for a, b in zip(bytes(now), bytes(piece.data), strict=True))
    return Row(
        design=design,
        outcome=verdict.outcome,
        detail=f"{first.rule}, step {int(first.step)}" if first else "",
        table_pages=sum(len(each.pages) for each in trees.values()),
        old_bytes_changed=changed,
        pages_copied=len(run.copies),
        instructions=run.instructions,
        flushes=sum(
            write.register == "cr3"
            or (write.register == "cr4" and bool(write.before & ~write.after & CR4_PGE))
            for write in run.register_writes
        ),
    )
