"""Rules about the page list and the copies.

Rules: the list is the one that lay in memory, followed by `page_list`; the copies are those that the
machine saw.  Both are arrays; nothing here loops over pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tightrope.check.page_list import order
from tightrope.check.rule import Case, Rule, found, owner
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE
from tightrope.model import Finding, Sight, Step, Stop


def list_ends(case: Case) -> Iterator[Finding]:
    """The list can be followed from its head to IND_DONE."""
    if case.copies.problem:
        yield found(
            "list-ends",
            Step.COPY,
            f"the page list cannot be followed to its end: {case.copies.problem}",
            evidence={"head": f"{case.head:#x}"},
            mend="chain the pages with IND_INDIRECTION and end the last with IND_DONE",
        )


def _not_destination(case: Case, rule: str, frames: Sequence[int], what: str) -> Iterator[Finding]:
    hit = case.destinations_among(frames)
    if hit:
        yield found(
            rule,
            Step.COPY,
            f"{what} at {hit[0] << PAGE_SHIFT:#x} is among the destinations",
            mend="allocate it outside every segment, as kimage_alloc_normal_control_pages does",
        )


def control_page_kept(case: Case) -> Iterator[Finding]:
    """The control page is nobody's destination."""
    yield from _not_destination(
        case,
        "control-page-kept",
        [case.plan.control_page >> PAGE_SHIFT],
        "the control page, which holds the running code,",
    )


def list_kept(case: Case) -> Iterator[Finding]:
    """No page of the list is a destination."""
    yield from _not_destination(case, "list-kept", case.list_frames, "a page of the list itself")


def tables_kept(case: Case) -> Iterator[Finding]:
    """No page table is a destination."""
    yield from _not_destination(case, "tables-kept", case.table_frames, "a page table in use")


def source_intact(case: Case) -> Iterator[Finding]:
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
            yield found(
                "source-intact",
                Step.COPY,
                f"the source {source << PAGE_SHIFT:#x} of {target << PAGE_SHIFT:#x} {text}",
                evidence={"copy": f"{at} of {len(copies.sources)}", "such pages": str(len(bad))},
                mend="a source is either its own destination or nobody's (kimage_alloc_page)",
            )
            return
    if len(found_order.twice):
        target = int(copies.destinations[int(found_order.twice[0])])
        yield found(
            "source-intact",
            Step.COPY,
            f"{target << PAGE_SHIFT:#x} is a destination twice",
            mend="segments must not overlap",
        )


def list_covers(case: Case) -> Iterator[Finding]:
    """The list's destinations are the segments' pages, all of them and no other."""
    wanted = case.plan.destinations[: 0 if case.plan.crash else None]
    got = case.copies.destinations
    if len(got) == len(wanted) and np.array_equal(np.sort(got), np.sort(wanted)):
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
    yield found(
        "list-covers",
        Step.COPY,
        f"{frame << PAGE_SHIFT:#x} ({owner(case, frame << PAGE_SHIFT)}) {problem} the page list",
        evidence={
            "left out": str(len(missing)),
            "too many": str(len(extra)),
            "more than once": str(len(again)),
        },
        mend="one IND_SOURCE per page of memsz of each segment",
    )


def copies_follow_list(case: Case) -> Iterator[Finding]:
    """What was copied is what the list says, in its order; a page in place may be skipped."""
    if case.run.stop is not Stop.ENTRY:
        return
    seen = case.run.copies
    moved = case.copies.sources != case.copies.destinations
    wanted = np.stack([case.copies.destinations[moved], case.copies.sources[moved]], axis=1)
    wanted = np.where(wanted < 0, -1, wanted << PAGE_SHIFT)
    done = seen[(seen[:, 3] == PAGE_SIZE) & (seen[:, 1] != seen[:, 2])][:, 1:3]
    for kept in case.backup:  # the entry stub's own, and no part of the list
        done = done[(done[:, 0] < kept.start) | (done[:, 0] >= kept.end)]
    if len(done) == len(wanted) and np.array_equal(done, wanted):
        return
    length = min(len(done), len(wanted))
    differ = np.nonzero((done[:length] != wanted[:length]).any(axis=1))[0]
    at = int(differ[0]) if len(differ) else length
    yield found(
        "copies-follow-list",
        Step.COPY,
        f"the list asks for copy {at} to be {_copy(wanted, at)}, and it was {_copy(done, at)}",
        evidence={"asked": f"{len(wanted)} copies", "seen": f"{len(done)} copies"},
        mend="follow the flags in the order 1, 2, 4, 8, one page per IND_SOURCE",
    )


