"""Rules about places: where the image asks to lie, what may be written at all, what is free before
the walk.

    the image's header   address, alignment, room, limits: asked of where it is entered
    the memory map       nothing is written but RAM, and none that firmware or a crash image keeps
    the old kernel       what is laid before the walk lies in frames that nobody uses, each once

Rules: asked of the finished plan, and of nothing that made it: these limits are worked out here
from the header, the host and the segments.  Source: Linux Documentation/arch/x86/boot.rst; where a
relocatable kernel runs in truth: arch/x86/boot/compressed/head_64.S and head_32.S, "Compute the
delta between where we were compiled to run at and where we actually run at".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tightrope.check.alike import among
from tightrope.check.case import Case, owner
from tightrope.check.rule import Found, finding, rule
from tightrope.check.told.reading import told_as_loaded
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Cover, Extent, align_up, subtract, union
from tightrope.model import Host, Named, Piece, Protocol, Step, once_a_host

FOUR_GIB = 1 << 32
RSDP_SIZE = 36
"""Bytes of an RSDP of ACPI 2.0 (ACPI 6.5, table 5.3)."""


def kept(case: Case) -> tuple[Named, ...]:
    """What may be nobody's destination, whatever the memory map calls it."""
    return _kept_in_crash(case.host) if case.intent.crash else _kept(case.host)


@once_a_host
def _kept_in_crash(host: Host) -> tuple[Named, ...]:
    out = [*host.firmware, *host.preserved]
    if host.rsdp is not None:
        out.append(Named(extent=Extent.sized(host.rsdp, RSDP_SIZE), what="the RSDP"))
    return tuple(out)


@once_a_host
def _kept(host: Host) -> tuple[Named, ...]:
    out = list(_kept_in_crash(host))
    if host.crash_region is not None:
        out.append(Named(extent=host.crash_region, what="the crash region"))
        out += host.crash_memory
    return tuple(out)


def runs_in(case: Case) -> Extent:
    """Where the kernel is decompressed to and runs until it reads its memory map.

    A relocatable bzImage goes up to its alignment, and to the address that it was built for.
    """
    image, base = case.intent.image, case.base
    start = base
    if case.linux and image.relocatable and image.payload is not None:
        start = max(align_up(base, max(image.alignment, 1)), image.pref_address)
    return Extent(base, start + image.init_size)


@rule(
    "segments-apart",
    Step.PREPARE,
    says="No two segments share a page.",
    source="Linux kernel/kexec_core.c, sanity_check_segment_list; Xen common/kimage.c",
    mend="place them apart: the one that is copied last overwrites the other",
)
def segments_apart(case: Case) -> Iterator[Found]:
    """The segments in the order of their addresses: each ends before the next one begins."""
    ordered = sorted(case.handover.segments, key=lambda each: each.destination.start)
    for low, high in pairwise(ordered):
        if low.destination.page_aligned().overlaps(high.destination.page_aligned()):
            yield finding(
                f"the {low.name} at {low.destination} and the {high.name} at {high.destination} overlap"
            )
            return


@rule(
    "image-asks",
    Step.PREPARE,
    says="The kernel lies where its header lets it, with all of init_size, and so do initrd and line.",
    source="Linux Documentation/arch/x86/boot.rst: pref_address, kernel_alignment, init_size, initrd_addr_max",
    mend="place it where the image's header lets it lie: `tightrope inspect FILE` says where",
)
def image_asks(case: Case) -> Iterator[Found]:
    """Everything that the image's header asks for, the first that is not met."""
    for problem, mend in _asked(case):
        yield finding(problem, mend=mend)
        return


