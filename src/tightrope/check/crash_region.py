"""Rules about the crash region itself: whose it is, whether it is enough, and where it lies.

    used    what a plan places in it
    left    what the crash kernel has to live on, as far as its command line lets it
    needed  what is known to be the least: see `room`

Rules: silent where nobody dies.  Each of the three is said with its numbers.  What is certain is a
finding, what has been seen to go wrong on some machines is advice.
Source: Linux Documentation/admin-guide/kdump/kdump.rst and kernel-parameters.txt, crashkernel=.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.check.case import Case
from tightrope.check.room import mib, needed_by, there_is
from tightrope.check.rule import Found, advice, finding, rule
from tightrope.memory import Extent, subtract, union
from tightrope.model import Named, Step

FOUR_GIB = 1 << 32


@rule(
    "crash-region-free",
    Step.PREPARE,
    says="Nothing of the old kernel's, or of firmware's, lies in the crash region.",
    source="Linux arch/x86/kernel/setup.c, reserve_crashkernel: memory that is reserved at boot",
    mend="reserve it where nothing else lies: crashkernel=SIZE@OFFSET, or without an offset",
)
def crash_region_free(case: Case) -> Iterator[Found]:
    """The region against everything that the host says is in use, and against its memory map."""
    region, host = case.host.crash_region, case.host
    if region is None or not case.intent.crash:
        return
    used = [
        Named(extent=Extent.sized(host.text.phys, host.text.size), what="the old kernel's text"),
        Named(extent=host.private, what="the old kernel's private memory"),
        *host.busy,
        *host.crash_notes,
        *host.firmware,
    ]
    for one in used:
        if one.extent.overlaps(region):
            yield finding(f"the crash region {region} lies over {one.what} at {one.extent}")
            return
    for lost in subtract([region], host.memory.ram)[:1]:
        kind = host.memory.kind_at(lost.start)
        yield finding(
            f"the crash region {region} is not RAM from {lost.start:#x} on:"
            f" {'a hole' if kind is None else f'{kind.value} memory'}",
        )


@rule(
    "crash-region-room",
    Step.PREPARE,
    says="The crash region has the room that decompressor, initrd and the way to init need at least.",
    source="Linux Documentation/admin-guide/kdump/kdump.rst; boot.rst, init_size",
    mend="reserve more (crashkernel=SIZE), or take mem= and memmap= off the crash kernel's line",
)
def crash_region_room(case: Case) -> Iterator[Found]:
    """Used, left and needed; without a payload of its own a kernel is known too little."""
    region = case.host.crash_region
    if region is None or not case.intent.crash or not case.linux:
        return
    memory = (region, *(each.extent for each in case.host.crash_memory))
    there, said = there_is(case, memory)
    if case.intent.image.payload is None and not said:
        return
    needed = needed_by(case)
    used = sum(each.size for each in union(each.destination for each in case.intent.segments))
    evidence = {"used": mib(used), "left": mib(there - used), **needed.evidence}
    mend = f"crashkernel={-(-needed.wanted >> 20)}M or more"
    left = ""
    if said:
        left = f" that {said} leaves"
        mend = f"leave {said.partition('=')[0]}= out: the crash kernel is told its memory"
    if needed.least > there:
        yield finding(
            f"the crash region {region} has {mib(there)}{left}, and this kernel needs at least"
            f" {mib(needed.least)} until its init runs",
            evidence=evidence,
            mend=mend,
        )
    elif needed.wanted > there:
        yield advice(
            f"the crash region {region} has {mib(there)}{left}, which may be too small:"
            f" kernels have been seen to want {mib(needed.wanted)} until their init runs",
            evidence=evidence,
            mend=mend,
        )


@rule(
    "crash-region-low",
    Step.PREPARE,
    says="A crash kernel whose region lies above 4 GiB has some memory below it, too.",
    source="Linux Documentation/admin-guide/kernel-parameters.txt, crashkernel=,low: swiotlb and 32-bit DMA",
    mend="reserve some below as well: crashkernel=256M,low",
)
def crash_region_low(case: Case) -> Iterator[Found]:
    """A region that begins above 4 GiB, alone: the kernel comes up, and its disk's driver may
    not."""
    region = case.host.crash_region
    if region is None or not case.intent.crash or region.start < FOUR_GIB:
        return
    if not case.linux or case.intent.image.payload is None:
        return  # what another kernel needs is not known
    low = [each for each in case.host.crash_memory if each.extent.start < FOUR_GIB]
    if not low:
        yield advice(
            f"the crash region {region} lies above 4 GiB, and the crash kernel has no other memory:"
            " devices that reach 4 GiB alone cannot be used, the dump's disk perhaps among them",
        )