def _copy(rows: NDArray[np.int64], at: int) -> str:
    """One copy in words: rows are (destination, source), as addresses."""
    if at >= len(rows):
        return "none"
    source = "zeros" if rows[at][1] < 0 else f"{rows[at][1]:#x}"
    return f"{source} -> {rows[at][0]:#x}"


def destinations_complete(case: Case) -> Iterator[Finding]:
    """At the entry every destination holds its segment's bytes, zeros behind them."""
    if case.run.stop is not Stop.ENTRY:
        return
    for segment in case.plan.segments:
        if any(each.overlaps(segment.destination) for each in case.backup):
            continue  # see backup-complete
        got = case.run.memory.read(segment.destination)
        size = len(segment.data)
        wanted = memoryview(segment.data)
        stub = segment.destination.start == case.plan.entry
        if stub:
            # The stub's page is also its stack: the words that it pushed lie at the page's end.
            got, size = got[:size], size
        if not _equal(got[:size], wanted):
            a, b = np.frombuffer(got[:size], np.uint8), np.frombuffer(wanted, np.uint8)
            wrong = np.nonzero(a != b)[0]
        else:
            tail = np.frombuffer(got[size:], np.uint8)
            if not _any(tail):
                continue
            wrong = np.nonzero(tail)[0] + size
        at = int(wrong[0])
        yield found(
            "destinations-complete",
            Step.COPY,
            f"the {segment.name} is not what it should be: byte {at:#x} at"
            f" {segment.destination.start + at:#x} is {got[at]:#04x}, not"
            f" {wanted[at] if at < size else 0:#04x}",
            evidence={"wrong bytes": str(len(wrong)), "of": f"{segment.destination.size}"},
            mend="see what wrote there last; a purgatory's checksum would have stopped here",
        )
        return


def _equal(one: memoryview, other: memoryview) -> bool:
    """Compare bytes at memory speed: memoryview's own == looks at one element after the other."""
    return bool(np.array_equal(np.frombuffer(one, np.uint8), np.frombuffer(other, np.uint8)))


def _any(data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> bool:
    """Whether any byte is not zero, eight at a time where they are aligned."""
    whole = len(data) & ~7
    return bool(data[:whole].view(np.uint64).any() or data[whole:].any())


KEXEC_CORE = "Linux kernel/kexec_core.c"
RULES = (
    Rule(
        id="list-ends",
        step=Step.COPY,
        holds="The page list can be followed from its head to IND_DONE.",
        source=f"{KEXEC_CORE}, kimage_add_entry",
        check=list_ends,
    ),
    Rule(
        id="control-page-kept",
        step=Step.COPY,
        holds="The control page is not among the destinations.",
        source=f"{KEXEC_CORE}, kimage_alloc_normal_control_pages",
        check=control_page_kept,
    ),
    Rule(
        id="list-kept",
        step=Step.COPY,
        holds="No page of the page list is among the destinations.",
        source=f"{KEXEC_CORE}, kimage_alloc_page",
        check=list_kept,
    ),
    Rule(
        id="tables-kept",
        step=Step.COPY,
        holds="No page of page_table_a or page_table_b is among the destinations.",
        source="the thread's title: avoid overwriting",
        check=tables_kept,
    ),
    Rule(
        id="source-intact",
        step=Step.COPY,
        holds="A page that is a source is either its own destination or nobody's.",
        source=f"{KEXEC_CORE}, the comment in kimage_alloc_page",
        check=source_intact,
    ),
    Rule(
        id="list-covers",
        step=Step.COPY,
        holds="The list's destinations are exactly the pages of the segments.",
        source="kexec_load(2): memsz",
        check=list_covers,
    ),
    Rule(
        id="copies-follow-list",
        step=Step.COPY,
        holds="The copies are those of the list, in its order, one per page that is not in place.",
        source="the thread, step 6",
        check=copies_follow_list,
        needs=frozenset({Sight.COPIES}),
    ),
    Rule(
        id="destinations-complete",
        step=Step.COPY,
        holds="At the entry every destination holds its segment's bytes, zeros behind them.",
        source="kexec_load(2)",
        check=destinations_complete,
    ),
)
