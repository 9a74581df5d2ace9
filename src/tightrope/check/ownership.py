"""Rules about who may touch what: the walk's own pages, and the old kernel's memory.

    owned for writing     the control page, the stub's page (its stack), destinations by copies, and
                          what the design has in the old kernel's image
    owned for reading     those, the page list, sources, and the page at V where its code stays there

Rules: stores, loads and copies are the machine's arrays of physical addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tightrope.check.changes import steps_of
from tightrope.check.rule import Case, Rule, found, owner
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent, union
from tightrope.model import Finding, Sight, Step


def _outside(rows: NDArray[np.int64], extents: Sequence[Extent]) -> NDArray[np.int64]:
    """The rows (index, step, physical, bytes) that are not wholly inside one of the extents."""
    merged = union(extents)
    starts = np.array([each.start for each in merged], np.int64)
    ends = np.array([each.end for each in merged], np.int64)
    at = np.searchsorted(starts, rows[:, 2], side="right") - 1
    inside = (at >= 0) & (rows[:, 2] + rows[:, 3] <= ends[np.maximum(at, 0)])
    return rows[~inside]


def _own(case: Case) -> list[Extent]:
    stub = Extent.sized(case.plan.entry, PAGE_SIZE)
    return [case.control_page, stub, *(piece.extent for piece in case.handover.static)]


def _text(case: Case, index: int) -> str:
    trace = case.run.trace
    return case.run.texts.get(int(trace[index]), "?") if 0 <= index < len(trace) else "?"


def stores_owned(case: Case) -> Iterator[Finding]:
    """Every store goes to the control page or the stub's page."""
    for index, step, phys, size in _outside(case.run.stores, _own(case))[:1].tolist():
        yield found(
            "stores-owned",
            Step(step),
            f"`{_text(case, index)}` writes {size} bytes at {phys:#x}, which the walk does not own",
            evidence={"there": owner(case, phys), "instruction": str(index)},
            mend="keep everything that is written inside the control page",
        )


def loads_owned(case: Case) -> Iterator[Finding]:
    """Every load comes from the control page, the stub's page, the list or a source."""
    pages = [frame << PAGE_SHIFT for frame in case.list_frames]
    if case.handover.at_v is not None and not case.live:
        pages.append(case.handover.world.code_phys)
    rows = _outside(
        case.run.loads,
        [
            *_own(case),
            *case.handover.world.arguments,
            *(Extent.sized(page, PAGE_SIZE) for page in pages),
        ],
    )
    if case.live:
        # Under the current pgd it is the old kernel that reads its own gdt and text.
        rows = rows[rows[:, 1] >= Step.IDENTITY]
    for index, step, phys, size in rows[:1].tolist():
        yield found(
            "loads-owned",
            Step(step),
            f"`{_text(case, index)}` reads {size} bytes at {phys:#x}, which the walk does not own",
            evidence={"there": owner(case, phys), "instruction": str(index)},
            mend="what lies there is anybody's: read only the control page, the list and sources",
        )


def copies_owned(case: Case) -> Iterator[Finding]:
    """Every copy reads a source and writes a destination of the plan."""
    seen = case.run.copies
    if not len(seen):
        return
    saved = [np.array(each.source.pages, np.int64) for each in case.plan.backup]
    for column, frames, verb in (
        (1, case.plan.destinations, "writes"),
        (2, np.concatenate([case.plan.sources, *saved]), "reads"),
    ):
        bad = seen[~np.isin(seen[:, column] >> PAGE_SHIFT, frames)]
        if len(bad):
            phys = int(bad[0][column])
            yield found(
                "copies-owned",
                Step(steps_of(case.run, bad[:1, 0])[0]),
                f"a copy {verb} {phys:#x}, which is not in the plan",
                evidence={"there": owner(case, phys), "such copies": str(len(bad))},
                mend="see the page list: every destination and source has to be the plan's",
            )
            return


def current_pgd_kept(case: Case) -> Iterator[Finding]:
    """The old kernel's page tables are byte for byte what they were."""
    for each in case.changes:
        if each.piece.phys not in case.handover.world.tables:
            continue
        yield found(
            "current-pgd-kept",
            each.step,
            f"the old kernel's page table {each.piece.phys:#x} was overwritten"
            f" (first at {each.first:#x})",
            evidence={
                "current pgd": f"{case.handover.world.pgd:#x}",
                "bytes": str(each.count),
                **({"by": f"`{_text(case, each.instruction)}`"} if each.instruction >= 0 else {}),
            },
            mend="build tables of your own: a crash dump must find the current pgd whole",
        )
        return


def old_kernel_kept(case: Case) -> Iterator[Finding]:
    """The old kernel's text, gdt, idt and stack are what they were, destinations apart."""
    for each in case.changes:
        if each.piece.phys in case.handover.world.tables:
            continue
        yield found(
            "old-kernel-kept",
            each.step,
            f"{each.piece.what} was overwritten at {each.first:#x}",
            mend="write destinations and the control page, and nothing else",
        )
        return


