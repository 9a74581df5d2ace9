"""Every configuration that the thread speaks of, rehearsed: one cell each.

    {i386, PAE, x86_64, LA57} x {kexec, kdump} x {each memory split that exists there} x {kernels}
    {i386, PAE, x86_64, LA57} x {kexec, kdump} x {Xen v1, v2} x {dom0 of 64, of 32 bits} x {kernels}

Rules: a cell is one rehearsal of one kernel on one example host, and its verdict; what cannot be is
said with its reason and is not counted as holding; so is what a machine cannot be.  One machine
serves all cells of a host.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from tightrope import host
from tightrope.deeds.defaults import CRASH_REGION
from tightrope.deeds.machines import emulator
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.unpacking import Unpacking
from tightrope.errors import CannotBe, HostError, MissingPart, PlanError
from tightrope.host import SPLITS
from tightrope.machine.port import Machine, Progress, no_progress
from tightrope.model import Criterion, Host, Image, Outcome, Paging, XenCrash, XenInterface
from tightrope.model.matrix import Cell
from tightrope.plan import Request


def hosts() -> Iterator[tuple[Paging, int | None, Host]]:
    """An example host for each mode and split, with a crash region."""
    for paging in Paging:
        splits: Sequence[int | None] = SPLITS if paging in (Paging.I386, Paging.PAE) else (None,)
        for page_offset in splits:
            text = host.example(paging, page_offset, CRASH_REGION)
            yield paging, page_offset, host.read(text, f"the example host ({paging.value})")


XEN_COLUMNS: Mapping[str, tuple[XenInterface, int]] = {
    "v1, 64-bit dom0": (XenInterface.V1, 64),
    "v1, 32-bit dom0": (XenInterface.V1, 32),
    "v2, 64-bit dom0": (XenInterface.V2, 64),
    "v2, 32-bit dom0": (XenInterface.V2, 32),
}
"""Each way of asking a hypervisor, and dom0's width."""


KINDS: tuple[tuple[bool, XenCrash | None], ...] = ((False, None), (True, None))
XEN_KINDS = ((False, None), (True, XenCrash.DOM0), (True, XenCrash.HYPERVISOR))
"""Whether it is a crash kexec, and under Xen who dies."""


def hypervisors() -> Iterator[tuple[Paging, str, Host | str]]:
    """An example hypervisor for each mode and column, or the reason why it never existed."""
    for paging in Paging:
        for column, (interface, bits) in XEN_COLUMNS.items():
            try:
                text = host.xen_example(paging, interface, dom0_bits=bits, crash=CRASH_REGION)
            except HostError as err:
                yield paging, column, err.problem
            else:
                yield paging, column, host.read(text, f"the example hypervisor ({paging.value})")


def matrix(
    kernels: Sequence[Image],
    *,
    on: Sequence[Machine] = (),
    progress: Progress = no_progress,
) -> tuple[Cell, ...]:
    """Rehearse every cell on each machine, the emulator without any.  Raises MissingPart without
    it."""
    on = on or [emulator()]
    places: list[tuple[Paging, int | None, str | None, Host | str]] = [
        *((paging, page_offset, None, old) for paging, page_offset, old in hosts()),
        *((paging, None, column, old) for paging, column, old in hypervisors()),
    ]
    kinds = sum(len(XEN_KINDS if column else KINDS) for _, _, column, _ in places)
    total = kinds * len(kernels) * len(on)
    cells: list[Cell] = []
    unpacked = {kernel.source: Unpacking(kernel, None) for kernel in kernels}
    for machine in on:
        for paging, page_offset, column, old in places:
            for kernel in kernels:
                for crash, who in XEN_KINDS if column else KINDS:
                    progress("cells", len(cells), total)
                    request = Request(
                        crash=crash,
                        xen=XEN_COLUMNS[column][0] if column else None,
                        crashed=who or XenCrash.DOM0,
                    )
                    cell = _cell(old, kernel, request, machine, unpacked[kernel.source])
                    cells.append(
                        replace(
                            cell, paging=paging, page_offset=page_offset, xen=column, crashed=who
                        )
                    )
    return tuple(cells)


def _cell(
    old: Host | str, kernel: Image, request: Request, machine: Machine, unpacking: Unpacking
) -> Cell:
    """One rehearsal; where it stands in the matrix is for the caller to say."""
    started = time.perf_counter()
    outcome: Outcome | None = None
    asked: tuple[Criterion, ...] = ()
    try:
        if isinstance(old, str):
            raise PlanError(old, source="matrix")
        verdict = rehearse(kernel, old, request, machine=machine, unpacking=unpacking)
    except PlanError as err:
        detail = err.problem
    except (CannotBe, MissingPart) as err:
        detail = str(err)
    else:
        outcome, asked = verdict.outcome, verdict.asked
        first = verdict.findings[0] if verdict.findings else None
        detail = (
            f"{first.rule}, step {int(first.step)}" if first else verdict.handover.intent.protocol
        )
    return Cell(
        paging=Paging.X86_64 if isinstance(old, str) else old.paging,
        page_offset=None,
        crash=request.crash,
        kernel=kernel.source,
        xen=None,
        crashed=None,
        machine=machine.name,
        outcome=outcome,
        detail=detail,
        seconds=time.perf_counter() - started,
        asked=asked,
    )
