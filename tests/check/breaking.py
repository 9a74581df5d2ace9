"""One thing wrong at a time: for each rule a handover and a run that break it.

Each function takes a sound handover and its run and gives both back with one thing changed; `CASES`
names for each rule the changes that break it and what else cannot help being found then.

Rules: changed values are finished values with `dataclasses.replace`, and where memory has to differ a
view of it that differs.  Tables are edited here by the manual's indices, not by the project's code.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tests.makers.hosts import table_b
from tests.plan.list_reader import follow
from tests.rehearse.runs import CRASH_REGION, backed_up, crashed, entered_with_5_levels
from tightrope.memory import Extent, Phys, Virt
from tightrope.model import (
    Fault,
    Handover,
    Intent,
    Memory,
    Paging,
    Piece,
    PieceRole,
    Protocol,
    Registers,
    RegisterWrite,
    Run,
    Segment,
    Stale,
    Step,
    Stop,
    Tables,
    Translation,
    with_code,
)
from tightrope.sabotage.edits import with_tables
from tightrope.x86.walk import Access

PAGE = 4096
Walked = tuple[Handover, Run]
Change = Callable[[Handover, Run], Walked]


@dataclass(frozen=True, kw_only=True)
class Breach:
    """A change, the step its finding belongs to, words of its message, and what else comes with it."""

    rule: str
    name: str
    change: Change
    step: Step
    says: str
    also: frozenset[str] = frozenset()


# ------------------------------------------------------------------------------------- the tables


def entry_of(tables: Tables, virt: int) -> tuple[int, int, int]:
    """The table frame, the byte in it, and the value of the last entry for `virt` (SDM 4.5)."""
    frame = tables.root
    for low in (39, 30, 21, 12):
        at = (virt >> low & 511) * 8
        value = int.from_bytes(tables.pages[frame][at : at + 8], "little")
        if low == 12 or not value & 1 or value & 0x80:
            return frame, at, value
        frame = Phys(value & 0x000F_FFFF_FFFF_F000)
    raise AssertionError("a walk has four levels")


def with_word(tables: Tables, frame: int, at: int, value: int) -> Tables:
    page = bytearray(tables.pages[frame])
    page[at : at + 8] = value.to_bytes(8, "little")
    return replace(tables, pages={**tables.pages, frame: memoryview(bytes(page))})


def edit(tables: Tables, virt: int, change: Callable[[int], int]) -> Tables:
    frame, at, value = entry_of(tables, virt)
    return with_word(tables, frame, at, change(value))


def in_a(virt: Callable[[Intent], int], change: Callable[[int], int]) -> Change:
    def breach(handover: Handover, run: Run) -> Walked:
        tables = edit(handover.page_table_a, virt(handover.intent), change)
        return replace(handover, page_table_a=tables), run

    return breach


def in_b(virt: Callable[[Intent], int], change: Callable[[int], int]) -> Change:
    def breach(handover: Handover, run: Run) -> Walked:
        tables = edit(table_b(handover), virt(handover.intent), change)
        return replace(handover, page_table_b=tables), run

    return breach


def at_v(plan: Intent) -> int:
    return plan.relocation


def at_p(plan: Intent) -> int:
    return plan.control_page


def kernel(plan: Intent) -> int:
    return plan.segments[0].destination.start


def swap_two_in_b(handover: Handover, run: Run) -> Walked:
    """The first two pages of the kernel change places: all is reached, nothing at its own address."""
    first = kernel(handover.intent)
    tables = table_b(handover)
    one, other = entry_of(tables, first)[2], entry_of(tables, first + PAGE)[2]
    tables = edit(tables, first, lambda _: other)
    return replace(handover, page_table_b=edit(tables, first + PAGE, lambda _: one)), run


def unneeded_in_b(address: int) -> Change:
    return in_b(lambda _: address, lambda _: address | 0x63)


def hole_is_wanted(handover: Handover, run: Run) -> Walked:
    """The plan itself asks for a page that is a hole, and page_table_b maps it."""
    hole = 0xC0000
    assert handover.host.memory.kind_at(hole) is None
    last = handover.intent.identity[-1]
    wanted = replace(last, extent=Extent.sized(hole, PAGE))
    plan = replace(handover.intent, identity=(*handover.intent.identity, wanted))
    return unneeded_in_b(hole)(replace(handover, intent=plan), run)


# ----------------------------------------------------------------------------- the list, the copies


def list_words(handover: Handover, change: Callable[[list[int]], None]) -> Handover:
    """The handover with the words of its list changed; a list of one page."""
    [(frame, page)] = handover.page_list.items()
    words = list(memoryview(bytes(page)).cast("Q"))
    change(words)
    data = b"".join(word.to_bytes(8, "little") for word in words)
    return replace(handover, page_list={frame: data})


def copies_of(handover: Handover, run: Run) -> Run:
    """The run with the copies that the handover's list asks for."""
    pages = {each.phys: each.data for each in handover.pieces}

    def word(at: int) -> int:
        return int.from_bytes(pages[Phys(at & -PAGE)][at % PAGE : at % PAGE + 8], "little")

    rows = [
        (0, to, source, PAGE)
        for to, source in follow(handover.registers.general["rdi"], word)
        if to != source
    ]
    return replace(run, copies=np.array(rows, np.int64).reshape(-1, 4))


def line_frame(plan: Intent) -> int:
    [line] = [each for each in plan.segments if each.name == "command line"]
    return line.destination.start // PAGE


def line_goes_to(target: Callable[[Handover], int]) -> Change:
    """The command line's page is copied somewhere else, and plan, list and copies agree on that."""

    def breach(handover: Handover, run: Run) -> Walked:
        old, new = line_frame(handover.intent), target(handover) // PAGE

        def change(words: list[int]) -> None:
            words[words.index(old * PAGE | 1)] = new * PAGE | 1

        wanted = np.where(handover.intent.destinations == old, new, handover.intent.destinations)
        broken = replace(handover, intent=replace(handover.intent, destinations=wanted))
        broken = list_words(broken, change)
        return broken, copies_of(broken, run)

    return breach


