"""Rules about the page list and the copies.

Rules: the list is the one that lay in memory, followed by `page_list`; the copies are those that
the machine saw.  Both are arrays; nothing here loops over pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tightrope.check.case import Case, owner
from tightrope.check.page_list import order
from tightrope.check.rule import Found, finding, rule
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent
from tightrope.model import Promise, Segment, Sight, Step, Stop

KEXEC_CORE = "Linux kernel/kexec_core.c"


@rule(
    "list-ends",
    Step.COPY,
    says="The page list can be followed from its head to IND_DONE.",
    source=f"{KEXEC_CORE}, kimage_add_entry",
    mend="chain the pages with IND_INDIRECTION and end the last with IND_DONE",
)
def list_ends(case: Case) -> Iterator[Found]:
    """The list can be followed from its head to IND_DONE."""
    if case.copies.problem:
        yield finding(
            f"the page list cannot be followed to its end: {case.copies.problem}",
            evidence={"head": f"{case.head:#x}"},
        )


def _not_destination(case: Case, frames: Sequence[int], what: str) -> Iterator[Found]:
    hit = case.destinations_among(frames)
    if hit:
        yield finding(
            f"{what} at {hit[0] << PAGE_SHIFT:#x} is among the destinations",
            step=Step.COPY,
        )


@rule(
    "control-page-kept",
    Step.COPY,
    says="The control page is not among the destinations.",
    source=f"{KEXEC_CORE}, kimage_alloc_normal_control_pages",
    mend="allocate it outside every segment, as kimage_alloc_normal_control_pages does",
)
def control_page_kept(case: Case) -> Iterator[Found]:
    """The control page is nobody's destination."""
    yield from _not_destination(
        case,
        [case.intent.control_page >> PAGE_SHIFT],
        "the control page, which holds the running code,",
    )


@rule(
    "list-kept",
    Step.COPY,
    says="No page of the page list is among the destinations.",
    source=f"{KEXEC_CORE}, kimage_alloc_page",
    mend="allocate its pages outside every segment, as kimage_alloc_page does",
)
def list_kept(case: Case) -> Iterator[Found]:
    """No page of the list is a destination."""
    yield from _not_destination(case, case.list_frames, "a page of the list itself")


@rule(
    "tables-kept",
    Step.COPY,
    says="No page of page_table_a or page_table_b is among the destinations.",
    source="the thread's title: avoid overwriting",
    mend="allocate their pages outside every segment, as kimage_alloc_normal_control_pages does",
)
def tables_kept(case: Case) -> Iterator[Found]:
    """No page table is a destination."""
    yield from _not_destination(case, case.table_frames, "a page table in use")


@rule(
    "source-intact",
    Step.COPY,
    says="A source page is its own destination, or no destination at all.",
    source=f"{KEXEC_CORE}, the comment in kimage_alloc_page",
    mend="keep every source out of all destinations but its own, and segments apart",
)
def source_intact(case: Case) -> Iterator[Found]:
    """No source is read after it was overwritten; no destination is written twice."""
    copies = case.copies
    found_order = order(copies.destinations, copies.sources)
    for bad, text in (
        (found_order.late, "is read after an earlier copy overwrote it"),
        (found_order.strict, "is also another page's destination, which Linux never allows"),
    ):
        if len(bad):
            at = int(bad[0])
            source, target = int(copies.sources[at]), int(copies.destinations[at])
            yield finding(
                f"the source {source << PAGE_SHIFT:#x} of {target << PAGE_SHIFT:#x} {text}",
                evidence={"copy": f"{at} of {len(copies.sources)}", "such pages": str(len(bad))},
                mend="a source is either its own destination or nobody's (kimage_alloc_page)",
            )
            return
    if len(found_order.twice):
        target = int(copies.destinations[int(found_order.twice[0])])
        yield finding(
            f"{target << PAGE_SHIFT:#x} is a destination twice",
            mend="segments must not overlap",
        )


@rule(
    "list-covers",
    Step.COPY,
    says="The list's destinations are exactly the pages of the segments.",
    source="kexec_load(2): memsz",
    mend="one IND_SOURCE per page of memsz of each segment",
)
def list_covers(case: Case) -> Iterator[Found]:
    """The list's destinations are the segments' pages, all of them and no other.

    The plan's own destinations are not asked: the list was written from them.
    """
    wanted = np.unique(_pages_of_segments(case))  # two that share a page: segments-apart tells it
    got = case.copies.destinations
    if len(got) == len(wanted) and np.array_equal(np.sort(got), wanted):
        return
    missing = np.setdiff1d(wanted, got)
    extra = np.setdiff1d(got, wanted)
    ordered = np.sort(got)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(missing):
        frame, problem = int(missing[0]), "is left out of"
    elif len(extra):
        frame, problem = int(extra[0]), "does not belong into"
    else:
        frame, problem = int(again[0]), "is more than once in"
    yield finding(
        f"{frame << PAGE_SHIFT:#x} ({owner(case, frame << PAGE_SHIFT)}) {problem} the page list",
        evidence={
            "left out": str(len(missing)),
            "too many": str(len(extra)),
            "more than once": str(len(again)),
        },
    )


