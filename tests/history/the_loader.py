"""What a loader placed and what it told the new kernel (B29, B40 to B58, B63 to B71), and reports since.

Rules: as `rebuilt`.  A loader that misread something plans with what it took it for; what it placed is judged
by the machine and the image as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.history.rebuilt import (
    Change,
    Entry,
    Findings,
    asked_of,
    loaded,
    purgatory,
    walked,
)
from tests.makers.bzimage import bzimage, put
from tests.makers.efi import EFI, EFI_AT
from tests.makers.hosts import MIB
from tests.modes.runs import kernel
from tests.rehearse.runs import (
    CRASH_REGION,
    crash_host,
    entered_with_5_levels,
    example_host,
)
from tightrope import image
from tightrope.memory import Extent, MemoryMap, Phys, Region, RegionKind
from tightrope.model import (
    Handover,
    Host,
    Named,
    Payload,
    Plan,
    Segment,
    SegmentRole,
    Step,
)
from tightrope.plan import Request
from tightrope.sabotage import SABOTAGES
from tightrope.sabotage.edits import edit_segment

PAGE = 4096
LINUX = Payload(offset=0, size=1, compression="none")
CRASH = Request(command_line="a word", crash=True)


# ------------------------------------------------------------------------- B29, B40, B41: segments that overlap


def one_more(extent: Extent) -> Callable[[Plan], Plan]:
    """A segment without contents, as kexec-tools adds for the first MiB under Xen."""

    def change(plan: Plan) -> Plan:
        more = Segment(
            role=SegmentRole.OTHER, destination=extent, data=b"", why="to be mapped", number=1
        )
        return replace(plan, segments=(*plan.segments, more))

    return change


def low_and(name: str) -> Callable[[Plan], Plan]:
    """The same, over a segment that lies there already."""

    def change(plan: Plan) -> Plan:
        place = next(each.destination for each in plan.segments if each.name == name)
        return one_more(place)(plan)

    return change


def overlapping(extent: Extent) -> Findings:
    return walked(crash_host(), request=CRASH, plan=one_more(extent))


def apart() -> Findings:
    return walked(crash_host(), request=CRASH)


# ------------------------------------------------------------------- B43: loaded below where the kernel goes to


def below_pref_address(*, looked_at: bool) -> Findings:
    """A kernel that is loaded low goes up to pref_address before it reads its map: over the initrd."""
    image = replace(kernel(), payload=LINUX)
    really = replace(image, pref_address=Phys(0xBFF0_0000), relocatable=True)
    asked = Request(command_line="a word", initrd=bytes(64 * 1024))
    return loaded(
        example_host(), new=really if not looked_at else image, took_it_for=image, request=asked
    )


# --------------------------------------------------------------------------- B49, B50: purgatories that go wrong


def wrong_entry(by: int) -> Findings:
    """The entry is taken from the wrong section: some bytes behind where the program begins."""
    return walked(example_host(), plan=lambda plan: replace(plan, entry=Phys(plan.entry + by)))


CALLS_ITSELF = b"\xe8\xfb\xff\xff\xff"
"""call .: memcpy() that the compiler makes a call of memcpy() of."""
RIGHT = b"\x90"


def with_purgatory(own: bytes) -> Findings:
    return walked(example_host(), change=lambda built: purgatory(built, own))


# ------------------------------------------------------------------- B54, B57, B68, B69: the page is not clean


def page_with(at: int, data: bytes) -> Change:
    """boot_params with bytes that nobody has a reason for."""

    def change(handover: Handover) -> Handover:
        def put(page: bytearray) -> None:
            page[at : at + len(data)] = data

        return edit_segment(handover, SegmentRole.BOOT_PARAMS, put, planned=True)

    return change


def wiped_line(handover: Handover) -> Handover:
    """The purgatory's bss lies over the command line, and is cleared."""

    def wipe(line: bytearray) -> None:
        line[:] = bytes(len(line))

    return edit_segment(handover, SegmentRole.COMMAND_LINE, wipe, planned=True)