def crash_region_only(case: Case) -> Iterator[Finding]:
    """A crash walk lies in the crash region and writes nowhere else.

    Where the machine did not see every store and copy, the page list is followed and memory is compared.
    """
    region = case.host.crash_region
    if not case.plan.crash or region is None:
        return
    mend = "allocate it in the crash region: everything else is evidence"
    placed = [(piece.extent, piece.what) for piece in case.handover.pieces]
    placed += [(each.destination, f"the {each.name}") for each in case.handover.segments]
    for extent, what in placed:
        if not region.covers(extent):
            yield found(
                "crash-region-only",
                Step.PREPARE,
                f"{what} lies at {extent}, outside the crash region {region}",
                mend=mend,
            )
            return
    if not {Sight.STORES, Sight.COPIES} <= case.run.sees:
        yield from _left_outside(case, region, mend)
        return
    copies = case.run.copies
    steps = steps_of(case.run, copies[:, 0])
    written = np.stack([copies[:, 0], steps, copies[:, 1], copies[:, 3]], axis=1)
    rows = _outside(np.concatenate([case.run.stores, written]), [region])
    for index, step, phys, size in rows[:1].tolist():
        yield found(
            "crash-region-only",
            Step(step),
            f"`{_text(case, index)}` writes {size} bytes at {phys:#x}, outside the crash region {region}",
            evidence={"there": owner(case, phys), "instruction": str(index)},
            mend=mend,
        )


FIRMWARE_END = 1 << 20
"""Below it a PC's firmware has worked."""
COMPARED = 1 << 22
"""Frames of RAM, 16 GiB, that are looked through without having seen a store."""


def _left_outside(case: Case, region: Extent, mend: str) -> Iterator[Finding]:
    """What the walk must have written outside the region, by what it has left there.

    That is what of the old kernel is not what it was, and memory that a described host leaves empty.
    """
    frames = np.sort(case.copies.destinations)
    stray = frames[(frames < region.pages.start) | (frames >= region.pages.stop)]
    for frame in stray[:1].tolist():
        yield found(
            "crash-region-only",
            Step.COPY,
            f"the page list has {frame << PAGE_SHIFT:#x} copied to, outside the crash region {region}",
            evidence={"there": owner(case, frame << PAGE_SHIFT), "such pages": str(len(stray))},
            mend=mend,
        )
        return
    for each in case.changes:
        if each.step is not Step.PREPARE and each.first not in region:
            yield found(
                "crash-region-only",
                each.step,
                f"{each.piece.what} was written at {each.first:#x}, outside the crash region {region}",
                mend=mend,
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
    outside = _outside(rows, laid)
    for phys in outside[:, 2].tolist():
        page = Extent.sized(phys, PAGE_SIZE)
        if any(each.covers(page) for each in ram) and any(case.run.memory.read(page)):
            yield found(
                "crash-region-only",
                Step.COPY,
                f"something was written at {phys:#x}, outside the crash region {region}",
                evidence={
                    "there": owner(case, phys),
                    "by": "a store that this machine did not see",
                },
                mend=mend,
            )
            return


EVIDENCE_RULES = (
    Rule(
        id="current-pgd-kept",
        step=Step.PREPARE,
        holds="The current pgd and the tables below it are never written.",
        source="the thread's title: kexec: Avoid overwriting the current pgd",
        check=current_pgd_kept,
    ),
    Rule(
        id="crash-region-only",
        step=Step.PREPARE,
        holds="A crash walk lies in the crash region and writes nowhere else.",
        source="Linux Documentation/admin-guide/kdump/kdump.rst; kimage_load_crash_segment",
        check=crash_region_only,
    ),
)
"""What a dump is taken for.  Asked before the list is: it is the damage that nothing can mend."""
RULES = (
    Rule(
        id="stores-owned",
        step=Step.CALL,
        holds="Every store goes into the control page or the entry stub's page.",
        source="the thread's title: avoid overwriting",
        check=stores_owned,
        needs=frozenset({Sight.STORES}),
    ),
    Rule(
        id="loads-owned",
        step=Step.CALL,
        holds="Every load comes from the control page, the stub's page or the page list.",
        source="Linux commit 786a45757dcd: a read one word above the stack was garbage for a year",
        check=loads_owned,
        needs=frozenset({Sight.LOADS}),
    ),
    Rule(
        id="copies-owned",
        step=Step.COPY,
        holds="Every copy reads a source and writes a destination of the plan.",
        source="the thread, step 6",
        check=copies_owned,
        needs=frozenset({Sight.COPIES}),
    ),
    Rule(
        id="old-kernel-kept",
        step=Step.PREPARE,
        holds="The old kernel's memory is unchanged except for destinations.",
        source="the thread's title",
        check=old_kernel_kept,
    ),
)
