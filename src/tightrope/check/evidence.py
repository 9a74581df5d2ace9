"""Rules about what a dump is taken for: the old kernel's page tables, and all memory outside the
crash region.

Rules: asked before the page list is: it is the damage that nothing can mend.  Where a machine did
not see every store and copy, the list is followed and memory is compared.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tightrope.check.case import Case, owner
from tightrope.check.changes import steps_of
from tightrope.check.ownership import off_old_stack, outside
from tightrope.check.rule import Found, finding, rule
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent, union
from tightrope.model import Sight, Step


@rule(
    "current-pgd-kept",
    Step.PREPARE,
    says="The current pgd and the tables below it are never written.",
    source="the thread's title: kexec: Avoid overwriting the current pgd",
    mend="build tables of your own: a crash dump must find the current pgd whole",
)
def current_pgd_kept(case: Case) -> Iterator[Found]:
    """The old kernel's page tables are byte for byte what they were."""
    for each in case.changes:
        if each.piece.phys not in case.handover.world.tables:
            continue
        yield finding(
            f"the old kernel's page table {each.piece.phys:#x} was overwritten"
            f" (first at {each.first:#x})",
            evidence={
                "current pgd": f"{case.handover.world.pgd:#x}",
                "bytes": str(each.count),
                **({"by": f"`{case.text(each.instruction)}`"} if each.instruction >= 0 else {}),
            },
            step=each.step,
        )
        return


@rule(
    "crash-region-only",
    Step.PREPARE,
    says="A crash walk lies in the crash region and writes nowhere else.",
    source="Linux Documentation/admin-guide/kdump/kdump.rst; kimage_load_crash_segment",
    mend="allocate it in the crash region: everything else is evidence",
)
def crash_region_only(case: Case) -> Iterator[Found]:
    """A crash walk lies in the crash region and writes nowhere else.

    Where the machine did not see every store and copy, the page list is followed and memory is
    compared.
    """
    region = case.host.crash_region
    if not case.intent.crash or region is None:
        return
    placed = [(piece.extent, piece.what) for piece in case.handover.pieces]
    placed += [(each.destination, f"the {each.name}") for each in case.handover.segments]
    for extent, what in placed:
        if not region.covers(extent):
            yield finding(f"{what} lies at {extent}, outside the crash region {region}")
            return
    if not {Sight.STORES, Sight.COPIES} <= case.run.sees:
        yield from _left_outside(case, region)
        return
    copies = case.run.copies
    steps = steps_of(case.run, copies[:, 0])
    written = np.stack([copies[:, 0], steps, copies[:, 1], copies[:, 3]], axis=1)
    rows = outside(np.concatenate([case.run.stores, written]), [region])
    rows = off_old_stack(case, rows)
    for index, step, phys, size in rows[:1].tolist():
        yield finding(
            f"`{case.text(index)}` writes {size} bytes at {phys:#x}, outside the crash region {region}",
            evidence={"there": owner(case, phys), "instruction": str(index)},
            step=Step(step),
        )


FIRMWARE_END = 1 << 20
"""Below it a PC's firmware has worked."""
COMPARED = 1 << 22
"""Frames of RAM, 16 GiB, that are looked through without having seen a store."""


def _left_outside(case: Case, region: Extent) -> Iterator[Found]:
    """What the walk must have written outside the region, by what it has left there.

    That is what of the old kernel is not what it was, and memory that a described host leaves
    empty.
    """
    frames = np.sort(case.copies.destinations)
    stray = frames[(frames < region.pages.start) | (frames >= region.pages.stop)]
    for frame in stray[:1].tolist():
        yield finding(
            f"the page list has {frame << PAGE_SHIFT:#x} copied to, outside the crash region {region}",
            evidence={"there": owner(case, frame << PAGE_SHIFT), "such pages": str(len(stray))},
            step=Step.COPY,
        )
        return
    for each in case.changes:
        if each.step is not Step.PREPARE and each.first not in region:
            yield finding(
                f"{each.piece.what} was written at {each.first:#x}, outside the crash region {region}",
                step=each.step,
            )
            return
    ram = [each for each in case.host.memory.ram if each.start >= FIRMWARE_END]
    if sum(len(each.pages) for each in ram) > COMPARED:
        return
    written = case.run.memory.written()
    if written is None:
        return
    pieces = (*case.handover.world.pieces, *case.handover.static, *case.handover.pieces)
    laid = union([region, *(piece.extent.page_aligned() for piece in pieces)])
    used = np.array(sorted(written), np.int64) << PAGE_SHIFT
    rows = np.stack([used, used, used, np.full_like(used, PAGE_SIZE)], axis=1)
    stray = outside(rows, laid)
    for phys in stray[:, 2].tolist():
        page = Extent.sized(phys, PAGE_SIZE)
        if any(each.covers(page) for each in ram) and any(case.run.memory.read(page)):
            yield finding(
                f"something was written at {phys:#x}, outside the crash region {region}",
                evidence={
                    "there": owner(case, phys),
                    "by": "a store that this machine did not see",
                },
                step=Step.COPY,
            )
            return
