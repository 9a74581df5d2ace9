"""Rules about the crash region itself: whose it is, whether it is enough, and where it lies.

    used    what a plan places in it
    left    what the crash kernel has to live on, as far as mem= lets it
    needed  what is known to be the least: the decompressor's room, the initrd packed and unpacked, and
            what a kernel takes until its init runs

Rules: silent where nobody dies.  Each of the three is said with its numbers.  What is certain is a
finding, what has been seen to go wrong on some machines is advice.
Source: Linux Documentation/admin-guide/kdump/kdump.rst and kernel-parameters.txt, crashkernel=, mem=.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.check.case import Case
from tightrope.check.rule import Found, advice, finding, rule
from tightrope.check.told.core_header import memparse
from tightrope.memory import Extent, subtract, union
from tightrope.model import Named, SegmentRole, Step

FOUR_GIB = 1 << 32
MIB = 1 << 20
LIMIT = b"mem="
LEAST, ENOUGH = 8 * MIB, 24 * MIB
"""What a kernel takes besides until its init runs: no less than the first, and seldom more than
the second.

Seen in QEMU on a PC with one CPU and an initrd of 2 MiB that unpacks to as much, region by region
in steps of 2 MiB: above init_size and initrd Debian's kernels came to their init with 8 MiB and
more (6.12), with 15 (6.1 for 686-pae), 18 (7.3) and 19 (6.1 for amd64); with 2 MiB less they ran
out of memory.
"""
SPARE = 16 * MIB
"""The same where it is the root file system's limit that counts: between what surely fails and
what holds."""


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
    packed = sum(len(each.data) for each in case.intent.segments if each.role is SegmentRole.INITRD)
    files = (packed if case.unpacked is None else case.unpacked) if packed else 0
    used = sum(each.size for each in union(each.destination for each in case.intent.segments))
    limit = _limit(case)
    there = _there(case, region, limit)
    # A root file system of tmpfs takes half of the memory that is there (mm/shmem.c); root= makes it ramfs
    # (init/do_mounts.c, init_rootfs), which takes all.  6.12 says "write error" to one that is
    # larger.
    halved = 0 if any(word.startswith(b"root=") for word in _words(case)) else files
    certain = image.init_size + packed + files
    needed = certain + max(LEAST, halved)
    wanted = certain + max(ENOUGH, halved + SPARE if halved else 0)
    evidence = {
        "used": _mib(used),
        "left": _mib(there - used),
        "decompressor": f"{_mib(image.init_size)} (init_size)",
        "initrd": f"{_mib(packed)} packed, {_mib(files)} unpacked"
        + (", in a tmpfs that takes half of the memory" if halved > LEAST else ""),
        "to init": f"{_mib(LEAST)} at least",
    }
    mend = f"crashkernel={-(-wanted >> 20)}M or more"
    if limit is not None:
        mend = "leave mem= out: the crash kernel is told its memory"
    if needed > there:
        yield finding(
            f"the crash region {region} has {_mib(there)}{_below(limit)}, and this kernel needs at least"
            f" {_mib(needed)} until its init runs",
            evidence=evidence,
            mend=mend,
        )
    elif wanted > there:
        yield advice(
            f"the crash region {region} has {_mib(there)}{_below(limit)}, which may be too small:"
            f" kernels have been seen to want {_mib(wanted)} until their init runs",
            evidence=evidence,
            mend=mend,
        )


@rule(
    "crash-region-low",
    Step.PREPARE,
    says="A crash kernel whose region lies above 4 GiB has memory below, too.",
    source="Linux Documentation/admin-guide/kernel-parameters.txt, crashkernel=,low: swiotlb and 32-bit DMA",
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
            mend="reserve some below as well: crashkernel=256M,low",
        )


def _words(case: Case) -> list[bytes]:
    """The words of the command line as it is planned."""
    role = SegmentRole.COMMAND_LINE
    lines = (bytes(each.data) for each in case.intent.segments if each.role is role)
    return next(lines, b"").split()


def _there(case: Case, region: Extent, limit: int | None) -> int:
    """Bytes that the crash kernel may use.

    Where mem= takes away what the kernel itself lies in, Linux keeps that (arch/x86/kernel/setup.c,
    e820_add_kernel_range): no more than the room that its header asks for.
    """
    image, base = case.intent.image, case.base
    memory = (region, *(each.extent for each in case.host.crash_memory))
    if limit is None:
        return sum(each.size for each in memory)
    kept = [Extent(0, limit), Extent.sized(base, image.init_size)]
    return sum(each.size for each in union(subtract(memory, subtract(memory, kept))))


def _limit(case: Case) -> int | None:
    """The end of memory that the command line states, in bytes; None without one.

    The kernel removes all RAM from there on, and of several limits each counts; mem=0 and what is
    no number are passed over (arch/x86/kernel/e820.c, parse_memopt).
    Words behind -- are init's (kernel/params.c, parse_args).
    """
    words = _words(case)
    words = words[: words.index(b"--")] if b"--" in words else words
    bare = (each.removeprefix(b'"') for each in words)
    said = (memparse(each.removeprefix(LIMIT)) for each in bare if each.startswith(LIMIT))
    return min((each[0] for each in said if each and each[0]), default=None)


def _below(limit: int | None) -> str:
    return "" if limit is None else f" that mem={limit:#x} leaves"


def _mib(size: int) -> str:
    return f"{size / MIB:.1f} MiB ({size:#x})"
