"""Which RAM there is for the new kernel's segments: what is left alone, what is free, where a hole
is.

Rules: a hole is looked for first in memory that the old kernel can give away, because a page that
can be loaded at its destination needs no copy; then in any RAM but the crash region.  This file
knows extents and limits, and nothing about what lies in a segment.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tightrope.errors import PlanError
from tightrope.memory import PAGE_SIZE, Extent, align_down, align_up, subtract
from tightrope.model import Host, once_a_host
from tightrope.x86.paging import FORMATS

FOUR_GIB = 1 << 32
RSDP_SIZE = 36
"""Bytes of a root pointer (ACPI 6.5, table 5.3)."""
FIRST_MIB = Extent(0, 1 << 20)
"""Left alone: firmware data, and where new kernels put their real-mode trampolines."""


def whole_pages(extents: Iterable[Extent]) -> tuple[Extent, ...]:
    """The whole pages inside each extent."""
    out = []
    for extent in extents:
        start, end = align_up(extent.start, PAGE_SIZE), align_down(extent.end, PAGE_SIZE)
        if start < end:
            out.append(Extent(start, end))
    return tuple(out)


@once_a_host
def ram_for_new_kernel(host: Host) -> tuple[Extent, ...]:
    """RAM where a segment may end up: all of it but the first MiB, the memory of a crash kernel,
    what is kept for the new kernel, and what firmware has there for it to read.

    Where paging is off after step 5, or where an address has no linear address equal to itself, the
    copy cannot reach it: the end is 4 GiB on i386 and PAE, 2^47 with 4 levels, 2^52 with 5.
    """
    reach = 1 << FORMATS[host.paging].identity_bits
    taken = [FIRST_MIB, Extent(reach, 1 << 64)]
    taken += [host.crash_region] if host.crash_region else []
    named = (*host.crash_memory, *host.preserved, *host.firmware)
    taken += [each.extent.page_aligned() for each in named]
    if host.rsdp is not None:
        taken.append(Extent.sized(host.rsdp, RSDP_SIZE).page_aligned())
    return subtract(whole_pages(host.memory.ram), taken)


@once_a_host
def low_ram(host: Host) -> tuple[Extent, ...]:
    """RAM below 1 MiB where a kernel may lie that is linked there: all but the BIOS data area's
    page.

    Nothing is placed there that could lie elsewhere: see FIRST_MIB.
    """
    taken = [Extent(0, PAGE_SIZE), Extent(FIRST_MIB.end, 1 << 64)]
    taken += [each.extent.page_aligned() for each in host.firmware]
    return subtract(whole_pages(host.memory.ram), taken)


def crash_ram(host: Host) -> tuple[Extent, ...]:
    """The whole pages of the crash region above the first MiB: all that a crash kernel may use.

    Raises PlanError when there is no region, or one that the old kernel's walk cannot reach.
    """
    if host.crash_region is None:
        raise PlanError(
            "there is no crash region; `--crash 256M` takes one of that size",
            source=host.source,
            field="crash_region",
        )
    reach = Extent(0, 1 << FORMATS[host.paging].identity_bits)
    if not reach.covers(host.crash_region):
        raise PlanError(
            f"{host.crash_region} has addresses that no linear address can equal",
            source=host.source,
            field="crash_region",
            limit=reach.end,
        )
    return subtract(whole_pages([host.crash_region]), [FIRST_MIB])


@once_a_host
def free_ram(host: Host) -> tuple[Extent, ...]:
    """RAM that the old kernel can give away now: sources, tables and the control page come from
    it."""
    text = Extent.sized(host.text.phys, host.text.size)
    named = (*host.busy, *host.crash_notes)
    busy = [text, host.private, *(each.extent.page_aligned() for each in named)]
    return subtract(ram_for_new_kernel(host), busy)


def find_hole(
    extents: Sequence[Extent],
    size: int,
    *,
    alignment: int = PAGE_SIZE,
    low: int = 0,
    high: int = 1 << 64,
    from_top: bool,
) -> Extent | None:
    """`size` bytes (a page multiple) at a multiple of `alignment` inside one extent and [low,
    high).

    The lowest such place, or the highest with `from_top`; None when there is none.
    """
    for extent in reversed(extents) if from_top else extents:
        bottom, top = max(extent.start, low), min(extent.end, high)
        start = align_down(top - size, alignment) if from_top else align_up(bottom, alignment)
        if bottom <= start and start + size <= top:
            return Extent.sized(start, size)
    return None


def largest(extents: Iterable[Extent]) -> int:
    """Bytes of the largest extent; 0 when there is none."""
    return max((extent.size for extent in extents), default=0)