def _pages_of_segments(case: Case) -> NDArray[np.int64]:
    """Frame numbers; none for a crash kernel, which lies where it will run."""
    segments = () if case.intent.crash else case.intent.segments
    pages = (each.destination.pages for each in segments)
    ranges = [np.arange(each.start, each.stop, dtype=np.int64) for each in pages]
    return np.concatenate(ranges) if ranges else np.empty(0, np.int64)


@rule(
    "copies-follow-list",
    Step.COPY,
    says="The copies are those of the list, in its order, one per page that is not in place.",
    source="the thread, step 6",
    mend="follow the flags in the order 1, 2, 4, 8, one page per IND_SOURCE",
    needs={Sight.COPIES},
)
def copies_follow_list(case: Case) -> Iterator[Found]:
    """What was copied is what the list says, in its order; a page in place may be skipped.

    Code that does not promise so much is asked where it copies through a swap page: by three
    copies each.
    """
    swaps = Promise.COPIES_ONCE not in case.contract.promises
    if case.run.stop is not Stop.ENTRY or (swaps and not case.swap_page):
        return
    seen = _joined(case.run.copies)
    wanted = np.stack([case.copies.destinations, case.copies.sources], axis=1)
    wanted = np.where(wanted < 0, -1, wanted << PAGE_SHIFT)
    for page in case.swap_page:
        if swaps:
            wanted = _through(page.start, wanted)
    wanted = wanted[wanted[:, 0] != wanted[:, 1]]
    done = seen[(seen[:, 3] == PAGE_SIZE) & (seen[:, 1] != seen[:, 2])][:, 1:3]
    for kept in case.backup:  # the entry stub's own, and no part of the list
        done = done[(done[:, 0] < kept.start) | (done[:, 0] >= kept.end)]
    if len(done) == len(wanted) and np.array_equal(done, wanted):
        return
    length = min(len(done), len(wanted))
    differ = (done[:length] != wanted[:length]).any(axis=1).nonzero()[0]
    at = int(differ[0]) if len(differ) else length
    yield finding(
        f"the list asks for copy {at} to be {_copy(wanted, at)}, and it was {_copy(done, at)}",
        evidence={"asked": f"{len(wanted)} copies", "seen": f"{len(done)} copies"},
    )


def _joined(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Copies that go on within a page where the one before them ended are one copy.

    Rows are (index, destination, source or -1, bytes), as the machine saw them.
    """
    if len(rows) < 2 or (rows[:, 3] == PAGE_SIZE).all():
        return rows  # as nearly every routine copies
    before, now = rows[:-1], rows[1:]
    goes_on = (now[:, 1] == before[:, 1] + before[:, 3]) & (now[:, 1] % PAGE_SIZE != 0)
    goes_on &= now[:, 2] == np.where(before[:, 2] < 0, -1, before[:, 2] + before[:, 3])
    starts = np.flatnonzero(np.concatenate([[True], ~goes_on]))
    joined = rows[starts]
    joined[:, 3] = np.add.reduceat(rows[:, 3], starts)
    return joined


def _through(swap: int, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Source to swap page, destination to source, swap page to destination, for each row."""
    targets, sources = rows[:, 0], rows[:, 1]
    swaps = np.full(len(rows), swap, np.int64)
    three = [(swaps, sources), (sources, targets), (targets, swaps)]
    return np.stack([np.stack(pair, axis=1) for pair in three], axis=1).reshape(-1, 2)


def _copy(rows: NDArray[np.int64], at: int) -> str:
    """One copy in words: rows are (destination, source), as addresses."""
    if at >= len(rows):
        return "none"
    source = "zeros" if rows[at][1] < 0 else f"{rows[at][1]:#x}"
    return f"{source} -> {rows[at][0]:#x}"


@rule(
    "destinations-complete",
    Step.COPY,
    says="At the entry every destination holds its segment's bytes, zeros behind them.",
    source="kexec_load(2)",
    mend="find what wrote there last; a purgatory that checks a digest would have stopped here",
)
def destinations_complete(case: Case) -> Iterator[Found]:
    """At the entry every destination holds its segment's bytes, zeros behind them."""
    for segment, bad in case.spoilt[:1]:
        at = int(bad[0])
        got = case.run.memory.read(segment.destination)
        size = len(segment.data)
        yield finding(
            f"the {segment.name} is not what it should be: byte {at:#x} at"
            f" {segment.destination.start + at:#x} is {got[at]:#04x}, not"
            f" {segment.data[at] if at < size else 0:#04x}",
            evidence={"wrong bytes": str(len(bad)), "of": f"{segment.destination.size}"},
            at=_all_of(case.spoilt),
        )


def _all_of(spoilt: Iterable[tuple[Segment, NDArray[np.int64]]]) -> Extent:
    """From the first byte that is wrong to the last."""
    ends = [each.destination.start + int(bad[at]) for each, bad in spoilt for at in (0, -1)]
    return Extent(min(ends), max(ends) + 1)
