"""Places that are wrong: a sound walk, and a header, a memory map or an old kernel that does not allow it.

Rules: as in `breaking`; where the place itself would have to move, the facts about it move instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tests.check.breaking import Breach, Change, Walked, entry_of, kernel, kernel_entry_in_b
from tests.check.breaking_told import Overlaid, flipped, in_a_crash, planned
from tests.makers.hosts import table_b
from tests.rehearse.runs import CRASH_REGION
from tightrope.memory import Extent, Phys, Virt
from tightrope.model import (
    Handover,
    Host,
    Image,
    Intent,
    Named,
    Payload,
    Piece,
    PieceRole,
    Plan,
    Registers,
    Run,
    SegmentRole,
    Step,
)
from tightrope.sabotage.edits import with_tables
from tightrope.x86.walk import Access

PAGE = 4096
LINUX = Payload(offset=0, size=1, compression="none")
"""Only Linux's own decompressor goes up to pref_address."""


def image(change: Callable[[Image], Image]) -> Change:
    """The image asks for something else."""

    def breach(handover: Handover, run: Run) -> Walked:
        plan = replace(handover.plan, image=change(handover.plan.image))
        return replace(handover, intent=plan), run

    return breach


def host(change: Callable[[Host, Plan], Host]) -> Change:
    """The old kernel, or its machine, has something else there."""

    def breach(handover: Handover, run: Run) -> Walked:
        other = change(handover.plan.host, handover.plan)
        plan = replace(handover.plan, host=other)
        world = replace(handover.world, host=other)
        return replace(handover, intent=plan, world=world), run

    return breach


def busy(at: Callable[[Plan], int]) -> Change:
    def change(old: Host, plan: Plan) -> Host:
        mine = Named(extent=Extent.sized(at(plan), 8), what="something of the old kernel's")
        return replace(old, busy=(*old.busy, mine))

    return host(change)


def firmware(old: Host, plan: Plan) -> Host:
    mine = Named(extent=Extent.sized(kernel(plan) + 0x5008, 8), what="EFI's memory map")
    return replace(old, firmware=(*old.firmware, mine))


def crash_region(old: Host, plan: Plan) -> Host:
    return replace(old, crash_region=Extent.sized(kernel(plan) + 0x4000, 0x4000))


def first_source(plan: Plan) -> int:
    moved = plan.sources[plan.sources != plan.destinations]
    return int(moved[0]) * PAGE


def line(words: bytes) -> Change:
    """Another command line, which plan and memory agree on."""

    def change(data: bytearray, _plan: Intent) -> None:
        data[:] = words.ljust(len(data), b"\0")

    return planned("command line", change)


def laid_twice(handover: Handover, run: Run) -> Walked:
    """Page_table_a's root, laid once more."""
    root = next(each for each in handover.pieces if each.phys == handover.page_table_a.root)
    other = replace(root, role=PieceRole.OTHER, which="a page more")
    return replace(handover, extra=(other,)), run


def laid_in_a_hole(handover: Handover, run: Run) -> Walked:
    other = Piece(phys=Phys(0xC_0000), data=bytes(8), role=PieceRole.OTHER, which="a page more")
    return replace(handover, extra=(other,)), run


def copied_into_a_hole(handover: Handover, run: Run) -> Walked:
    """The plan has the first page that is copied go where no memory is, whatever its segment says."""
    destinations = handover.intent.destinations.copy()
    moved = np.nonzero(handover.intent.sources != destinations)[0]
    destinations[moved[0]] = 0xC_0000 // PAGE
    return replace(handover, intent=replace(handover.intent, destinations=destinations)), run


def source_in_a_hole(handover: Handover, run: Run) -> Walked:
    """The first page that is copied comes from where no memory is."""
    sources = handover.intent.sources.copy()
    moved = np.nonzero(sources != handover.intent.destinations)[0]
    sources[moved[0]] = 0xC_0000 // PAGE
    return replace(handover, intent=replace(handover.intent, sources=sources)), run


def called(change: Callable[[Registers], Registers]) -> Change:
    """The CPU was in another state at the call."""

    def breach(handover: Handover, run: Run) -> Walked:
        return replace(handover, registers=change(handover.registers)), run

    return breach


def strayed(handover: Handover, run: Run) -> Walked:
    """One more fetch, from a page of the initrd."""
    place = next(each for each in handover.intent.segments if each.name == "initrd").destination
    last = run.translations[-1]
    stray = replace(
        last, access=Access.FETCH, virt=Virt(place.start), phys=Phys(place.start), step=Step.COPY
    )
    return handover, replace(run, translations=(*run.translations, stray))


