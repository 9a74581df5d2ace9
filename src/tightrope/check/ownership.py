"""Rules about who may touch what: the walk's own pages, and the old kernel's memory.

    owned for writing     what the contracts of the chain say: the control page, the stub's page (its
                          stack), tables in the old kernel's image; and destinations, by copies
    owned for reading     all of the above, and what the contracts say besides: the page list, arguments in memory,
                          the page at V where its code stays there; and sources, by copies

Rules: stores, loads and copies are the machine's arrays of physical addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tightrope.check.alike import among
from tightrope.check.case import Case, owner
from tightrope.check.changes import steps_of
from tightrope.check.rule import Found, finding, rule
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent, union
from tightrope.model import Old, Place, Sight, Step


def outside(rows: NDArray[np.int64], extents: Sequence[Extent]) -> NDArray[np.int64]:
    """The rows (index, step, physical, bytes) that are not wholly inside one of the extents."""
    return rows[~_inside(rows[:, 2], rows[:, 3], extents)]


def _inside(
    at: NDArray[np.int64], sizes: NDArray[np.int64], extents: Sequence[Extent]
) -> NDArray[np.bool_]:
    """Which of these places are wholly inside one of the extents."""
    merged = union(extents)
    starts = np.array([each.start for each in merged], np.int64)
    ends = np.array([each.end for each in merged], np.int64)
    before = starts.searchsorted(at, side="right") - 1
    return (before >= 0) & (at + sizes <= ends[np.maximum(before, 0)])


def _places(case: Case, wanted: frozenset[Place], *, to_write: bool) -> list[Extent]:
    """Where the places of a contract are."""
    return [extent for place in wanted for extent in _place(case, place, to_write=to_write)]


def _place(case: Case, place: Place, *, to_write: bool) -> Sequence[Extent]:
    handover = case.handover
    match place:
        case Place.CONTROL_PAGE:
            return [case.control_page]
        case Place.OWN_PAGE:
            return [Extent.sized(case.intent.stub_at, PAGE_SIZE)]
        case Place.SEGMENTS:
            return [each.destination for each in case.intent.segments]
        case Place.IN_IMAGE:
            return [piece.extent for piece in handover.static]
        case Place.CODE_AT_V:
            return [Extent.sized(handover.world.code_phys, PAGE_SIZE)]
        case Place.ARGUMENTS:
            return handover.world.arguments
        case Place.SWAP_PAGE:
            return case.swap_page
        case Place.PURGATORY:
            return case.purgatory_own if to_write else case.purgatory
        case Place.PAGE_LIST:
            return [Extent.sized(at, PAGE_SIZE) for at in handover.page_list]
        case Place.LOW_MEMORY:
            return [each.source for each in case.intent.backup]
        case Place.BACKUP:
            return case.backup


def _unseen(case: Case, places: Sequence[Extent], *, to_write: bool) -> NDArray[np.int64]:
    """The pages that a stretch touched where nothing is that the walk owns; rows as of loads and
    stores."""
    out = [np.zeros((0, 4), np.int64)]
    for each in case.run.stretches:
        frames = each.writes if to_write else each.reads
        row = (each.instruction, int(each.step), 0, PAGE_SIZE)
        rows = np.tile(np.array(row, np.int64), (len(frames), 1))
        rows[:, 2] = frames << PAGE_SHIFT
        out.append(outside(rows, [place.page_aligned() for place in places]))
    return np.concatenate(out)


def off_old_stack(case: Case, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The accesses that are not the contract's own to the old kernel's stack, while it may be in
    use."""
    last, stack = case.contract.old.get(Old.STACK), case.handover.world.stack
    if last is None or stack is None:
        return rows
    there = (rows[:, 2] >= stack.start) & (rows[:, 2] + rows[:, 3] <= stack.end)
    return rows[~(there & (rows[:, 1] <= last))]


