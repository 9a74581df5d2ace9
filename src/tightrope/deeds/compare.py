"""The thread's rival designs on one host, side by side.

Rules: one row is one rehearsal of the same plan's request under another design, or the reason why
the design cannot exist there.  Numbers are what was seen: nothing is taken from the designs'
descriptions.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tightrope.check import changes
from tightrope.deeds.machines import emulator
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.unpacking import Unpacking
from tightrope.errors import DesignError
from tightrope.machine.port import Machine, Progress, no_progress
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE
from tightrope.model import Host, Image, Step, Stop, Verdict
from tightrope.model.comparison import Row
from tightrope.participants import DESIGNS
from tightrope.plan import Request
from tightrope.x86.cpu import CR4_PGE


def compare(
    image: Image,
    old: Host,
    request: Request,
    *,
    designs: Iterable[str] = DESIGNS,
    machine: Machine | None = None,
    progress: Progress = no_progress,
) -> tuple[Row, ...]:
    """Rehearse each design.  Raises PlanError when not even the plan can be made."""
    machine = machine or emulator()
    unpacking = Unpacking(image, request.initrd)
    names = tuple(designs)
    rows = []
    for number, design in enumerate(names):
        progress("designs", number, len(names))
        try:
            verdict = rehearse(
                image, old, request, design=design, machine=machine, unpacking=unpacking
            )
        except DesignError as err:
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
        copies_per_page=None,
        reached=False,
        instructions=0,
        flushes=0,
    )


def _row(design: str, verdict: Verdict) -> Row:
    run, built = verdict.run, verdict.handover
    first = verdict.findings[0] if verdict.findings else None
    tables = {
        frame
        for each in (built.page_table_a, built.page_table_b)
        if each
        for frame in each.pages
        if frame not in built.world.tables
    }
    copied, per_page = _copied(verdict)
    return Row(
        design=design,
        outcome=verdict.outcome,
        detail=f"{first.rule}, step {int(first.step)}" if first else "",
        table_pages=len(tables),
        old_bytes_changed=sum(each.count for each in changes(built, run)),
        pages_copied=copied,
        copies_per_page=per_page,
        reached=run.stop is Stop.ENTRY,
        instructions=run.instructions,
        flushes=sum(
            write.register == "cr3"
            or (write.register == "cr4" and bool(write.before & ~write.after & CR4_PGE))
            for write in run.register_writes
        ),
        asked=verdict.asked,
    )


def _copied(verdict: Verdict) -> tuple[int, float | None]:
    """Pages of destinations that were written, and the pages copied for each of them in step 6."""
    run = verdict.run
    start = next((at for at, step in run.step_starts if step is Step.COPY), run.instructions)
    rows = run.copies[run.copies[:, 0] >= start]
    written = np.unique(rows[:, 1] >> PAGE_SHIFT)
    pages = int(np.isin(written, verdict.handover.intent.destinations).sum())
    return pages, int(rows[:, 3].sum()) / PAGE_SIZE / pages if pages else None