def source_is(frame: Callable[[Intent], int]) -> Change:
    """The kernel's last page is read from another frame, and plan, list and copies agree on that."""

    def breach(handover: Handover, run: Run) -> Walked:
        plan = handover.intent
        last = len(plan.segments[0].destination.pages) - 1

        def change(words: list[int]) -> None:
            words[last + 1] = frame(plan) * PAGE | 8

        sources = plan.sources.copy()
        sources[last] = frame(plan)
        broken = list_words(replace(handover, intent=replace(plan, sources=sources)), change)
        return broken, copies_of(broken, run)

    return breach


def same_destination_twice(handover: Handover, run: Run) -> Walked:
    """The kernel's first page is written once more at the end of the list."""

    def change(words: list[int]) -> None:
        end = words.index(4)
        source = words[1]
        words[end : end + 3] = [kernel(handover.intent) | 1, source, 4]

    broken = list_words(handover, change)
    return broken, copies_of(broken, run)


def head_elsewhere(handover: Handover, run: Run) -> Walked:
    general = {**handover.registers.general, "rdi": 0x7000 | 2}
    return replace(handover, registers=replace(handover.registers, general=general)), run


def line_left_out(handover: Handover, run: Run) -> Walked:
    """The command line's page is not in the list."""

    def change(words: list[int]) -> None:
        at = words.index(line_frame(handover.intent) * PAGE | 1)
        words[at : at + 2] = []
        words += [0, 0]

    broken = list_words(handover, change)
    return broken, copies_of(broken, run)


def page_too_many(handover: Handover, run: Run) -> Walked:
    """The kernel's first page is written once more, to a page that is nobody's."""

    def change(words: list[int]) -> None:
        end = words.index(4)
        words[end : end + 3] = [0x777 * PAGE | 1, words[1], 4]

    broken = list_words(handover, change)
    return broken, copies_of(broken, run)


def copies_swapped(handover: Handover, run: Run) -> Walked:
    copies = run.copies.copy()
    copies[[0, 1]] = copies[[1, 0]]
    return handover, replace(run, copies=copies)


def copy_lost(handover: Handover, run: Run) -> Walked:
    return handover, replace(run, copies=run.copies[:-1])


def copy_added(handover: Handover, run: Run) -> Walked:
    return handover, replace(run, copies=np.concatenate([run.copies, run.copies[:1]]))


def copy_done(destination: Callable[[Intent], int], source: Callable[[Intent], int]) -> Change:
    """One more copy, of eight bytes, which is no page of the list."""

    def breach(handover: Handover, run: Run) -> Walked:
        last = run.instructions - 1
        row = [[last, destination(handover.intent), source(handover.intent), 8]]
        return handover, replace(run, copies=np.concatenate([run.copies, np.array(row)]))

    return breach


# ------------------------------------------------------------------------------------------ memory


class Patched:
    """Memory that reads as another memory does, but for some words."""

    def __init__(self, memory: Memory, words: dict[int, int]) -> None:
        self._memory, self._words = memory, words

    def read(self, extent: Extent) -> memoryview:
        data = bytearray(self._memory.read(extent))
        for at, value in self._words.items():
            if extent.covers(Extent.sized(at, 8)):
                data[at - extent.start : at - extent.start + 8] = value.to_bytes(8, "little")
        return memoryview(bytes(data))

    def held(self, extent: Extent) -> tuple[Extent, ...]:
        return (extent,)

    def written(self) -> frozenset[int] | None:
        return self._memory.written()


def memory_word(at: Callable[[Handover], int], value: int) -> Change:
    def breach(handover: Handover, run: Run) -> Walked:
        return handover, replace(run, memory=Patched(run.memory, {at(handover): value}))

    return breach


def at_the_top(handover: Handover, run: Run) -> Walked:
    """Bit 8 in the first present entry of page_table_a's root."""
    tables = handover.page_table_a
    page = bytearray(tables.pages[tables.root])
    slot = next(at for at in range(0, PAGE, 8) if page[at] & 1)
    page[slot + 1] |= 1
    return with_tables(handover, tables.root, bytes(page)), run


def kernel_entry_in_b(handover: Handover) -> int:
    """Where page_table_b's entry for the kernel's second page lies."""
    frame, at, _ = entry_of(table_b(handover), kernel(handover.intent) + PAGE)
    return frame + at


def world_piece(what: str) -> Change:
    """A piece of the old kernel was something else before the walk than it is now."""

    def breach(handover: Handover, run: Run) -> Walked:
        world = handover.world
        first = next(each for each in world.pieces if each.what == what)
        data = bytearray(first.data)
        data[8] ^= 1
        if first.phys in world.tables:
            tables = {**world.tables, first.phys: memoryview(bytes(data))}
            return replace(handover, world=replace(world, tables=tables)), run
        laid = tuple(
            replace(each, data=bytes(data)) if each == first else each for each in world.laid
        )
        return replace(handover, world=replace(world, laid=laid)), run

    return breach


def control_page_differs(handover: Handover, run: Run) -> Walked:
    data = handover.code.data
    code = replace(handover.code, data=data[:0x80] + b"\x90" + data[0x81:])
    return replace(handover, chain=with_code(handover.chain, code)), run


def segment_was_meant(name: str, change: Callable[[bytes], bytes]) -> Change:
    """The plan wanted other bytes than those that were loaded."""

    def breach(handover: Handover, run: Run) -> Walked:
        segments = tuple(
            replace(each, data=change(bytes(each.data))) if each.name == name else each
            for each in handover.intent.segments
        )
        return replace(handover, intent=replace(handover.intent, segments=segments)), run

    return breach


