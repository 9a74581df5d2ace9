"""Rules about the crash region itself: whose it is, whether it is enough, and where it lies.

    used    what a plan places in it
    left    what the crash kernel has to live on
    needed  what is known to be the least: the decompressor's room, the initrd twice (packed, and as the
            files that it unpacks to), and what a kernel takes until its init runs

Rules: silent where nobody dies.  Each of the three is said with its numbers.
Source: Linux Documentation/admin-guide/kdump/kdump.rst and kernel-parameters.txt, crashkernel=.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.check.case import Case
from tightrope.check.rule import Found, finding, rule
from tightrope.memory import Extent, subtract, union
from tightrope.model import Named, SegmentRole, Step

FOUR_GIB = 1 << 32
SHARE = 4
"""A kernel takes at least a quarter of its init_size besides until it looks for its init.

Seen in QEMU with Debian's 6.1 for amd64, whose init_size is 63.6 MiB, without an initrd: in regions of 64 to
72 MiB it runs out of memory, in one of 80 it gets there.
"""


@rule(
    "crash-region-free",
    Step.PREPARE,
    says="Nothing of the old kernel's, or of firmware's, lies in the crash region.",
    source="Linux arch/x86/kernel/setup.c, reserve_crashkernel: memory that is reserved at boot",
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
    mend = "reserve it where nothing else lies: crashkernel=SIZE@OFFSET, or without an offset"
    for one in used:
        if one.extent.overlaps(region):
            yield finding(
                f"the crash region {region} lies over {one.what} at {one.extent}", mend=mend
            )
            return
    for lost in subtract([region], host.memory.ram)[:1]:
        kind = host.memory.kind_at(lost.start)
        yield finding(
            f"the crash region {region} is no RAM from {lost.start:#x} on:"
            f" {'a hole' if kind is None else f'{kind.value} memory'}",
            mend=mend,
        )


@rule(
    "crash-region-room",
    Step.PREPARE,
    says="The crash region has what decompressor, initrd and the way to init need at least.",
    source="Linux Documentation/admin-guide/kdump/kdump.rst; boot.rst, init_size",
)
def crash_region_room(case: Case) -> Iterator[Found]:
    """Used, left and needed; only Linux with a payload of its own is known well enough."""
    region, image = case.host.crash_region, case.intent.image
    if region is None or not case.intent.crash or not case.linux or image.payload is None:
        return
    initrd = sum(len(each.data) for each in case.intent.segments if each.role is SegmentRole.INITRD)
    used = sum(each.size for each in union(each.destination for each in case.intent.segments))
    to_init = image.init_size // SHARE
    needed = image.init_size + 2 * initrd + to_init
    if needed > region.size:
        yield finding(
            f"the crash region {region} has {_mib(region.size)}, and this kernel needs at least"
            f" {_mib(needed)} until its init runs",
            evidence={
                "used": _mib(used),
                "left": _mib(region.size - used),
                "decompressor": f"{_mib(image.init_size)} (init_size)",
                "initrd": f"{_mib(2 * initrd)} (packed, and what it unpacks to)",
                "to init": f"{_mib(to_init)} (a quarter of init_size)",
            },
            mend=f"crashkernel={-(-needed >> 20)}M or more",
        )


@rule(
    "crash-region-low",
    Step.PREPARE,
    says="A crash kernel whose region lies above 4 GiB has memory below, too.",
    source="Linux Documentation/admin-guide/kernel-parameters.txt, crashkernel=,low: swiotlb and 32-bit DMA",
)
def crash_region_low(case: Case) -> Iterator[Found]:
    """A region that begins above 4 GiB, alone."""
    region = case.host.crash_region
    if region is None or not case.intent.crash or region.start < FOUR_GIB:
        return
    if not case.linux or case.intent.image.payload is None:
        return  # what another kernel needs is not known
    low = [each for each in case.host.crash_memory if each.extent.start < FOUR_GIB]
    if not low:
        yield finding(
            f"the crash region {region} lies above 4 GiB, and the crash kernel has no other memory:"
            " devices that reach 4 GiB alone cannot be used, the dump's disk perhaps among them",
            mend="reserve some below as well: crashkernel=256M,low",
        )


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f} MiB ({size:#x})"