def of_a_screen(knew: bytes) -> Findings:
    """screen_info as it was at boot, where the old kernel's driver has set another mode since."""
    old = replace(example_host(), screen=b"\x23" * 0x40)
    return loaded(old, knew=replace(old, screen=knew))


def of_the_rsdp(*, copied: bool) -> Findings:
    """With EFI nothing but acpi_rsdp_addr tells where the tables are."""
    old = example_host()
    assert old.rsdp is not None
    return loaded(old, knew=old if copied else replace(old, rsdp=Phys(old.rsdp + PAGE)))


# ------------------------------------------------------------------------------ B38: garbage in EFI's map


def of_efis_map(virt: int) -> Findings:
    """The runtime services' addresses as a loader read them, where the old kernel has them at EFI's."""
    kernel = image.read(put(bzimage(), "xloadflags", 0x13), "a kernel that takes EFI")
    old = replace(example_host(), efi=EFI)
    rows = tuple(replace(each, virt=virt + each.phys) for each in EFI.runtime)
    return loaded(old, knew=replace(old, efi=replace(EFI, runtime=rows)), new=kernel)


# ----------------------------------------------------------- B58, B63: a memory map that is not all of it


def many_ranges() -> Host:
    """A big machine: two hundred reserved holes in its memory above 4 GiB."""
    old = example_host()
    start = 1 << 32
    regions = [each for each in old.memory if each.extent.start < start]
    for number in range(200):
        at = start + number * 16 * MIB
        regions.append(Region(Extent.sized(at, 15 * MIB), RegionKind.RAM))
        regions.append(Region(Extent.sized(at + 15 * MIB, MIB), RegionKind.RESERVED))
    return replace(old, memory=MemoryMap(tuple(regions)))


def first_rows(old: Host, count: int) -> Host:
    return replace(old, memory=MemoryMap(tuple(old.memory)[:count]))


def without_reserved(old: Host) -> Host:
    """ "reserved" was written "Reserved" in /proc/iomem from some version on, and no longer recognised."""
    kept = tuple(each for each in old.memory if each.kind is not RegionKind.RESERVED)
    return replace(old, memory=MemoryMap(kept))


def in_a_crash(knew: Host) -> Findings:
    return loaded(crash_host(), knew=knew, request=CRASH)


# ----------------------------------------------------------------------------------- B64: which crash region


def another_region(*, right: bool) -> Findings:
    """crashkernel=,high leaves two regions, and the loader takes the one that the kernel does not."""
    old = crash_host()
    if right:
        return loaded(old, request=CRASH)
    elsewhere = Extent.sized(0x5000_0000, CRASH_REGION.size)
    return loaded(old, knew=replace(old, crash_region=elsewhere), request=CRASH)


# -------------------------------------------------------------- B71, TPM: memory that is somebody's, as RAM


def in_the_way(what: str) -> Host:
    """Something that lives in what the memory map calls RAM: where the kernel would go."""
    old = example_host()
    place = Named(extent=Extent.sized(0x100_4000, PAGE), what=what)
    return replace(old, firmware=(*old.firmware, place))


def kept_for_the_next(what: str) -> Host:
    old = example_host()
    return replace(old, preserved=(Named(extent=Extent.sized(0x100_4000, PAGE), what=what),))


# ------------------------------------------------------------------------------ the top of the tables, 2025


def marked(*, mended: bool) -> Findings:
    """A kernel since 2024 marks the first entry in bit 58, and one with 4 levels takes it for an address."""
    good = entered_with_5_levels()
    broken = good.handover if mended else SABOTAGES["table-b-marked"].handover(good.handover)
    return asked_of(broken)


