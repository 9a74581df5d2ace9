"""Every configuration that the thread speaks of, rehearsed: one cell each.

    {i386, PAE, x86_64, LA57} x {kexec, kdump} x {each memory split that exists there} x {kernels}

Rules: a cell is one rehearsal of one kernel on one example host, and its verdict; what cannot be is
said with its reason and is not counted as holding; so is what a machine cannot be.  One machine serves
all cells of a host.

May import: errors, host, machine, machines, memory, model, plan, rehearse
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tightrope import host
from tightrope.errors import MissingPart, PlanError
from tightrope.host import PAGE_OFFSETS
from tightrope.machine.port import Machine, Progress, no_progress
from tightrope.machines import emulator
from tightrope.memory import Extent
from tightrope.model import Host, Image, Outcome, Paging
from tightrope.plan import Request
from tightrope.rehearse import rehearse

CRASH_REGION = Extent.sized(0x4000_1000, 0x1400_0000)
"""Free RAM in every example host; its start is not a multiple of 2 MiB."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One configuration: `outcome` None where it does not exist, for the reason in `detail`."""

    paging: Paging
    page_offset: int | None
    crash: bool
    kernel: str
    machine: str
    outcome: Outcome | None
    detail: str
    seconds: float


def hosts() -> Iterator[tuple[Paging, int | None, Host]]:
    """An example host for each mode and split, with a crash region."""
    for paging in Paging:
        splits: Sequence[int | None] = (
            PAGE_OFFSETS if paging in (Paging.I386, Paging.PAE) else (None,)
        )
        for page_offset in splits:
            text = host.example(paging, page_offset, CRASH_REGION)
            yield paging, page_offset, host.read(text, f"the example host ({paging.value})")


def matrix(
    kernels: Sequence[Image],
    *,
    on: Sequence[Machine] = (),
    progress: Progress = no_progress,
) -> tuple[Cell, ...]:
    """Rehearse every cell on each machine, the emulator without any.  Raises MissingPart without it."""
    on = on or [emulator()]
    places = list(hosts())
    total = len(places) * len(kernels) * len(on) * 2
    cells: list[Cell] = []
    for machine in on:
        for paging, page_offset, old in places:
            for kernel in kernels:
                for crash in (False, True):
                    progress("cells", len(cells), total)
                    cells.append(_cell(paging, page_offset, old, kernel, crash, machine))
    return tuple(cells)


def _cell(
    paging: Paging,
    page_offset: int | None,
    old: Host,
    kernel: Image,
    crash: bool,
    machine: Machine,
) -> Cell:
    started = time.perf_counter()
    outcome: Outcome | None = None
    try:
        verdict = rehearse(kernel, old, Request(crash=crash), machine=machine)
    except PlanError as err:
        detail = err.problem
    except MissingPart as err:
        detail = str(err)
    else:
        outcome = verdict.outcome
        first = verdict.findings[0] if verdict.findings else None
        detail = (
            f"{first.rule}, step {int(first.step)}" if first else verdict.handover.plan.protocol
        )
    return Cell(
        paging=paging,
        page_offset=page_offset,
        crash=crash,
        kernel=kernel.source,
        machine=machine.name,
        outcome=outcome,
        detail=detail,
        seconds=time.perf_counter() - started,
    )