def _asked(case: Case) -> Iterator[tuple[str, str]]:
    image, base = case.intent.image, case.base
    if not image.relocatable and base != image.pref_address:
        yield (
            f"the kernel lies at {base:#x}, and can only run at {image.pref_address:#x}",
            "load it at pref_address: it is not relocatable",
        )
    alignment = image.min_alignment or image.alignment
    if image.relocatable and base != image.pref_address and alignment and base % alignment:
        yield (
            f"the kernel lies at {base:#x}, which is not a multiple of {alignment:#x}",
            "load it at a multiple of min_alignment",
        )
    room, own = runs_in(case), _own(case)
    for each in case.handover.segments:
        if each.destination.start not in own and each.destination.overlaps(room):
            yield (
                f"the {each.name} at {each.destination} lies where the kernel runs before it reads its"
                f" memory map, {room}",
                "place it outside of [base, where the kernel goes + init_size)",
            )
    for lost in (
        subtract([room], _given(case))[:1] if case.intent.protocol is not Protocol.FLAT else ()
    ):
        yield (
            f"the kernel needs {room} before it reads its memory map, and {lost} is"
            f" {owner(case, lost.start)}",
            "load it where all of init_size is RAM that is the new kernel's",
        )
    for taken in kept(case):
        if taken.extent.overlaps(room) and case.linux:
            yield (
                f"the kernel runs over {taken.what} at {taken.extent}: it needs {room}",
                "load it somewhere else",
            )
    yield from _limits(case)


def _own(case: Case) -> frozenset[int]:
    """Where the kernel's own segments begin."""
    parts = case.intent.image.parts
    return frozenset(case.base + part.offset & -PAGE_SIZE for part in parts)


def _given(case: Case) -> tuple[Extent, ...]:
    """The RAM that the new kernel may have: a crash kernel's region, else all of it."""
    region = case.host.crash_region
    if case.intent.crash:
        return (region,) if region else ()
    if len(case.intent.image.parts) == 1:
        return case.host.memory.ram
    # Whether an image's pieces are RAM is asked of each piece: the hole between two need not be.
    return union([*case.host.memory.ram, runs_in(case)])


def _limits(case: Case) -> Iterator[tuple[str, str]]:
    image, plan = case.intent.image, case.intent
    above = image.above_4g and plan.entry_bits == 64
    told = told_as_loaded(case)
    for place in told.modules if told else ():
        if place.end - 1 > image.initrd_limit and not above:
            yield (
                f"the initrd or a module ends at {place.end:#x}, above {image.initrd_limit:#x}",
                "place it below the image's initrd_addr_max",
            )
    if told and len(told.line) > image.cmdline_limit:
        yield (
            f"the command line has {len(told.line)} bytes, and the image takes {image.cmdline_limit}",
            "shorten it: the kernel reads no further than cmdline_size",
        )
    for each in case.handover.segments:
        if plan.protocol is Protocol.LINUX_64 and not above and each.destination.end > FOUR_GIB:
            yield (
                f"the {each.name} lies at {each.destination}, and the image cannot be loaded above 4 GiB",
                "place it below 4 GiB: the image has no XLF_CAN_BE_LOADED_ABOVE_4G",
            )
    end = runs_in(case).end
    if image.reach is not None and end > image.reach:
        yield (
            f"the kernel ends at {end:#x}, out of its reach {image.reach:#x}",
            "load it lower",
        )


@rule(
    "placed-in-ram",
    Step.PREPARE,
    says="Only RAM is written: no hole, nothing that firmware keeps, no other kernel's crash region.",
    source="Linux kernel/kexec_core.c, sanity_check_segment_list; kexec-tools, arch_check memory ranges",
    mend="place it in RAM that is nobody else's",
)
def placed_in_ram(case: Case) -> Iterator[Found]:
    """Every destination against the memory map and the firmware's places."""
    ram, taken, whole = case.host.memory.ram, kept(case), _ram(case.host)
    for each in case.handover.segments:
        missing = () if whole.covers(each.destination) else subtract([each.destination], ram)
        for lost in missing[:1]:
            yield finding(
                f"the {each.name} at {each.destination} is not RAM from {lost.start:#x} on:"
                f" {owner(case, lost.start)}"
                if not case.host.memory.kind_at(lost.start)
                else f"the {each.name} at {each.destination} lies in"
                f" {case.host.memory.kind_at(lost.start)} memory from {lost.start:#x} on",
            )
            return
        for one in taken:
            if one.extent.overlaps(each.destination):
                yield finding(
                    f"the {each.name} at {each.destination} is written over {one.what} at {one.extent}"
                )
                return
    for frame in _no_ram(case, case.intent.destinations)[:1].tolist():
        at = frame << PAGE_SHIFT
        yield finding(f"a page is copied to {at:#x}, and that is {owner_of(case, at)}")