ENTRIES = (
    Entry(
        id="B29",
        rule="segments-apart",
        step=Step.PREPARE,
        broken=lambda: walked(example_host(), plan=low_and("command line")),
        fixed=lambda: walked(example_host()),
    ),
    Entry(
        id="B40",
        rule="segments-apart",
        step=Step.PREPARE,
        broken=lambda: overlapping(Extent.sized(CRASH_REGION.start + 0xF000, 0x2000)),
        fixed=apart,
    ),
    Entry(
        id="B41",
        rule="segments-apart",
        step=Step.PREPARE,
        broken=lambda: overlapping(Extent.sized(CRASH_REGION.end - PAGE, PAGE)),
        fixed=apart,
    ),
    Entry(
        id="B43",
        rule="image-asks",
        step=Step.PREPARE,
        broken=lambda: below_pref_address(looked_at=False),
        fixed=lambda: below_pref_address(looked_at=True),
    ),
    Entry(
        id="B49",
        rule="legal-writes",
        step=Step.COPY,
        broken=lambda: wrong_entry(0x11),
        fixed=lambda: wrong_entry(0),
    ),
    Entry(
        id="B50",
        rule="stores-owned",
        step=Step.COPY,
        broken=lambda: with_purgatory(CALLS_ITSELF),
        fixed=lambda: with_purgatory(RIGHT),
    ),
    Entry(
        id="B54",
        what="a command line that is wiped",
        rule="command-line-as-given",
        step=Step.COPY,
        broken=lambda: walked(example_host(), change=wiped_line),
        fixed=lambda: walked(example_host()),
    ),
    Entry(
        id="B54",
        what="what was in the header's page before",
        rule="boot-params-told",
        step=Step.COPY,
        broken=lambda: walked(example_host(), change=page_with(0x1EF, b"\xff")),
        fixed=lambda: walked(example_host()),
    ),
    Entry(
        id="B57",
        rule="boot-params-told",
        step=Step.COPY,
        broken=lambda: of_a_screen(b"\x11" * 0x40),
        fixed=lambda: of_a_screen(b"\x23" * 0x40),
    ),
    Entry(
        id="B58",
        rule="memory-told",
        step=Step.COPY,
        broken=lambda: in_a_crash(without_reserved(crash_host())),
        fixed=lambda: in_a_crash(crash_host()),
    ),
    Entry(
        id="B63",
        what="128 rows of a memory map that has more",
        rule="memory-told",
        step=Step.COPY,
        broken=lambda: loaded(many_ranges(), knew=first_rows(many_ranges(), 128)),
        fixed=lambda: loaded(many_ranges()),
    ),
    Entry(
        id="B64",
        rule="crash-region-only",
        step=Step.PREPARE,
        broken=lambda: another_region(right=False),
        fixed=lambda: another_region(right=True),
    ),
    Entry(
        id="B68",
        what="rows of the crash kernel's map behind their number",
        rule="boot-params-told",
        step=Step.COPY,
        broken=lambda: walked(
            crash_host(), request=CRASH, change=page_with(0x2D0 + 20 * 100, b"\x01" * 20)
        ),
        fixed=lambda: walked(crash_host(), request=CRASH),
    ),
    Entry(
        id="B38",
        rule="efi-told",
        step=Step.COPY,
        broken=lambda: of_efis_map(0),
        fixed=lambda: of_efis_map(EFI_AT),
    ),
    Entry(
        id="B69",
        what="acpi_rsdp_addr",
        rule="boot-params-told",
        step=Step.COPY,
        broken=lambda: of_the_rsdp(copied=False),
        fixed=lambda: of_the_rsdp(copied=True),
    ),
    Entry(
        id="B71",
        what="an overlay page that the host names",
        rule="image-asks",
        step=Step.PREPARE,
        broken=lambda: loaded(kept_for_the_next("Hyper-V's overlay page"), knew=example_host()),
        fixed=lambda: loaded(kept_for_the_next("Hyper-V's overlay page")),
    ),
    Entry(
        id="eb22663125",
        rule="table-b-top",
        step=Step.TABLE_B,
        broken=lambda: marked(mended=False),
        fixed=lambda: marked(mended=True),
    ),
    Entry(
        id="77d48d39e9",
        rule="image-asks",
        step=Step.PREPARE,
        broken=lambda: loaded(in_the_way("the TPM's event log"), knew=example_host()),
        fixed=lambda: loaded(in_the_way("the TPM's event log")),
    ),
)