@rule(
    "stores-owned",
    Step.CALL,
    says="Every store goes into the control page or the entry stub's page.",
    source="the thread's title: avoid overwriting",
    mend="keep everything that is written inside the control page",
    needs={Sight.STORES},
)
def stores_owned(case: Case) -> Iterator[Found]:
    """Every store goes to the control page or the stub's page."""
    places = _places(case, case.writes, to_write=True)
    rows = off_old_stack(case, outside(case.run.stores, places))
    if case.run.stretches:
        rows = np.concatenate([rows, _unseen(case, places, to_write=True)])
    for index, step, phys, size in rows[:1].tolist():
        yield finding(
            f"`{case.text(index)}` writes {size} bytes at {phys:#x}, which the walk does not own",
            evidence={"there": owner(case, phys), "instruction": str(index)},
            step=Step(step),
            at=Extent(int(rows[:, 2].min()), int((rows[:, 2] + rows[:, 3]).max())),
        )


@rule(
    "loads-owned",
    Step.CALL,
    says="Every load comes from the control page, the stub's page or the page list.",
    source="Linux commit 786a45757dcd: a read one word above the stack was garbage for a year",
    mend="read only the control page, the list and sources: anything may lie elsewhere",
    needs={Sight.LOADS},
)
def loads_owned(case: Case) -> Iterator[Found]:
    """Every load comes from the control page, the stub's page, the list or a source."""
    places = _places(case, case.reads, to_write=False)
    rows = off_old_stack(case, outside(case.run.loads, places))
    # Under its own pgd it is the old kernel that reads its own gdt and text.
    rows = rows[rows[:, 1] > case.contract.old.get(Old.MEMORY, Step.PREPARE)]
    if case.run.stretches:
        rows = np.concatenate([rows, _unseen(case, places, to_write=False)])
    for index, step, phys, size in rows[:1].tolist():
        yield finding(
            f"`{case.text(index)}` reads {size} bytes at {phys:#x}, which the walk does not own",
            evidence={"there": owner(case, phys), "instruction": str(index)},
            step=Step(step),
        )


@rule(
    "copies-owned",
    Step.COPY,
    says="Every copy reads a source and writes a destination of the plan, or is the code's own work.",
    source="the thread, step 6",
    mend="look at the page list: every destination and source has to be the plan's",
    needs={Sight.COPIES},
)
def copies_owned(case: Case) -> Iterator[Found]:
    """Every copy reads a source and writes a destination of the plan."""
    seen = case.run.copies
    for own in case.purgatory_own if case.loaded else ():  # a digest clears what it has worked with
        seen = seen[(seen[:, 1] < own.start) | (seen[:, 1] + seen[:, 3] > own.end)]
    if not len(seen):
        return
    saved = [np.array(each.source.pages, np.int64) for each in case.intent.backup]
    written = case.intent.destinations
    read = np.concatenate([case.intent.sources, *saved])
    for page in case.swap_page:
        # What a destination held is kept: it changes places with its source, through the swap page.
        written = read = np.concatenate([written, read, np.array([page.start >> PAGE_SHIFT])])
    for column, frames, verb in ((1, written, "writes"), (2, read, "reads")):
        moved = seen[seen[:, column] >= 0]  # a fill reads nothing
        bad = moved[~among(moved[:, column] >> PAGE_SHIFT, np.sort(frames))]
        if len(bad):
            # Less than a page is the code's own work, which it may do where it may store and load.
            to_write = verb == "writes"
            places = _places(case, case.writes if to_write else case.reads, to_write=to_write)
            bad = bad[(bad[:, 3] >= PAGE_SIZE) | ~_inside(bad[:, column], bad[:, 3], places)]
        if len(bad):
            phys = int(bad[0][column])
            yield finding(
                f"a copy {verb} {phys:#x}, which is not in the plan",
                evidence={"there": owner(case, phys), "such copies": str(len(bad))},
                step=Step(steps_of(case.run, bad[:1, 0])[0]),
            )
            return


@rule(
    "old-kernel-kept",
    Step.PREPARE,
    says="The old kernel's memory is unchanged except for destinations.",
    source="the thread's title",
    mend="write destinations and the control page, and nothing else",
)
def old_kernel_kept(case: Case) -> Iterator[Found]:
    """The old kernel's text, gdt, idt and stack are what they were, destinations apart."""
    for each in case.changes:
        if each.piece.phys in case.handover.world.tables:
            continue
        yield finding(
            f"{each.piece.what} was overwritten at {each.first:#x}",
            step=each.step,
        )
        return
