"""Rules about a loader's purgatory: what it takes in, and what stands in the way of the new kernel.

    what it read    loads that were watched, and the pages of stretches that ran unseen
    where it stays  in a jump to itself, or for ever: it has found something that is not what was loaded

Rules: what a purgatory does is what the machine saw of it; its names are asked for evidence alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tightrope.check.alike import wrong
from tightrope.check.case import Case
from tightrope.check.rule import Found, advice, finding, rule
from tightrope.memory import PAGE_SHIFT
from tightrope.model import Kind, Participant, Segment, SegmentRole, Sight, Step, Stop

ROW, ROWS = 16, 16
"""A row of a purgatory's list is an address and a size, 8 bytes each; there are 16
(kexec-sha256.h)."""


@rule(
    "digest-agrees",
    Step.COPY,
    says="A loader's purgatory finds what was loaded, and lets the new kernel be entered.",
    source="Linux arch/x86/purgatory/purgatory.c, verify_sha256_digest; kexec-tools purgatory/purgatory.c",
    mend="load again, or find what has written there since the load",
)
def digest_agrees(case: Case) -> Iterator[Found]:
    """A walk that stays in the purgatory, and the segment that is why."""
    program, where = _program(case), case.intent.purgatory
    stays = case.run.stop in (Stop.HALT, Stop.LIMIT)
    if program is None or where is None or not stays or case.run.registers.rip not in where:
        return
    told = {
        "stays at": f"{case.run.registers.rip:#x}, {case.run.texts.get(case.run.registers.rip, '?')}",
        "on a real machine": "nothing moves and nothing is said, unless kexec had --console-serial or -vga",
    }
    for segment, bad in _changed(case):
        at = int(bad[0])
        yield finding(
            f"{program.name} does not let the new kernel be entered: the {segment.name} is not what was"
            f" loaded, byte {at:#x} at {segment.destination.start + at:#x} is another",
            evidence={"wrong bytes": str(len(bad)), **told},
            mend="see what wrote there after the load",
        )
        return
    odd = _odd_region(case, program)
    yield finding(
        f"{program.name} does not let the new kernel be entered, and every segment is as it was loaded: "
        + (odd or "its digest is not that of what it looks at"),
        evidence=told,
        mend="load again: digest and list are made when the image is loaded",
    )


@rule(
    "digest-covers",
    Step.COPY,
    says="A loader's digest covers all that the new kernel is handed: other damage goes unseen.",
    source="Linux kernel/kexec_file.c, kexec_calculate_store_digests; kexec-tools' --no-checks",
    mend="load with a digest: without one, damage shows only when the new kernel runs",
    needs={Sight.LOADS},
)
def digest_covers(case: Case) -> Iterator[Found]:
    """Pages of segments that the purgatory never read."""
    if _program(case) is None or case.run.stop is not Stop.ENTRY:
        return
    read = case.once(_read)
    missed = [
        (segment, int((~np.isin(np.array(segment.destination.pages), read)).sum()))
        for segment in case.intent.segments
        if segment.role is not SegmentRole.PURGATORY
    ]
    left = [(segment, count) for segment, count in missed if count]
    if not left:
        return
    all_of_them = len(left) == len(missed)
    names = ", ".join(f"the {segment.name}" for segment, _ in left)
    yield advice(
        "the purgatory looks at nothing that was loaded"
        if all_of_them
        else f"the purgatory does not look at {names}",
        evidence={"pages": str(sum(count for _, count in left))},
    )


def _program(case: Case) -> Participant | None:
    """The purgatory of somebody else's segments."""
    if case.loaded is None:
        return None
    return next((each for each in case.handover.chain if each.kind is Kind.PURGATORY), None)


def _changed(case: Case) -> Iterator[tuple[Segment, NDArray[np.int64]]]:
    """Segments that are not what the loader handed over, where they lie."""
    for segment in case.intent.segments:
        if segment.role is not SegmentRole.PURGATORY:
            bad = wrong(case.run.memory.read(segment.destination), segment.data)
            if len(bad):
                yield segment, bad


def _read(case: Case) -> NDArray[np.int64]:
    """Frames that were read, each once."""
    frames = [case.run.loads[:, 2] >> PAGE_SHIFT, *(each.reads for each in case.run.stretches)]
    return np.unique(np.concatenate(frames))


def _odd_region(case: Case, program: Participant) -> str:
    """A row of the purgatory's list that is not a segment's, in words; "" where none is, or where
    it is not known."""
    at, where = program.code.symbols.get("regions"), case.intent.purgatory
    if at is None or where is None:
        return ""
    data = bytes(case.run.memory.read(where))[at : at + ROW * ROWS]
    places = {(each.destination.start, each.destination.size) for each in case.intent.segments}
    for row in range(0, len(data), ROW):
        start, size = (int.from_bytes(data[row + n : row + n + 8], "little") for n in (0, 8))
        if size and (start, size) not in places:
            return f"its list has {size:#x} bytes at {start:#x}, which is not a segment"
    named = sum(int.from_bytes(data[n + 8 : n + ROW], "little") for n in range(0, len(data), ROW))
    if named < sum(size for _, size in places) - where.size:
        return "its list does not name all of them"
    return ""