def jumped_past_the_first_byte(handover: Handover, run: Run) -> Walked:
    """The same walk, with its first instruction in the stub left out."""
    at = int((run.trace == np.uint64(handover.intent.entry)).argmax())
    return handover, replace(run, trace=np.delete(run.trace, at))


def given_up(run: Run) -> int:
    """The write of rsp that gives the old stack up, as a place among the register writes."""
    return [each.register for each in run.register_writes].index("rsp")


def written_early(handover: Handover, run: Run) -> Walked:
    """CR4 is written with what it holds right after the stack was given up."""
    at, writes = given_up(run), list(run.register_writes)
    value = [each.after for each in writes[:at] if each.register == "cr4"][-1]
    early = replace(
        writes[at],
        register="cr4",
        instruction=writes[at].instruction + 1,
        before=value,
        after=value,
        step=Step.STATE,
    )
    return handover, replace(run, register_writes=(*writes[: at + 1], early, *writes[at + 1 :]))


def read_early(handover: Handover, run: Run) -> Walked:
    number = run.register_writes[given_up(run)].instruction + 1
    row = np.array([[number, Step.STATE, 0x7000, 8]], np.int64)
    return handover, replace(run, loads=np.concatenate([run.loads, row]))


def fred_stays(handover: Handover, run: Run) -> Walked:
    """FRED is on at the call, and every write of CR4 keeps it."""
    fred = 1 << 32
    old = handover.world.registers
    world = replace(handover.world, registers=replace(old, cr4=old.cr4 | fred))
    now = replace(handover.registers, cr4=handover.registers.cr4 | fred)
    writes = tuple(
        replace(each, before=each.before | fred, after=each.after | fred)
        if each.register == "cr4"
        else each
        for each in run.register_writes
    )
    end = replace(run.registers, cr4=run.registers.cr4 | fred)
    run = replace(run, register_writes=writes, registers=end)
    return replace(handover, registers=now, world=world), run


def cet_stays(handover: Handover, run: Run) -> Walked:
    """CET is on at the call, and every write of CR4 keeps it."""
    cet = 1 << 23
    old = handover.world.registers
    world = replace(handover.world, registers=replace(old, cr4=old.cr4 | cet))
    now = replace(handover.registers, cr4=handover.registers.cr4 | cet)
    writes = tuple(
        replace(each, before=each.before | cet, after=each.after | cet)
        if each.register == "cr4"
        else each
        for each in run.register_writes
    )
    end = replace(run.registers, cr4=run.registers.cr4 | cet)
    run = replace(run, register_writes=writes, registers=end)
    return replace(handover, registers=now, world=world), run


def far_jump(handover: Handover, run: Run) -> Walked:
    """The last instruction is a far jump through memory with REX.W."""
    texts = {**run.texts, int(run.trace[-1]): "rex.w ljmp *(%rsp)"}
    return handover, replace(run, texts=texts)


def loaded_twice(handover: Handover, run: Run) -> Walked:
    """One more segment, of the page that the command line has."""
    line = next(each for each in handover.segments if each.name == "command line")
    more = replace(line, role=SegmentRole.OTHER)
    return replace(handover, segments=(*handover.segments, more)), run


def above_4_gib(handover: Handover, run: Run) -> Walked:
    """Linux, in a region that is the only memory of its own."""
    walked = image(lambda it: replace(it, payload=LINUX, init_size=PAGE))(handover, run)
    region = Extent.sized(1 << 32, 0x1000_0000)
    return host(lambda old, _: replace(old, crash_region=region))(*walked)


def no_execute(handover: Handover, run: Run) -> Walked:
    """NX in page_table_b's entry for the kernel's second page, as it lies in memory."""
    entry = entry_of(table_b(handover), kernel(handover.plan) + PAGE)[2] | 1 << 63
    memory = Overlaid(run.memory, kernel_entry_in_b(handover), entry.to_bytes(8, "little"))
    return handover, replace(run, memory=memory)


def low_memory_no_execute(handover: Handover, run: Run) -> Walked:
    """The same in the entry for 64 KiB: the decompressor's trampoline is somewhere there."""
    frame, at, entry = entry_of(table_b(handover), 0x1_0000)
    page = bytearray(table_b(handover).pages[frame])
    page[at : at + 8] = (entry | 1 << 63).to_bytes(8, "little")
    return with_tables(handover, frame, bytes(page)), run


