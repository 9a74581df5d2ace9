"""What a running guest has in memory twice, written by two programs apart from each other, agrees.

    control page   against the kernel's own relocate_kernel
    page list      against the segments of struct kimage

Rules: only a guest that is watched has both, so that a rehearsal does not ask these.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.memory import PAGE_SHIFT
from tightrope.model import ZERO_FRAME, Step

MEND = "load again, and find what has written there since the load"


@rule(
    "control-page-is-the-kernels",
    Step.CALL,
    says="The control page is the kernel's relocate_kernel, but for what a load fills in.",
    source="Linux arch/x86/kernel/machine_kexec_64.c, machine_kexec_prepare",
    mend=MEND,
)
def control_page_is_the_kernels(case: Case) -> Iterator[Found]:
    if case.apart is None:
        return
    apart = case.apart
    wanted, had = bytearray(apart.kernels), bytearray(apart.laid[: len(apart.kernels)])
    for hole in apart.filled:
        wanted[hole.start : hole.end] = had[hole.start : hole.end] = bytes(hole.size)
    bad = (np.frombuffer(wanted, np.uint8) != np.frombuffer(had, np.uint8)).nonzero()[0]
    if len(bad):
        at = int(bad[0])
        label = max((o, n) for n, o in apart.labels.items() if o <= at)[1]
        yield finding(
            f"the control page is not the kernel's {apart.routine}: byte {at:#x} ({label}) is"
            f" {had[at]:#04x}, not {wanted[at]:#04x}",
            evidence={"wrong bytes": str(len(bad))},
        )


@rule(
    "list-is-the-segments",
    Step.COPY,
    says="The page list has each page of each segment once, in order, from a frame of its own.",
    source="Linux kernel/kexec_core.c, kimage_load_normal_segment",
    mend=MEND,
)
def list_is_the_segments(case: Case) -> Iterator[Found]:
    if case.apart is None:
        return
    apart = case.apart
    if apart.broken is not None:
        yield finding("the page list does not end", evidence={"how": apart.broken})
        return
    if case.intent.crash:
        return  # a crash image lies where it is entered
    wanted = np.concatenate([np.array(each.pages, np.int64) for each in apart.segments])
    had = apart.destinations
    if len(had) == len(wanted) and bool((had == wanted).all()):
        taken = apart.sources[apart.sources != ZERO_FRAME]
        frames, counts = np.unique(taken, return_counts=True)
        twice = frames[counts > 1]
        if len(twice):
            at = int((apart.sources == twice[0]).nonzero()[0][-1])
            place = f"{int(had[at]) << PAGE_SHIFT:#x}"
            yield finding(
                f"the page list takes frame {int(twice[0]):#x} twice, the second time for {place}",
                evidence={"frames taken twice": str(len(twice))},
            )
        return
    both = min(len(had), len(wanted))
    odd = (had[:both] != wanted[:both]).nonzero()[0]
    at = int(odd[0]) if len(odd) else both
    yield finding(
        "the page list is not that of the segments: "
        + (
            f"page {at} goes to {int(had[at]) << PAGE_SHIFT:#x}, not to"
            f" {int(wanted[at]) << PAGE_SHIFT:#x}"
            if len(odd)
            else f"it has {len(had)} pages of {len(wanted)}"
        ),
        evidence={"pages": f"{len(had)} in the list, {len(wanted)} in the segments"},
    )
