"""Old kernels that have a crash region, of every mode and split, for the tests of kdump.

    example()      the example host of a mode, its region anywhere
    small_kernel() eight pages that may go anywhere from 16 MiB up
    crash_hosts()  random ones: mode, split, region, busy memory, ragged RAM, notes

Rules: regions are whole pages apart from the old kernel itself, as `host.read` demands; nothing of
`tightrope.plan` is used.
"""

from __future__ import annotations

from dataclasses import replace

from hypothesis import assume
from hypothesis import strategies as st

from tests.makers.hosts import GIB, MIB, PAGE, read_image
from tightrope import host as host_room
from tightrope.host.examples import PAGE_OFFSETS
from tightrope.memory import Extent, MemoryMap, Region, RegionKind, subtract
from tightrope.model import Host, Image, Named, Paging

REGION = Extent.sized(0x3300_0000, 0x1000_0000)
LEGACY = (Paging.I386, Paging.PAE)


def example(
    paging: Paging = Paging.X86_64, region: Extent | None = REGION, split: int | None = None
) -> Host:
    """The example host of a mode; None leaves the region out."""
    text = host_room.example(paging, split, region)
    return host_room.read(text, f"the {paging.value} example")


def small_kernel(**fields: int) -> Image:
    """Eight pages at 16 MiB or anywhere above, at any page.

    Nothing in it is unpacked, so nobody asks what a Linux needs until its init runs.
    """
    image = read_image(
        **{"init_size": 8 * PAGE, "alignment": PAGE, "min_alignment": 12, "kernel_size": 100}
        | {"pref_address": 16 * MIB, "relocatable": True}
        | fields
    )
    return replace(image, payload=None)


@st.composite
def crash_hosts(draw: st.DrawFn, pagings: tuple[Paging, ...] = tuple(Paging)) -> Host:
    """Random hosts; each has a region that nobody else lies in, large enough for a small kernel."""
    paging = draw(st.sampled_from(pagings))
    splits = st.none() | st.sampled_from(PAGE_OFFSETS)
    old = example(paging, None, draw(splits) if paging in LEGACY else None)
    top = old.memory.ram[-1].end if paging not in LEGACY else 0xBFFD_9000
    size = PAGE * draw(st.integers(24 * MIB // PAGE, 96 * MIB // PAGE))
    first = draw(st.sampled_from([16 * MIB, 0x3200_0000, 0x9000_0000, 4 * GIB]))
    start = first + PAGE * draw(st.integers(0, 128 * MIB // PAGE))
    region = Extent.sized(start, size)
    own = (Extent.sized(old.text.phys, old.text.size), old.private)
    assume(region.end <= top and not any(region.overlaps(each) for each in own))
    assume(any(ram.covers(region) for ram in old.memory.ram))
    regions = list(old.memory)
    if draw(st.booleans()):
        # Low memory ends inside a page, or is one with what lies above it.
        kept = [each for each in regions if each.extent.start >= 16 * MIB]
        cut = draw(st.sampled_from([0x9_E400, 0xA_0000]))
        low = [Region(Extent(PAGE, cut), RegionKind.RAM)]
        rest = [
            Region(Extent(max(each.extent.start, MIB), each.extent.end), each.kind)
            for each in regions
            if each.extent.end > 16 * MIB and each.extent.start < 16 * MIB
        ]
        regions = low + rest + kept
    # At least one note: without any there is no dump.
    places = [Extent.sized(at, 0x400) for at in (0x5000, 0x8_0C00, 0x120_0E00)]
    apart = [each for each in places if not any(each.overlaps(o) for o in (region, *own))]
    notes = [
        Named(extent=extent, what=f"CPU {number}'s registers")
        for number, extent in enumerate(
            draw(st.lists(st.sampled_from(apart), unique=True, min_size=1))
        )
    ]
    beside = old.crash_memory
    if region.start >= 1 << 32:
        # `crashkernel=,high` comes with some below: without it a crash kernel is told to have too little.
        used = [each.page_aligned() for each in (*own, *(busy.extent for busy in old.busy))]
        free = subtract(old.memory.ram, [*used, Extent(0, 16 * MIB), Extent(1 << 32, 1 << 64)])
        beside = (Named(extent=Extent(free[-1].end - MIB, free[-1].end), what="crashkernel=,low"),)
    return replace(
        old,
        crash_memory=beside,
        memory=MemoryMap(tuple(sorted(regions))),
        # What is reserved at boot is nobody's: a region over something else is a finding of its own.
        busy=tuple(each for each in old.busy if not region.overlaps(each.extent))
        if draw(st.booleans())
        else (),
        firmware=old.firmware if draw(st.booleans()) else (),
        crash_region=region,
        crash_notes=tuple(notes),
    )
