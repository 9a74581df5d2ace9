"""Several jumps in a row: each kernel leaves, by its own code, out of what the jump before handed
it.

    old kernel --hop 1--> new kernel --hop 2--> the same kernel again --> ...
         host               what boot_params said at the entry, as the host of the next hop

What the next old kernel makes of its world, as far as a jump out of it asks:

    memory, RSDP, screen     what boot_params had, as it lay in memory when the kernel was entered
    text                     where the kernel was loaded (it decompresses to where it lies); no KASLR
    page tables, stack       in free RAM behind it
    firmware's memory        as the host before had it: no jump moves it

Rules: a deed, made of rehearsals.  A hop that does not hold is the last: what comes of it is not
known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tightrope import check
from tightrope.deeds import old_kernel
from tightrope.deeds.loaders import By
from tightrope.deeds.machines import emulator
from tightrope.deeds.old_kernel import OldKernel
from tightrope.deeds.pairs import host_of
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.unpacking import Unpacking
from tightrope.errors import BadInput, HostError
from tightrope.machine.port import Machine, Progress, no_progress
from tightrope.memory import (
    Extent,
    MemoryMap,
    Phys,
    Region,
    RegionKind,
    Virt,
    align_down,
    align_up,
    subtract,
)
from tightrope.model import (
    Basis,
    Buffer,
    Fact,
    Host,
    Image,
    KernelText,
    Named,
    Outcome,
    Paging,
    SegmentRole,
    Verdict,
)
from tightrope.model.entered import Entered
from tightrope.model.hops import Hop, Hops
from tightrope.model.modes import text_page_size
from tightrope.participants.linux import Convention
from tightrope.plan import Request

FIRST_MIB = Extent(0, 1 << 20)
TEXT_64 = 0xFFFF_FFFF_8100_0000
"""Where 64-bit Linux has its text without KASLR, wherever it was loaded (__START_KERNEL)."""
KINDS: Mapping[int, RegionKind] = {
    1: RegionKind.RAM,
    2: RegionKind.RESERVED,
    3: RegionKind.ACPI,
    4: RegionKind.NVS,
    5: RegionKind.UNUSABLE,
    7: RegionKind.PMEM,
    12: RegionKind.PRAM,
    0xEFFF_FFFF: RegionKind.SOFT_RESERVED,
}
"""Types of E820 (Linux asm/e820/types.h); memory of any other is not used, like what is
reserved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """A kernel that is left: its image, and the code in it."""

    source: str
    data: Buffer
    code: OldKernel


def left(data: Buffer, source: str) -> Left:
    """The kernel in an image.  Raises ImageError, MissingPart; BadInput for a hypervisor."""
    code = old_kernel.read(data, source)
    return Left(source=source, data=data, code=code)


def hops(
    image: Image,
    old: Host,
    request: Request,
    count: int,
    *,
    first: Left,
    then: Left,
    by: By | None = None,
    machine: Machine | None = None,
    unpacking: Unpacking | None = None,
    progress: Progress = no_progress,
) -> Hops:
    """`count` jumps into `image`: out of `first` on `old`, then out of `then`, which is the image's
    own.

    Raises TightropeError where a jump cannot be planned, or what is asked does not exist.
    """
    if request.crash:
        raise BadInput(
            "has no further jump: a crash kernel has the crash region alone", source="--hops"
        )
    by = by or By()
    machine = machine or emulator()
    unpacking = unpacking or Unpacking(image, request.initrd)
    made: list[Hop] = []
    leaving = first
    for number in range(1, count + 1):
        progress("hops", number - 1, count)
        loaded = by.load(leaving.data, leaving.source, image, request, old)
        asked = request if loaded is None else replace(request, loaded=loaded)
        code = leaving.code
        verdict = rehearse(
            image,
            code.host(old),
            code.request(asked),
            design=code.participant,
            machine=machine,
            unpacking=unpacking,
        )
        found = check.entered(verdict.handover, verdict.run)
        made.append(Hop(number=number, old=leaving.source, verdict=verdict, entered=found))
        if verdict.outcome is not Outcome.HOLDS or found is None:
            break
        leaving = then
        if number < count:
            old = handed_on(verdict, found, number, then.code)
    return Hops(asked=count, made=tuple(made))


def handed_on(verdict: Verdict, found: Entered, number: int, code: OldKernel) -> Host:
    """The host that the kernel of hop `number` is, when it leaves in its turn.  Raises
    HostError."""
    before, intent = verdict.handover.host, verdict.handover.intent
    source = f"the kernel of hop {number}"
    narrow = code.found.convention is Convention.LINUX_I386
    base = before
    if narrow == before.paging.long_mode:
        base = host_of(Paging.PAE if narrow else Paging.X86_64, crash=False)
    regions = [Region(extent, KINDS.get(kind, RegionKind.RESERVED)) for extent, kind in found.rows]
    try:
        memory = MemoryMap(tuple(sorted(regions, key=lambda each: each.extent.start)))
    except ValueError as err:
        raise HostError(str(err), source=source, field="memory") from err
    kernel = next(each for each in intent.segments if each.role is SegmentRole.KERNEL).destination
    large = text_page_size(base.paging, pse=base.cpu.pse)
    phys = Phys(align_down(kernel.start, large))
    text = KernelText(
        virt=Virt(base.direct_map.virt + phys if narrow else TEXT_64),
        phys=phys,
        size=align_up(kernel.end - phys, large),
    )
    taken = [Extent.sized(text.phys, text.size), FIRST_MIB]
    taken += [each.extent for each in before.firmware]
    low = Extent(0, min(base.direct_map.size, 1 << 32))
    size = base.private.size
    free = [
        place
        for ram in subtract(memory.ram, taken)
        if (place := _in(ram, low)) is not None and place.size >= size
    ]
    if not free:
        raise HostError(
            f"no free RAM for page tables of {size:#x} bytes", source=source, field="private"
        )
    # Behind the text where there is room, as a kernel gives memory out from there.
    place = next((each for each in free if each.start >= text.phys), free[0])
    facts = tuple(
        Fact(field=name, basis=Basis.DERIVED, source=f"what hop {number} handed over")
        for name in ("memory", "rsdp", "screen_info", "text", "private")
    )
    return replace(
        base,
        source=source,
        memory=memory,
        text=text,
        relocation=None,
        private=Extent.sized(place.start, size),
        busy=tuple(
            Named(extent=each, what="the first MiB, which Linux keeps for itself")
            for ram in memory.ram
            if (each := _in(ram, FIRST_MIB)) is not None
        ),
        crash_region=None,
        firmware=before.firmware,
        rsdp=Phys(found.rsdp) if found.rsdp else None,
        low_mappings=(),
        crash_notes=(),
        crash_memory=(),
        preserved=(),
        screen=found.screen if any(found.screen) else b"",
        efi=before.efi if any(found.efi) else None,
        entered=found,
        facts=facts,
    )


def _in(extent: Extent, limits: Extent) -> Extent | None:
    """The part of an extent inside limits, None where there is none."""
    start, end = max(extent.start, limits.start), min(extent.end, limits.end)
    return Extent(start, end) if start < end else None