def flip_last(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def stored(at: int) -> Change:
    def breach(handover: Handover, run: Run) -> Walked:
        row = np.array([[3, Step.STATE, at, 8]], np.int64)
        return handover, replace(run, stores=np.concatenate([run.stores, row]))

    return breach


def loaded(at: Callable[[Intent], int]) -> Change:
    def breach(handover: Handover, run: Run) -> Walked:
        row = np.array([[3, Step.COPY, at(handover.intent), 8]], np.int64)
        return handover, replace(run, loads=np.concatenate([run.loads, row]))

    return breach


# --------------------------------------------------------------------------------------- the switch


def translations(pick: Callable[[Translation], bool], **changes: object) -> Change:
    """The first translation that is picked, changed."""

    def breach(handover: Handover, run: Run) -> Walked:
        at = next(n for n, each in enumerate(run.translations) if pick(each))
        log = list(run.translations)
        log[at] = replace(log[at], **changes)  # type: ignore[arg-type]
        return handover, replace(run, translations=tuple(log))

    return breach


def fetched_elsewhere(handover: Handover, run: Run) -> Walked:
    """Under page_table_b the control page's address leads to another frame."""
    root, control = table_b(handover).root, handover.intent.control_page
    moved = next(
        each
        for each in run.translations
        if each.cr3 == root and each.virt & -PAGE == control and each.access is Access.FETCH
    )
    moved = replace(moved, phys=Phys(moved.phys + PAGE))
    return handover, replace(run, translations=(*run.translations, moved))


def writes_of(register: str, keep: Callable[[RegisterWrite], RegisterWrite | None]) -> Change:
    """The writes of one register changed, or left out."""

    def breach(handover: Handover, run: Run) -> Walked:
        out = []
        for each in run.register_writes:
            kept = keep(each) if each.register == register else each
            out += [kept] if kept else []
        return handover, replace(run, register_writes=tuple(out))

    return breach


def left_out(_write: RegisterWrite) -> None:
    return None


def write_after(step: Step, after: int) -> Callable[[RegisterWrite], RegisterWrite]:
    return lambda write: replace(write, after=after) if write.step == step else write


# ---------------------------------------------------------------------------------------- the entry


def registers(change: Callable[[Registers], Registers]) -> Change:
    def breach(handover: Handover, run: Run) -> Walked:
        return handover, replace(run, registers=change(run.registers))

    return breach


def general(name: str, value: int) -> Change:
    return registers(lambda now: replace(now, general={**now.general, name: value}))


def through_the_32_bit_entry(handover: Handover, run: Run) -> Walked:
    """The plan asked for the 32-bit entry, and rbx holds something in 64-bit code with paging on."""
    base = Phys(kernel(handover.intent))
    plan = replace(handover.intent, protocol=Protocol.LINUX_32, entry_bits=32, kernel_entry=base)
    return general("rbx", 7)(replace(handover, intent=plan), run)


OTHER_STUB = frozenset({"stub-as-known"})
"""The stub that was placed is the 64-bit entry's."""
MULTIBOOT_WORDS = {"rax": 0x2BADB002, "rbx": 0xBFFD7000}


def through_multiboot(handover: Handover, run: Run) -> Walked:
    """The plan asked for a Multiboot entry, and eax holds nothing; boot_params is no information."""
    entry = replace(handover.intent.image.entries[0], protocol=Protocol.MULTIBOOT, bits=32)
    plan = replace(
        handover.intent,
        image=replace(handover.intent.image, entries=(entry,)),
        protocol=Protocol.MULTIBOOT,
        entry_bits=32,
        arguments=MULTIBOOT_WORDS,
    )
    return general("rbx", 0xBFFD7000)(replace(handover, intent=plan), run)


def beyond_4_gib(handover: Handover, run: Run) -> Walked:
    """A 32-bit entry, and a plan that has the command line above 4 GiB."""
    segments = tuple(
        replace(each, destination=Extent.sized(1 << 32, PAGE))
        if each.name == "command line"
        else each
        for each in handover.intent.segments
    )
    plan = replace(
        handover.intent,
        protocol=Protocol.LINUX_32,
        entry_bits=32,
        kernel_entry=Phys(kernel(handover.intent)),
        segments=segments,
    )
    return replace(handover, intent=plan), run


def segment(name: str, value: int) -> Change:
    return registers(lambda now: replace(now, segments={**now.segments, name: value}))


def descriptor(name: str, word: int | None) -> Change:
    def breach(handover: Handover, run: Run) -> Walked:
        words = {**run.descriptors}
        if word is None:
            del words[name]
        else:
            words[name] = word
        return handover, replace(run, descriptors=words)

    return breach


def stopped(stop: Stop) -> Change:
    return lambda handover, run: (handover, replace(run, stop=stop))


def fault(
    vector: int, error_code: int | None, access: Access | None, address: int | None
) -> Change:
    def breach(handover: Handover, run: Run) -> Walked:
        met = Fault(
            instruction=2,
            step=Step.TABLE_A,
            vector=vector,
            error_code=error_code,
            address=address,
            access=access,
            rip=Virt(handover.intent.relocation + 5),
            text="mov %cr4,%rax",
            reason="made for this test",
            visits=(),
            escalation=("triple fault: the machine resets",),
            triple=True,
        )
        return handover, replace(run, stop=Stop.FAULT, fault=met)

    return breach


# ----------------------------------------------------------------------------------- the crash kexec


def on_crash(change: Change) -> Change:
    """The change made to a sound crash walk, not to the plain one that it is given."""

    def breach(_handover: Handover, _run: Run) -> Walked:
        good = crashed()
        return change(good.handover, good.run)

    return breach


def on_backup(change: Change) -> Change:
    """The change made to a sound crash walk that saves low memory."""

    def breach(_handover: Handover, _run: Run) -> Walked:
        good = backed_up()
        return change(good.handover, good.run)

    return breach


def other_byte(name: str, offset: int) -> Change:
    """A byte of a segment is not what the walk left there."""

    def breach(handover: Handover, run: Run) -> Walked:
        [segment] = [each for each in handover.segments if each.name == name]
        at = segment.destination.start + offset
        byte = int.from_bytes(run.memory.read(Extent.sized(at, 8)), "little") ^ 0x10
        return handover, replace(run, memory=Patched(run.memory, {at: byte}))

    return breach


def given_away(handover: Handover, run: Run) -> Walked:
    """Everything that boot_params' map reserves is RAM to the new kernel (zero-page.rst, e820_table)."""

    def edited(segment: Segment) -> Segment:
        if segment.name != "boot_params":
            return segment
        page = bytearray(segment.data)
        for row in range(page[0x1E8]):
            page[0x2D0 + 20 * row + 16] = 1
        return replace(segment, data=bytes(page))

    return replace(handover, segments=tuple(edited(each) for each in handover.segments)), run


def piece_at(phys: int) -> Change:
    """Something more is laid into memory before the walk."""

    def breach(handover: Handover, run: Run) -> Walked:
        more = Piece(phys=Phys(phys), data=bytes(8), role=PieceRole.OTHER, which="a stray word")
        return replace(handover, extra=(*handover.extra, more)), run

    return breach


def loaded_at(name: str, phys: int) -> Change:
    """A segment was loaded somewhere else."""

    def breach(handover: Handover, run: Run) -> Walked:
        segments = tuple(
            replace(each, destination=Extent.sized(phys, each.destination.size))
            if each.name == name
            else each
            for each in handover.segments
        )
        return replace(handover, segments=segments), run

    return breach


STRAY = Stale(phys=Phys(0x5000), cr3=0x31006000, is_global=True, harmless=False)
FREE = 0x2000_0000
"""RAM of the example host that neither the old kernel nor the plan of these tests uses."""

TABLES = (
    Breach(
        rule="table-a-maps-v",
        name="V is not mapped",
        change=in_a(at_v, lambda _: 0),
        step=Step.TABLE_A,
        says="does not map V = 0xffffffff9ac01000",
    ),
    Breach(
        rule="table-a-maps-v",
        name="V leads elsewhere",
        change=in_a(at_v, lambda entry: entry + PAGE),
        step=Step.TABLE_A,
        says="maps V = 0xffffffff9ac01000 to 0x100012000",
    ),
    Breach(
        rule="table-a-maps-p",
        name="P is not mapped",
        change=in_a(at_p, lambda _: 0),
        step=Step.STATE,
        says="does not map P = 0x100011000",
    ),
    Breach(
        rule="table-a-rights",
        name="V is not executable",
        change=in_a(at_v, lambda entry: entry | 1 << 63),
        step=Step.TABLE_A,
        says="V = 0xffffffff9ac01000 is not executable (NX is set)",
    ),
    Breach(
        rule="table-a-rights",
        name="P is read-only",
        change=in_a(at_p, lambda entry: entry & ~2),
        step=Step.TABLE_A,
        says="P = 0x100011000 is not writable",
    ),
    Breach(
        rule="table-a-nothing-else",
        name="one page more",
        change=in_a(lambda plan: at_v(plan) + PAGE, lambda _: 0x5063),
        step=Step.TABLE_A,
        says="also maps 0xffffffff9ac02000 to 0x5000 (0x1000 bytes)",
    ),
    Breach(
        rule="reserved-bits",
        name="in the entry for V",
        change=in_a(at_v, lambda entry: entry | 1 << 46),
        step=Step.TABLE_A,
        says="reserved bits 0x400000000000 are set in the PT entry",
    ),
    Breach(
        rule="reserved-bits",
        name="bit 8 at the top of page_table_a, which AMD's CPUs reserve",
        change=at_the_top,
        step=Step.TABLE_A,
        says="of page_table_a's highest level, has bit 8: AMD's CPUs reserve it",
    ),
    Breach(
        rule="reserved-bits",
        name="in the middle of what page_table_b maps",
        change=in_b(lambda plan: kernel(plan) + PAGE, lambda entry: entry | 1 << 47),
        step=Step.TABLE_B,
        says="an entry of page_table_b has reserved bits 0x800000000000",
    ),
    Breach(
        rule="reserved-bits",
        name="at the start of what page_table_b maps",
        change=in_b(kernel, lambda entry: entry | 1 << 51),
        step=Step.TABLE_B,
        says="page_table_b, walked for 0x1000000",
    ),
    Breach(
        rule="table-b-identity",
        name="two pages change places",
        change=swap_two_in_b,
        step=Step.TABLE_B,
        says="maps 0x1000000 to 0x1001000",
    ),
    Breach(
        rule="table-b-covers",
        name="the kernel's second page is left out",
        change=in_b(lambda plan: kernel(plan) + PAGE, lambda _: 0),
        step=Step.TABLE_B,
        says="does not map [0x1001000, 0x1002000): kernel",
    ),
    Breach(
        rule="table-b-nothing-else",
        name="RAM that nobody needs",
        change=unneeded_in_b(0x0120_0000 - PAGE),
        step=Step.TABLE_B,
        says="maps [0x11ff000, 0x1200000), which nothing needs (ram)",
    ),
    Breach(
        rule="table-b-nothing-else",
        name="a hole that nobody needs",
        change=unneeded_in_b(0xC0000),
        step=Step.TABLE_B,
        says="maps [0xc0000, 0xc1000), which nothing needs (a hole)",
    ),
    Breach(
        rule="table-b-nothing-else",
        name="a hole that the plan asks for",
        change=hole_is_wanted,
        step=Step.TABLE_B,
        says="maps [0xc0000, 0xc1000), which is a hole or reserved",
    ),
)

SWITCHING = (
    Breach(
        rule="same-bytes",
        name="one byte of the control page",
        change=control_page_differs,
        step=Step.TABLE_A,
        says="byte 0x80 of the page at V = 0xffffffff9ac01000 differs",
    ),
    Breach(
        rule="code-stays",
        name="the code moves under the CPU",
        change=fetched_elsewhere,
        step=Step.TABLE_B,
        says="the code at 0x100011000 moved from 0x100011000 to 0x100012000",
        also=frozenset({"fetch-owned"}),
    ),
    Breach(
        rule="tlb-agreement",
        name="a stale entry leads elsewhere",
        change=translations(lambda each: each.step == Step.STATE, stale=(STRAY,)),
        step=Step.STATE,
        says="a stale global entry of the old tables still leads to 0x5000",
    ),
    Breach(
        rule="pge-before-identity",
        name="CR4 is never written",
        change=writes_of("cr4", left_out),
        step=Step.STATE,
        says="the identity address 0x100011",
    ),
    Breach(
        rule="pge-before-identity",
        name="CR4 is written too late",
        change=writes_of("cr4", lambda write: replace(write, instruction=10_000)),
        step=Step.STATE,
        says="is used while CR4.PGE is still on",
    ),
    Breach(
        rule="accessed-dirty-preset",
        name="the walker has to write",
        change=translations(lambda each: each.step == Step.TABLE_B, sets_accessed=True),
        step=Step.TABLE_B,
        says="writes an accessed or dirty bit into a table",
    ),
    Breach(
        rule="interrupts-off",
        name="no cli",
        change=writes_of("rflags", left_out),
        step=Step.TABLE_A,
        says="interrupts are on while the tables are switched",
    ),
    Breach(
        rule="interrupts-off",
        name="flags loaded with IF",
        change=writes_of("rflags", write_after(Step.STATE, 0x202)),
        step=Step.STATE,
        says="`popf` at 0xffffffff9ac01019 turns interrupts on",
    ),
    Breach(
        rule="idt-gone",
        name="no lidt",
        change=writes_of("idt", left_out),
        step=Step.STATE,
        says="the old kernel's idt at 0xffff9a5871001000 is still loaded",
    ),
    Breach(
        rule="idt-gone",
        name="an idt that has a limit",
        change=writes_of("idt", write_after(Step.STATE, 0x5000 << 16 | 0xFFF)),
        step=Step.STATE,
        says="an idt with limit 0xfff is loaded at 0x5000",
    ),
    Breach(
        rule="stack-inside",
        name="above the control page",
        change=writes_of("rsp", write_after(Step.STATE, 0x1_0001_3000)),
        step=Step.STATE,
        says="the stack is set to 0x100013000",
    ),
    Breach(
        rule="stack-inside",
        name="at the very start of the control page",
        change=writes_of("rsp", write_after(Step.STATE, 0x1_0001_1000)),
        step=Step.STATE,
        says="the stack is set to 0x100011000",
    ),
)

COPYING = (
    Breach(
        rule="list-ends",
        name="the head leads nowhere",
        change=head_elsewhere,
        step=Step.COPY,
        says="no page of the list lies at 0x7000",
        # A list without words asks for nothing, so the copies and the segments are too many.
        also=frozenset({"list-covers", "copies-follow-list"}),
    ),
    Breach(
        rule="control-page-kept",
        name="a page is copied onto it",
        change=line_goes_to(lambda handover: handover.intent.control_page),
        step=Step.COPY,
        says="at 0x100011000 is among the destinations",
        also=frozenset({"list-covers"}),
    ),
    Breach(
        rule="list-kept",
        name="a page is copied onto it",
        change=line_goes_to(lambda handover: next(iter(handover.page_list))),
        step=Step.COPY,
        says="a page of the list itself at 0x100010000",
        also=frozenset({"list-covers"}),
    ),
    Breach(
        rule="tables-kept",
        name="a page is copied onto page_table_b",
        change=line_goes_to(lambda handover: table_b(handover).root),
        step=Step.COPY,
        says="a page table in use at 0x100019000",
        also=frozenset({"list-covers"}),
    ),
    Breach(
        rule="tables-kept",
        name="a page is copied onto page_table_a",
        change=line_goes_to(lambda handover: max(handover.page_table_a.pages)),
        step=Step.COPY,
        says="a page table in use at 0x100018000",
        also=frozenset({"list-covers"}),
    ),
    Breach(
        rule="source-intact",
        name="a source was overwritten",
        change=source_is(lambda plan: kernel(plan) // PAGE),
        step=Step.COPY,
        says="the source 0x1000000 of 0x100f000 is read after an earlier copy overwrote it",
        also=frozenset({"laid-free"}),  # the kernel's place is the old kernel's still
    ),
    Breach(
        rule="source-intact",
        name="a source is overwritten later",
        change=source_is(lambda plan: plan.entry // PAGE),
        step=Step.COPY,
        says="is also another page's destination",
    ),
    Breach(
        rule="source-intact",
        name="a destination twice",
        change=same_destination_twice,
        step=Step.COPY,
        says="0x1000000 is a destination twice",
        # Segments do not overlap, so the second time is one page too many.
        also=frozenset({"list-covers"}),
    ),
    Breach(
        rule="list-covers",
        name="a page is left out",
        change=line_left_out,
        step=Step.COPY,
        says="0xbffd8000 (the command line's destination) is left out of the page list",
    ),
    Breach(
        rule="list-covers",
        name="a page is too many",
        change=page_too_many,
        step=Step.COPY,
        says="0x777000 (free RAM) does not belong into the page list",
        also=frozenset({"copies-owned"}),
    ),
    Breach(
        rule="list-covers",
        name="a page goes elsewhere, and the plan says so too",
        change=line_goes_to(lambda _: 0x777 * PAGE),
        step=Step.COPY,
        says="0xbffd8000 (the command line's destination) is left out of the page list",
    ),
    Breach(
        rule="copies-follow-list",
        name="in another order",
        change=copies_swapped,
        step=Step.COPY,
        says="asks for copy 0 to be 0x100000000 -> 0x1000000, and it was 0x100001000 -> 0x1001000",
    ),
    Breach(
        rule="copies-follow-list",
        name="the last one is missing",
        change=copy_lost,
        step=Step.COPY,
        says="asks for copy 15 to be 0x10000f000 -> 0x100f000, and it was none",
    ),
    Breach(
        rule="destinations-complete",
        name="a byte of the initrd",
        change=segment_was_meant("initrd", flip_last),
        step=Step.COPY,
        says="the initrd is not what it should be: byte 0x3ffff at 0x7fffffff",
    ),
    Breach(
        rule="destinations-complete",
        name="a byte of the stub",
        change=segment_was_meant("entry stub", flip_last),
        step=Step.COPY,
        says="the entry stub is not what it should be",
    ),
    Breach(
        rule="destinations-complete",
        name="a byte behind the data",
        change=segment_was_meant("kernel", lambda data: data[:0x1D0]),
        step=Step.COPY,
        says="the kernel is not what it should be: byte 0x",
    ),
    Breach(
        rule="destinations-complete",
        name="the very last byte",
        change=memory_word(
            lambda handover: handover.intent.segments[0].destination.end - 8, 1 << 56
        ),
        step=Step.COPY,
        says="byte 0xffff at 0x100ffff is 0x01, not 0x00",
    ),
)

OWNERSHIP = (
    Breach(
        rule="stores-owned",
        name="a store into free memory",
        change=stored(FREE),
        step=Step.STATE,
        says="writes 8 bytes at 0x20000000, which the walk does not own",
    ),
    Breach(
        rule="stores-owned",
        name="a store that begins inside and ends outside",
        change=stored(0x1_0001_1FFC),
        step=Step.STATE,
        says="writes 8 bytes at 0x100011ffc",
    ),
    Breach(
        rule="loads-owned",
        name="a load above the stack",
        change=loaded(lambda plan: plan.control_page + PAGE),
        step=Step.COPY,
        says="reads 8 bytes at 0x100012000, which the walk does not own",
    ),
    Breach(
        rule="copies-owned",
        name="a copy onto memory that is not the plan's",
        change=copy_done(lambda _: FREE, lambda plan: int(plan.sources[0]) * PAGE),
        step=Step.COPY,
        says="a copy writes 0x20000000, which is not in the plan",
    ),
    Breach(
        rule="copies-owned",
        name="a copy out of memory that is not the plan's",
        change=copy_done(kernel, lambda _: FREE),
        step=Step.COPY,
        says="a copy reads 0x20000000, which is not in the plan",
    ),
    Breach(
        rule="current-pgd-kept",
        name="an entry",
        change=world_piece("the old kernel's page tables"),
        step=Step.COPY,
        says="the old kernel's page table 0x31006000 was overwritten (first at 0x31006008)",
    ),
    Breach(
        rule="old-kernel-kept",
        name="the gdt",
        change=world_piece("the old kernel's gdt"),
        step=Step.COPY,
        says="the old kernel's gdt was overwritten at 0x31000008",
    ),
)

CRASH = (
    Breach(
        rule="crash-region-only",
        name="a piece in free memory",
        change=on_crash(piece_at(FREE)),
        step=Step.PREPARE,
        says="a stray word lies at [0x20000000, 0x20000008), outside the crash region",
    ),
    Breach(
        rule="crash-region-only",
        name="a piece that ends behind the region",
        change=on_crash(piece_at(CRASH_REGION.end - 4)),
        step=Step.PREPARE,
        says="a stray word lies at [0x42fffffc, 0x43000004), outside the crash region",
    ),
    Breach(
        rule="crash-region-only",
        name="a segment in free memory",
        change=on_crash(loaded_at("command line", FREE)),
        step=Step.PREPARE,
        says="the command line lies at [0x20000000, 0x20001000), outside the crash region",
    ),
    Breach(
        rule="crash-region-only",
        name="a store into free memory",
        change=on_crash(stored(FREE)),
        step=Step.STATE,
        says="writes 8 bytes at 0x20000000, outside the crash region [0x33000000, 0x43000000)",
        also=frozenset({"stores-owned"}),
    ),
    Breach(
        rule="crash-region-only",
        name="a copy into free memory",
        change=on_crash(copy_done(lambda _: FREE, lambda plan: int(plan.sources[0]) * PAGE)),
        step=Step.COPY,
        says="writes 8 bytes at 0x20000000, outside the crash region",
        also=frozenset({"copies-owned"}),
    ),
)

DUMP = (
    Breach(
        rule="backup-complete",
        name="one byte is another",
        change=on_backup(other_byte("backup of low memory", 0x5_1234)),
        step=Step.COPY,
        says="low memory is not saved: 0x51234 is not at 0x",
    ),
    Breach(
        rule="dump-survives",
        name="the new kernel may write the backup",
        change=on_backup(given_away),
        step=Step.PREPARE,
        says="which the new kernel may write",
    ),
)

ENTRY = (
    Breach(
        rule="arrived",
        name="a halt",
        change=stopped(Stop.HALT),
        step=Step.COPY,
        says="the walk halted at 0x1000200 and never reached the new kernel",
    ),
    Breach(
        rule="arrived",
        name="in circles",
        change=stopped(Stop.LIMIT),
        step=Step.COPY,
        says="the walk was still going after 1485 at 0x1000200",
    ),
    Breach(
        rule="copies-follow-list",
        name="one more than the list has",
        change=copy_added,
        step=Step.COPY,
        says="asks for copy 16 to be none, and it was 0x100000000 -> 0x1000000",
    ),
    Breach(
        rule="known-state",
        name="CR4.PGE on",
        change=registers(lambda now: replace(now, cr4=now.cr4 | 0x80)),
        step=Step.COPY,
        says="CR4 is PAE PGE",
    ),
    Breach(
        rule="known-state",
        name="CR0.WP on",
        change=registers(lambda now: replace(now, cr0=now.cr0 | 0x10000)),
        step=Step.COPY,
        says="CR0 is PE MP ET NE WP PG",
    ),
    Breach(
        rule="known-state",
        name="not in long mode",
        change=registers(lambda now: replace(now, efer=0x800, cr4=0x20)),
        step=Step.COPY,
        says="EFER is NXE",
        # Four levels read as PAE's three lead nowhere.
        also=frozenset({"entry-mapped", "entry-stack"}),
    ),
    Breach(
        rule="entry-selectors",
        name="DS",
        change=segment("ds", 0x20),
        step=Step.COPY,
        says="ds is 0x20, not 0x18",
    ),
    Breach(
        rule="entry-selectors",
        name="CS",
        change=segment("cs", 0x18),
        step=Step.COPY,
        says="cs is 0x18, not 0x10",
    ),
    Breach(
        rule="entry-selectors",
        name="no gdt",
        change=descriptor("ss", None),
        step=Step.COPY,
        says="no readable descriptor for ss = 0x18",
    ),
    Breach(
        rule="entry-selectors",
        name="data where code should be",
        change=descriptor("cs", 0x00CF_9300_0000_FFFF),
        step=Step.COPY,
        says="the descriptor of cs is 0x00cf93000000ffff",
    ),
    Breach(
        rule="entry-selectors",
        name="a limit of 64 KiB",
        change=descriptor("es", 0x0000_9300_0000_FFFF),
        step=Step.COPY,
        says="not a flat 4 GiB segment",
    ),
    Breach(
        rule="entry-flags",
        name="IF",
        change=registers(lambda now: replace(now, rflags=0x202)),
        step=Step.COPY,
        says="flags at the entry are 0x202 (IF)",
    ),
    Breach(
        rule="entry-flags",
        name="DF",
        change=registers(lambda now: replace(now, rflags=0x402)),
        step=Step.COPY,
        says="flags at the entry are 0x402 (DF)",
    ),
    Breach(
        rule="entry-flags",
        name="TF",
        change=registers(lambda now: replace(now, rflags=0x102)),
        step=Step.COPY,
        says="flags at the entry are 0x102 (TF)",
    ),
    Breach(
        rule="entry-boot-params",
        name="another page",
        change=general("rsi", 0xBFFD8000),
        step=Step.COPY,
        says="rsi is 0xbffd8000, and boot_params lies at 0xbffd7000",
    ),
    Breach(
        rule="entry-zeroed",
        name="rbx at the 32-bit entry",
        change=through_the_32_bit_entry,
        step=Step.COPY,
        says="registers that have to be 0 at the entry are not: ebx is 0x7",
        also=frozenset({"entry-selectors", "known-state"}) | OTHER_STUB,
    ),
    Breach(
        rule="entry-arguments",
        name="no magic word",
        change=through_multiboot,
        step=Step.COPY,
        says="eax is 0x0, and multiboot puts 0x2badb002 there",
        also=frozenset({"entry-selectors", "known-state", "entry-information"}) | OTHER_STUB,
    ),
    Breach(
        rule="entry-information",
        name="boot_params where Multiboot's information should be",
        change=through_multiboot,
        step=Step.COPY,
        says="what is handed over at 0xbffd7000 is not what was planned: flags 0x0 promise",
        also=frozenset({"entry-selectors", "known-state", "entry-arguments"}) | OTHER_STUB,
    ),
    Breach(
        rule="entry-in-reach",
        name="the command line at 4 GiB",
        change=beyond_4_gib,
        step=Step.COPY,
        says="the command line lies at [0x100000000, 0x100001000), where 32-bit code cannot reach",
        # The line's bytes are not there, of course.
        also=frozenset({"entry-selectors", "known-state", "destinations-complete", "list-covers"})
        | OTHER_STUB,
    ),
    Breach(
        rule="entry-mapped",
        name="the kernel's second page",
        change=memory_word(kernel_entry_in_b, 0),
        step=Step.COPY,
        says="0x1001000 of the kernel cannot be used by the new kernel: the PT entry is not present",
    ),
    Breach(
        rule="entry-mapped",
        name="the kernel's second page leads elsewhere",
        change=memory_word(kernel_entry_in_b, 0x5063),
        step=Step.COPY,
        says="0x1001000 of the kernel cannot be used by the new kernel: leads to 0x5000",
    ),
    Breach(
        rule="entry-stack",
        name="unmapped",
        change=general("rsp", FREE),
        step=Step.COPY,
        says="the stack cannot be used: read at 0x20000000",
    ),
    Breach(
        rule="entry-stack",
        name="no room below",
        # The page below the kernel is not mapped; its first word is made zero.
        change=lambda handover, run: general("rsp", kernel(handover.intent))(
            *memory_word(lambda h: kernel(h.intent), 0)(handover, run)
        ),
        step=Step.COPY,
        says="the stack cannot be used: write at 0xfffff8",
        # The word that is not zero any more was the kernel's.
        also=frozenset({"destinations-complete"}),
    ),
    Breach(
        rule="entry-stack",
        name="garbage at its top",
        change=general("rsp", 0x1000200),
        step=Step.COPY,
        says="0(%rsp) at 0x1000200 is 0x",
    ),
)

FAULTS = (
    Breach(
        rule="fetch-mapped",
        name="not present",
        change=fault(14, 0x10, Access.FETCH, 0xFFFF_FFFF_9AC0_1005),
        step=Step.TABLE_A,
        says="the instruction at 0xffffffff9ac01005 cannot be fetched",
    ),
    Breach(
        rule="fetch-mapped",
        name="not canonical",
        change=fault(13, 0, Access.FETCH, None),
        step=Step.TABLE_A,
        says="cannot be fetched",
    ),
    Breach(
        rule="fetch-executable",
        name="NX",
        change=fault(14, 0x11, Access.FETCH, 0x1_0001_1005),
        step=Step.TABLE_A,
        says="the instruction at 0x100011005 cannot be fetched",
    ),
    Breach(
        rule="access-mapped",
        name="not present",
        change=fault(14, 2, Access.WRITE, 0x5000),
        step=Step.TABLE_A,
        says="a write at 0x5000 faults",
    ),
    Breach(
        rule="access-mapped",
        name="read-only",
        change=fault(14, 3, Access.WRITE, 0xFFFF_8880_0000_5000),
        step=Step.TABLE_A,
        says="a write at 0xffff888000005000 faults",
    ),
    Breach(
        rule="access-mapped",
        name="not canonical",
        change=fault(13, 0, Access.READ, None),
        step=Step.TABLE_A,
        says="`mov %cr4,%rax` at 0xffffffff9ac01005 faults",
    ),
    Breach(
        rule="fault-reserved",
        name="met by a fetch",
        change=fault(14, 0x19, Access.FETCH, 0xFFFF_FFFF_9AC0_1005),
        step=Step.TABLE_A,
        says="the instruction at 0xffffffff9ac01005 cannot be fetched",
    ),
    Breach(
        rule="fault-reserved",
        name="met by a read",
        change=fault(14, 9, Access.READ, 0x5000),
        step=Step.TABLE_A,
        says="a read at 0x5000 faults",
    ),
    Breach(
        rule="legal-writes",
        name="#GP",
        change=fault(13, 0, None, None),
        step=Step.TABLE_A,
        says="`mov %cr4,%rax` at 0xffffffff9ac01005 faults",
    ),
    Breach(
        rule="no-exception",
        name="#UD",
        change=fault(6, None, None, None),
        step=Step.TABLE_A,
        says="`mov %cr4,%rax` at 0xffffffff9ac01005 faults",
    ),
    Breach(
        rule="no-exception",
        name="#MC",
        change=fault(18, None, None, None),
        step=Step.TABLE_A,
        says="`mov %cr4,%rax` at 0xffffffff9ac01005 faults",
    ),
)


def on_pae(change: Change) -> Change:
    """The change made to a sound PAE walk, not to the one that it is given."""

    def breach(_handover: Handover, _run: Run) -> Walked:
        good = crashed(Paging.PAE)
        return change(good.handover, good.run)

    return breach


def pdpte_of_p_stored(after: int) -> Change:
    """A store into the PDPTE of P in page_table_a, so many instructions after it was loaded."""

    def breach(handover: Handover, run: Run) -> Walked:
        loaded = next(each.instruction for each in run.register_writes if each.register == "cr3")
        at = handover.page_table_a.root + 8 * (handover.intent.control_page >> 30)
        row = np.array([[loaded + after, Step.TABLE_A, at, 8]])
        return handover, replace(run, stores=np.concatenate([run.stores, row]))

    return breach


PDPTES = (
    Breach(
        rule="pdptes-current",
        name="the PDPTE of P, before the stack is set",
        change=on_pae(pdpte_of_p_stored(4)),
        step=Step.TABLE_A,
        says="is written after CR3 was loaded",
        also=frozenset({"stores-owned"}),
    ),
)


def on_la57(change: Change) -> Change:
    """The change made to a sound walk with 5 levels, into a 64-bit entry."""

    def breach(_handover: Handover, _run: Run) -> Walked:
        good = entered_with_5_levels()
        return change(good.handover, good.run)

    return breach


def top_marked(bit: int) -> Change:
    """A bit that the CPU ignores, in the first entry of page_table_b's root."""

    def breach(handover: Handover, run: Run) -> Walked:
        tables = table_b(handover)
        entry = int.from_bytes(tables.pages[tables.root][:8], "little")
        changed = with_word(tables, tables.root, 0, entry | 1 << bit)
        return replace(handover, page_table_b=changed), run

    return breach


def cr3_with(flags: int) -> Change:
    def breach(handover: Handover, run: Run) -> Walked:
        registers = replace(run.registers, cr3=run.registers.cr3 | flags)
        return handover, replace(run, registers=registers)

    return breach


def knows_of_4(handover: Handover, run: Run) -> Walked:
    """The image does not accept 5 levels (xloadflags, bit 5)."""
    image = handover.intent.image
    plain = replace(image, xloadflags=image.xloadflags & ~(1 << 5))
    return replace(handover, intent=replace(handover.intent, image=plain)), run


LEVELS = (
    Breach(
        rule="entry-levels",
        name="an image without XLF_5LEVEL",
        change=on_la57(knows_of_4),
        step=Step.COPY,
        says="knows of 4 alone (no XLF_5LEVEL)",
    ),
    *(
        Breach(
            rule="table-b-top",
            name=f"bit {bit} of the first entry",
            change=on_la57(top_marked(bit)),
            step=Step.TABLE_B,
            says=f"takes {1 << bit:#x} of it for a part of an address",
        )
        for bit in (52, 58, 62)
    ),
    *(
        Breach(
            rule="table-b-top",
            name=f"{name} in CR3",
            change=on_la57(cr3_with(flags)),
            step=Step.COPY,
            says=f"takes {flags:#x} of it for a part of an address",
        )
        for name, flags in (("PCD", 0x10), ("LAM_U57", 1 << 61))
    ),
)

CASES = (
    *PDPTES,
    *LEVELS,
    *TABLES,
    *SWITCHING,
    *COPYING,
    *OWNERSHIP,
    *CRASH,
    *DUMP,
    *ENTRY,
    *FAULTS,
)