@once_a_host
def _ram(host: Host) -> Cover:
    return Cover(host.memory.ram)


def _no_ram(case: Case, frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """Which frames are not whole pages of RAM."""
    ram = np.zeros(len(frames), np.bool_)
    for region in case.host.memory.ram:
        ram |= (frames >= -(-region.start // PAGE_SIZE)) & (frames < region.end // PAGE_SIZE)
    return frames[~ram]


@rule(
    "laid-free",
    Step.PREPARE,
    says="What is laid before the walk lies in free frames of RAM, and no two things share one.",
    source="Linux kernel/kexec_core.c, kimage_alloc_page and kimage_alloc_control_pages",
    mend="take frames that the old kernel can give away",
)
def laid_free(case: Case) -> Iterator[Found]:
    """The handover's pieces and the sources, against everything that the old kernel still uses."""
    used = (_used_in_crash if case.intent.crash else _used)(case.host)
    owners: dict[int, Piece] = {}
    for piece in case.pieces:
        extent = piece.extent
        if not used.free.covers(extent):
            yield finding(f"{piece.what} is laid at {extent}, {_taken(case, used, extent)}")
            return
        for frame in extent.pages:
            if frame in owners:
                yield finding(
                    f"{piece.what} is laid at {frame << PAGE_SHIFT:#x}, over {owners[frame].what}"
                )
                return
            owners[frame] = piece
    yield from _sources(case, used, owners)


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """What may not be taken for a while, and all the rest of RAM."""

    what: tuple[Named, ...]
    pages: tuple[range, ...]
    """The frame numbers of each."""
    begin: NDArray[np.int64]
    """The first of each."""
    free: Cover


@once_a_host
def _used(host: Host) -> Used:
    return _all_used(host, _kept(host))


@once_a_host
def _used_in_crash(host: Host) -> Used:
    return _all_used(host, _kept_in_crash(host))


def _all_used(host: Host, kept: tuple[Named, ...]) -> Used:
    used = (
        Named(extent=Extent.sized(host.text.phys, host.text.size), what="the old kernel's text"),
        Named(extent=host.private, what="the old kernel's private memory"),
        *host.busy,
        *host.crash_notes,
        *kept,
    )
    pages = tuple(each.extent.pages for each in used)
    return Used(
        what=used,
        pages=pages,
        begin=np.array([each.start for each in pages], np.int64),
        free=Cover(subtract(host.memory.ram, [each.extent for each in used])),
    )


def _taken(case: Case, used: Used, extent: Extent) -> str:
    """Why an extent is not free."""
    for lost in subtract([extent], case.host.memory.ram)[:1]:
        return f"and {lost.start:#x} is {owner_of(case, lost.start)}"
    return next(f"over {one.what} {one.extent}" for one in used.what if one.extent.overlaps(extent))


def owner_of(case: Case, phys: int) -> str:
    """What the memory map has there."""
    kind = case.host.memory.kind_at(phys)
    return "a hole" if kind is None else f"{kind.value} memory"


def _sources(case: Case, used: Used, owners: dict[int, Piece]) -> Iterator[Found]:
    """The frames that the new kernel is kept in until it is copied."""
    plan = case.intent
    count = min(len(plan.sources), len(plan.destinations))
    moved = plan.sources[:count] != plan.destinations[:count]
    frames = np.sort(plan.sources[:count][moved & (plan.sources[:count] >= 0)])
    for frame in _no_ram(case, frames)[:1].tolist():
        at = frame << PAGE_SHIFT
        yield finding(f"a source is laid at {at:#x}, and that is {owner_of(case, at)}")
        return
    hit = frames[among(frames, np.array(sorted(owners), np.int64))]
    for frame in hit[:1].tolist():
        yield finding(f"a source is laid at {frame << PAGE_SHIFT:#x}, over {owners[frame].what}")
        return
    first = frames.searchsorted(used.begin)
    for one, its, at in zip(used.what, used.pages, first.tolist(), strict=True):
        if at < len(frames) and frames[at] < its.stop:
            yield finding(
                f"a source is laid at {int(frames[at]) << PAGE_SHIFT:#x}, over {one.what} {one.extent}"
            )
            return