PLACED = (
    Breach(
        rule="segments-apart",
        name="two in one page",
        change=loaded_twice,
        step=Step.PREPARE,
        says="the command line at [0xbffd",
    ),
    Breach(
        rule="far-branch-alike",
        name="rex.w ljmp",
        change=far_jump,
        step=Step.CALL,
        says="takes ten bytes from memory on Intel's CPUs, and six on AMD's",
    ),
    Breach(
        rule="branches-untracked",
        name="CR4.CET is left on",
        change=cet_stays,
        step=Step.IDENTITY,
        says="may raise #CP: CR4.CET is still set",
        also=frozenset({"known-state"}),
    ),
    Breach(
        rule="image-asks",
        name="it can only run elsewhere",
        change=image(lambda it: replace(it, relocatable=False, pref_address=Phys(0x20_0000))),
        step=Step.PREPARE,
        says="the kernel lies at 0x1000000, and can only run at 0x200000",
    ),
    Breach(
        rule="image-asks",
        name="no multiple of its alignment",
        change=image(
            lambda it: replace(it, pref_address=Phys(0x20_0000), min_alignment=0x1000_0000)
        ),
        step=Step.PREPARE,
        says="the kernel lies at 0x1000000, which is not a multiple of 0x10000000",
    ),
    Breach(
        rule="image-asks",
        name="below pref_address, where there is no room",
        change=image(lambda it: replace(it, payload=LINUX, pref_address=Phys(0xBFFF_F000))),
        step=Step.PREPARE,
        says="where the kernel runs before it reads its memory map, [0x1000000, 0xc000f000)",
    ),
    Breach(
        rule="image-asks",
        name="init_size goes on over the initrd",
        change=image(lambda it: replace(it, init_size=0x8000_0000)),
        step=Step.PREPARE,
        says="lies where the kernel runs before it reads its memory map, [0x1000000, 0x81000000)",
    ),
    Breach(
        rule="image-asks",
        name="the initrd above initrd_addr_max",
        change=image(lambda it: replace(it, initrd_limit=Phys(0x3FFF_FFFF), above_4g=False)),
        step=Step.PREPARE,
        says="above 0x3fffffff",
    ),
    Breach(
        rule="image-asks",
        name="a command line longer than cmdline_size",
        change=image(lambda it: replace(it, cmdline_limit=3)),
        step=Step.PREPARE,
        says="and the image takes 3",
    ),
    Breach(
        rule="image-asks",
        name="beyond its reach",
        change=image(lambda it: replace(it, reach=0x100_0000)),
        step=Step.PREPARE,
        says="out of its reach 0x1000000",
    ),
    Breach(
        rule="placed-in-ram",
        name="the kernel over firmware's tables",
        change=host(firmware),
        step=Step.PREPARE,
        says="the kernel at [0x1000000, 0x1010000) is written over EFI's memory map",
        also=frozenset({"image-asks"}),
    ),
    Breach(
        rule="placed-in-ram",
        name="the kernel over another crash kernel",
        change=host(crash_region),
        step=Step.PREPARE,
        says="is written over the crash region at [0x1004000, 0x1008000)",
        also=frozenset({"image-asks"}),
    ),
    Breach(
        rule="laid-free",
        name="the control page over something of the old kernel's",
        change=busy(lambda plan: plan.control_page + 8),
        step=Step.PREPARE,
        says="the control page is laid at [0x",
    ),
    Breach(
        rule="laid-free",
        name="a source over something of the old kernel's",
        change=busy(first_source),
        step=Step.PREPARE,
        says="a source is laid at 0x",
    ),
    Breach(
        rule="placed-in-ram",
        name="a page that is copied into a hole",
        change=copied_into_a_hole,
        step=Step.PREPARE,
        says="a page is copied to 0xc0000, and that is a hole",
        also=frozenset({"copies-owned"}),
    ),
    Breach(
        rule="laid-free",
        name="a source in a hole",
        change=source_in_a_hole,
        step=Step.PREPARE,
        says="a source is laid at 0xc0000, and that is a hole",
        also=frozenset({"copies-owned"}),
    ),
    Breach(
        rule="laid-free",
        name="two things in one frame",
        change=laid_twice,
        step=Step.PREPARE,
        says="over page_table_a",
    ),
    Breach(
        rule="laid-free",
        name="a piece in a hole",
        change=laid_in_a_hole,
        step=Step.PREPARE,
        says="and 0xc0000 is a hole",
    ),
    Breach(
        rule="entry-mapped",
        name="the kernel's second page cannot be executed",
        change=no_execute,
        step=Step.COPY,
        says="0x1001000 of the kernel cannot be executed by the new kernel",
    ),
    Breach(
        rule="entry-mapped",
        name="low memory cannot be executed",
        change=low_memory_no_execute,
        step=Step.COPY,
        says="0x10000 of low memory, for the decompressor cannot be executed by the new kernel",
    ),
    Breach(
        rule="stub-as-known",
        name="one bit of the entry stub",
        change=flipped("entry stub", 0x11, 3),
        step=Step.COPY,
        says="byte 0x11 of the entry stub at 0x",
    ),
    Breach(
        rule="call-state",
        name="CR4.MCE off",
        change=called(lambda now: replace(now, cr4=now.cr4 & ~0x40)),
        step=Step.CALL,
        says="CR4 is 0x",
    ),
    Breach(
        rule="call-state",
        name="a register that is no argument",
        change=called(lambda now: replace(now, general={**now.general, "r15": 0x1234})),
        step=Step.CALL,
        says="r15 is 0x1234 at the call, and the old kernel has 0x",
    ),
    Breach(
        rule="call-state",
        name="another gdt",
        change=called(lambda now: replace(now, gdt=(0x1000, 0x7F))),
        step=Step.CALL,
        says="the gdt is at 0x1000, limit 0x7f at the call, and the old kernel has one at 0x",
    ),
    Breach(
        rule="fetch-owned",
        name="a jump to whatever is mapped",
        change=strayed,
        step=Step.COPY,
        says="an instruction is fetched at 0x",
    ),
    Breach(
        rule="entry-jump",
        name="the stub's first instruction is jumped over",
        change=jumped_past_the_first_byte,
        step=Step.COPY,
        says="and the planned entry is 0x",
    ),
    Breach(
        rule="fault-window",
        name="CR4 is written between the stack and lidt",
        change=written_early,
        step=Step.STATE,
        says="may fault while the old kernel's handlers can still be found",
    ),
    Breach(
        rule="fault-window",
        name="something is read between the stack and lidt",
        change=read_early,
        step=Step.STATE,
        says="reads 0x7000 while the old kernel's handlers can still be found",
        also=frozenset({"loads-owned"}),
    ),
    Breach(
        rule="fault-window",
        name="CR4.FRED is left on",
        change=fred_stays,
        step=Step.STATE,
        says="may fault while the old kernel's handlers can still be found",
        also=frozenset({"known-state"}),
    ),
    Breach(
        rule="crash-region-free",
        name="over something of the old kernel's",
        change=in_a_crash(busy(lambda plan: CRASH_REGION.start + 0x123_4000)),
        step=Step.PREPARE,
        says="the crash region [0x33000000, 0x43000000) lies over something of the old kernel's",
    ),
    Breach(
        rule="crash-region-room",
        name="a kernel that needs more",
        change=in_a_crash(
            image(lambda it: replace(it, payload=LINUX, init_size=CRASH_REGION.size - (1 << 20)))
        ),
        step=Step.PREPARE,
        says="has 256.0 MiB (0x10000000), and this kernel needs at least",
    ),
    Breach(
        rule="line-leads",
        name="acpi_rsdp= of another boot",
        change=line(b"acpi_rsdp=bffd9014"),
        step=Step.PREPARE,
        says="for the RSDP at 0xbffd9014, and this machine's lies at 0xf5a40",
        also=frozenset({"command-line-as-given"}),
    ),
    Breach(
        rule="memory-limited",
        name="memmap= with memory that is not there",
        change=line(b"memmap=1@1T"),
        step=Step.PREPARE,
        says="the command line calls [0x10000000000, 0x10000000001) RAM, and it is a hole",
        also=frozenset({"command-line-as-given"}),
    ),
    Breach(
        rule="memory-room",
        name="mem= with less than the kernel needs",
        change=line(b"mem=1M"),
        step=Step.PREPARE,
        says="of memory that mem=0x100000 leaves, and needs at least",
        also=frozenset({"command-line-as-given"}),
    ),
    Breach(
        rule="crash-region-low",
        name="above 4 GiB, and nothing below",
        change=in_a_crash(above_4_gib),
        step=Step.PREPARE,
        says="the crash region [0x100000000, 0x110000000) lies above 4 GiB",
        also=frozenset(
            {
                "crash-region-only",
                "image-asks",
                "core-header-told",
                "memory-told",
            }
        ),
    ),
)
