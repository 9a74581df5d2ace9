"""What the new kernel finds at its first instruction, and what is left of the old one.

    stop        entry, or how it ended otherwise
    registers   all but CR2, which is only defined after a page fault
    segments    the descriptors that the selectors name
    tables      where each page that was promised leads, and what may be done there
    memory      every destination, and every piece of the old kernel

A difference counts where somebody promised it: the entry's protocol, the plan, or the thread
(nothing of the old kernel's is written).  What nobody promised has its reason, `Open`, and who
says so.

Rules: an end is compared with another as a whole; memory that was flipped itself is left out.
What was promised is what the sound plan says: a plan with a bit flipped is looked at with its eyes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from tightrope.check.alike import Bytes
from tightrope.errors import MachineError
from tightrope.memory import PAGE_SHIFT, PAGE_SIZE, Extent, covered
from tightrope.model import Handover, Protocol, Registers, Run, SegmentRole, Stop
from tightrope.model.modes import MODES
from tightrope.x86 import cpu as x86
from tightrope.x86.survey import survey

CORE_HEADER_AT = re.compile(rb"(?<=elfcorehdr=)[^\s\0]+")
"""The number that tells a crash kernel where its core header lies."""
TRAMPOLINE_END = 0xA_0000
"""find_trampoline_placement() stays below BIOS_START_MAX, 0x9f000, whatever the BIOS says."""
STACK = 64
"""Bytes at the end of the stub's page that it pushes its words to."""


class Open(StrEnum):
    """Why nobody is bound by a difference; the value is what a report calls it."""

    REGISTER = "a general register that the entry's protocol leaves undefined"
    SEGMENT = "FS, GS or what they name, which the entry's protocol leaves undefined"
    FLAGS = "a status flag, VIF or VIP, which the entry's protocol leaves undefined"
    EFER = "a bit of EFER that is not long mode's: every kernel writes EFER before it relies on it"
    CR3 = "a bit of CR3 that is ignored, or says how tables are cached"
    UNUSED = (
        "what CR3 holds while paging is off: the new kernel writes it before it turns paging on"
    )
    MCE = (
        "CR4.MCE: a machine check is the end with it as without, until the new kernel has a handler"
    )
    X87 = (
        "CR0.NE or CR0.MP, which are the x87's alone: every kernel sets them before it uses the x87"
    )
    IDT = "an idt without entries in place of another: the entry's protocol leaves it undefined"
    NUMBER = "the case of a letter in the number of elfcorehdr=, which is the same number"
    USER = "a page open to user mode: CR4 has no SMEP and no SMAP at the entry, and nobody is user there"
    NX = "a page that the new kernel reads and writes and never runs from: nothing of its code lies in it"
    BEYOND = "what nobody promised is mapped, or a page is read-only where CR0.WP is 0"


SOURCES: Mapping[Open, str] = {
    Open.REGISTER: "Linux Documentation/arch/x86/boot.rst, 64-bit Boot Protocol (rsi alone) and 32-bit Boot"
    " Protocol (esi; ebp, edi and ebx zero); Multiboot 0.6.96, 3.2",
    Open.SEGMENT: "boot.rst, 64-bit Boot Protocol: CS, DS, ES and SS are named; Linux"
    " arch/x86/boot/compressed/head_64.S and head_32.S load the others themselves",
    Open.FLAGS: "boot.rst, 64-bit Boot Protocol: interrupts have to be off, and no more is said; VIF and VIP"
    " count with CR4.VME or PVI alone (SDM volume 3, 2.3), and POPF leaves them",
    Open.EFER: "boot.rst, 64-bit Boot Protocol; Linux arch/x86/kernel/head_64.S sets SCE and NX itself",
    Open.CR3: "SDM volume 3, table 4-12 and 4.9: bits 2:0 and 11:5 are ignored, PWT and PCD are of memory types,"
    " which no report here sees; where a new kernel reads CR3 for an address, table-b-top binds them",
    Open.UNUSED: "boot.rst, 32-bit Boot Protocol: paging has to be off, and no CR3 is named; SDM volume 3, 4.1.1: it is"
    " used with CR0.PG alone; Linux arch/x86/boot/compressed/head_64.S and kernel/head_32.S write it first",
    Open.MCE: "SDM volume 3, 6.15, #MC: without CR4.MCE the CPU shuts down, and without a handler as well",
    Open.X87: "boot.rst, 64-bit and 32-bit Boot Protocol name no bit of CR0; Multiboot 0.6.96, 3.2: all but PE and PG"
    " are undefined; Linux arch/x86/kernel/head_64.S and head_32.S write CR0_STATE (uapi/asm/processor-flags.h), which has"
    " both; SDM volume 3, 2.5: MP counts with TS alone, which known-state wants clear",
    Open.IDT: "boot.rst, 64-bit and 32-bit Boot Protocol: interrupts have to be off, and no idt is named; Linux"
    " 7.x alone leaves one of its own (relocate_kernel_64.S, kexec_debug_idt), which tells of an exception and"
    " mends none; whether an idt of the old kernel's is left live idt-gone asks",
    Open.NUMBER: "Linux kernel/crash_dump.c, setup_elfcorehdr: memparse; lib/kstrtox.c, _parse_integer_fixup_radix and"
    " _parse_integer_limit lower each letter",
    Open.USER: "SDM volume 3, 4.6.1: a supervisor may use user pages where SMEP and SMAP are off",
    Open.NX: "boot.rst, 64-bit Boot Protocol: [load, load + init_size), the zero page and the command line are mapped; Linux"
    " runs in the first and in the trampoline's place below 640 KiB until it has tables of its own"
    " (arch/x86/boot/compressed/head_64.S, pgtable_64.c, ident_map_64.c), and entry-mapped asks both",
    Open.BEYOND: "boot.rst, 64-bit Boot Protocol names what is mapped, and nothing that is not; SDM volume 3,"
    " 4.6.1: without CR0.WP a supervisor writes read-only pages",
}
"""Who says that it is open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What of an end is not as in another; `open` None where somebody promised it."""

    says: str
    open: Open | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapped:
    """Each promised page, in order: where it leads, and whether it is there and may be used so."""

    virt: NDArray[np.uint64]
    phys: NDArray[np.uint64]
    rights: NDArray[np.uint8]
    """Bit 0 present, 1 writable, 2 executable, 3 open to user mode."""
    runs: NDArray[np.bool_]
    """The new kernel's code lies there, or is put there."""
    beyond: bytes
    """All else that is mapped, as it is compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where a walk ended, as far as anybody can see it."""

    stop: Stop
    registers: Registers | None
    descriptors: Mapping[str, int]
    protocol: Protocol
    bits: int
    reads_root: bool
    """The new kernel takes what CR3 holds for an address."""
    tables: Mapped | None
    line: Extent | None
    """Where the command line lies."""
    memory: tuple[tuple[Extent, Bytes], ...]


READ, WRITABLE, EXECUTABLE, USER = 1, 2, 4, 8
ALL = READ | WRITABLE | EXECUTABLE | USER


def end_of(handover: Handover, run: Run) -> End:
    """The end of a run, at what `handover` promises.

    That is the sound one, whatever was flipped in the one that ran.  Where the run did not get
    there, only that counts.
    """
    arrived = run.stop is Stop.ENTRY
    lines = (each for each in handover.intent.segments if each.role is SegmentRole.COMMAND_LINE)
    line = next(lines, None)
    return End(
        stop=run.stop,
        registers=run.registers if arrived else None,
        descriptors=run.descriptors if arrived else {},
        protocol=handover.intent.protocol,
        bits=handover.intent.entry_bits,
        reads_root=MODES[handover.host.paging].reads_root,
        tables=_tables(handover, run) if arrived and run.registers.cr0 & x86.CR0_PG else None,
        line=line.destination if line else None,
        memory=tuple(_memory(handover, run)) if arrived else (),
    )


def _memory(handover: Handover, run: Run) -> Iterator[tuple[Extent, Bytes]]:
    places = {each.destination for each in handover.intent.segments}
    # The control page is the walk's own, where V is in it as well.
    own = handover.intent.control_page
    places |= {each.extent for each in handover.world.pieces if each.phys != own}
    for place in sorted(places, key=lambda each: (each.start, each.end)):
        try:
            data = np.frombuffer(bytes(run.memory.read(place)), np.uint8)
        except MachineError:
            continue
        if place.start == handover.intent.stub_at & -PAGE_SIZE:
            data = data[:-STACK]
        yield place, data


def _tables(handover: Handover, run: Run) -> Mapped:
    """What the tables in use map, read from memory as it is."""

    def read(frame: int) -> bytes | None:
        try:
            return bytes(run.memory.read(Extent.sized(frame, PAGE_SIZE)))
        except MachineError:
            return None

    mapped = survey(read, run.registers.mmu(handover.host.cpu))
    order = np.argsort(mapped.virt, kind="stable")
    starts, sizes = mapped.virt[order], mapped.size[order]
    wanted, mask, runs = _promised(handover)
    at = np.searchsorted(starts, wanted, side="right") - 1
    found = np.maximum(at, 0)
    there = np.zeros(len(wanted), np.bool_)
    phys, rights = np.zeros(len(wanted), np.uint64), np.zeros(len(wanted), np.uint8)
    if len(starts):
        inside = wanted - starts[found]
        there = (at >= 0) & (inside < sizes[found])
        leads = mapped.phys[order][found] + inside
        # A supervisor writes wherever it may read, unless CR0.WP is set (SDM 4.6.1).
        writable = mapped.writable | (not run.registers.cr0 & x86.CR0_WP)
        may = (
            writable[order][found] * np.uint8(WRITABLE)
            | mapped.executable[order][found] * np.uint8(EXECUTABLE)
            | mapped.user[order][found] * np.uint8(USER)
        )
        phys[there] = leads[there]
        rights[there] = (may[there] | np.uint8(READ)) & mask[there]
    columns = (mapped.virt, mapped.phys, mapped.size, mapped.writable, mapped.executable)
    beyond = b"".join(each.tobytes() for each in columns)
    return Mapped(virt=wanted, phys=phys, rights=rights, runs=runs, beyond=beyond)


def _promised(
    handover: Handover,
) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.bool_]]:
    """The pages that the new kernel was promised, each once, the rights that it has there, and
    whether it runs from it.

    Those of the walk are not among them: its own pages and the sources.  What is no RAM is to be
    read.
    """
    intent, ram = handover.intent, handover.host.memory.ram
    own = {each.phys for each in handover.pieces}
    own.update((intent.sources << PAGE_SHIFT).tolist())
    extents = [each.extent for each in intent.identity if each.extent.start not in own]
    extents += [each.destination for each in intent.segments]
    pages = [np.arange(each.pages.start, each.pages.stop, dtype=np.uint64) for each in extents]
    rights = [
        np.full(len(each.pages), ALL if covered(each, ram) else READ, np.uint8) for each in extents
    ]
    every, at = np.unique(np.concatenate(pages), return_index=True)
    virt = every * np.uint64(PAGE_SIZE)
    runs = virt < np.uint64(TRAMPOLINE_END)
    for each in intent.segments:
        if each.role is SegmentRole.KERNEL or intent.kernel_entry in each.destination:
            place = each.destination.page_aligned()
            runs |= (virt >= np.uint64(place.start)) & (virt < np.uint64(place.end))
    return virt, np.concatenate(rights)[at], runs


def differences(one: End, other: End, flipped: Sequence[Extent]) -> Iterator[Difference]:
    """What of the second end is not as in the first, but for what was flipped.

    Both are at what one plan promises; ValueError where they are not.
    """
    if one.stop is not other.stop:
        yield Difference(says=f"ends in {other.stop.value}")
        return
    if one.registers is not None and other.registers is not None:
        yield from _registers(one, one.registers, other.registers)
    for name in one.descriptors.keys() | other.descriptors.keys():
        was, now = one.descriptors.get(name), other.descriptors.get(name)
        if was != now:
            yield Difference(
                says=f"what {name} names: {_hex(was)} -> {_hex(now)}",
                open=Open.SEGMENT if name in ("fs", "gs") else None,
            )
    if one.tables is not None and other.tables is not None:
        yield from _mapped(one.tables, other.tables)
    yield from _bytes(one, other, flipped)


def _hex(value: int | None) -> str:
    return "nothing" if value is None else f"{value:#x}"


BOUND: Mapping[tuple[Protocol, int], frozenset[str]] = {
    (Protocol.LINUX_64, 64): frozenset({"rsp", "rsi"}),
    (Protocol.LINUX_32, 32): frozenset({"rsp", "rsi", "rbp", "rdi", "rbx"}),
    (Protocol.MULTIBOOT, 32): frozenset({"rsp", "rax", "rbx"}),
    (Protocol.MULTIBOOT2, 32): frozenset({"rsp", "rax", "rbx"}),
    (Protocol.PVH, 32): frozenset({"rsp", "rbx"}),
}
"""The general registers of each entry that somebody reads: rsp is every purgatory's."""
STATUS = 0x18_08D5
"""CF, PF, AF, ZF, SF and OF (SDM volume 1, 3.4.3.1), VIF and VIP."""


def _registers(end: End, was: Registers, now: Registers) -> Iterator[Difference]:
    bound = BOUND.get((end.protocol, end.bits), frozenset({"rsp"}))
    mask = (1 << end.bits) - 1
    # Xen's PVH protocol wants all of CR0 but PE clear.
    unused = not (was.cr0 | now.cr0) & x86.CR0_PG
    cacheable = 0 if end.reads_root else PAGE_SIZE - 1
    numeric = 0 if end.protocol is Protocol.PVH else x86.CR0_NE | x86.CR0_MP
    for name, before in was.general.items():
        after = now.general[name]
        if (before ^ after) & mask and not (end.bits == 32 and name[1:].isdigit()):
            yield Difference(
                says=f"{name}: {before:#x} -> {after:#x}",
                open=None if name in bound else Open.REGISTER,
            )
    for name, before in was.segments.items():
        if before != now.segments[name]:
            yield Difference(
                says=f"{name}: {before:#x} -> {now.segments[name]:#x}",
                open=Open.SEGMENT if name in ("fs", "gs") else None,
            )
    for name, before, after, free, why in (
        ("rip", was.rip, now.rip, 0, None),
        ("rflags", was.rflags, now.rflags, STATUS, Open.FLAGS),
        # Unicorn keeps reserved bits of CR0, and a CPU does not (SDM 2.5).
        ("cr0", was.cr0 & x86.CR0_DEFINED, now.cr0 & x86.CR0_DEFINED, numeric, Open.X87),
        ("cr3", was.cr3, now.cr3, *((-1, Open.UNUSED) if unused else (cacheable, Open.CR3))),
        ("cr4", was.cr4, now.cr4, x86.CR4_MCE, Open.MCE),
        ("efer", was.efer, now.efer, ~(x86.EFER_LME | x86.EFER_LMA), Open.EFER),
    ):
        if before != after:
            yield Difference(
                says=f"{name}: {before:#x} -> {after:#x}",
                open=None if (before ^ after) & ~free else why,
            )
    for name, table, other in (("gdt", was.gdt, now.gdt), ("idt", was.idt, now.idt)):
        # Where a table without a single entry begins is nobody's business.
        if table != other and (table[1] or other[1]):
            gone = name == "idt" and not other[1]
            yield Difference(says=f"{name}: {table} -> {other}", open=Open.IDT if gone else None)


def _mapped(one: Mapped, other: Mapped) -> Iterator[Difference]:
    if not np.array_equal(one.virt, other.virt):
        raise ValueError("the two ends are at what two plans promise")
    bound = np.where(one.runs, np.uint8(~USER & 0xFF), np.uint8(~(USER | EXECUTABLE) & 0xFF))
    apart = (one.phys != other.phys) | ((one.rights ^ other.rights) & bound != 0)
    for at in np.nonzero(apart)[0][:1].tolist():
        if not other.rights[at]:
            says = "is mapped no longer"
        elif one.phys[at] != other.phys[at]:
            says = f"leads to {int(other.phys[at]):#x}"
        elif one.rights[at] & ~other.rights[at] & WRITABLE:
            says = "can no longer be written"
        elif one.rights[at] & ~other.rights[at] & EXECUTABLE:
            says = "can no longer be executed"
        else:
            says = "may be used otherwise"
        yield Difference(says=f"{int(one.virt[at]):#x} {says}")
    loose = np.bitwise_or.reduce(one.rights ^ other.rights) if not apart.any() else np.uint8(0)
    if loose & EXECUTABLE:
        yield Difference(says="a page can be executed, or no longer", open=Open.NX)
    if loose & USER:
        yield Difference(says="a page is open to user mode, or no longer", open=Open.USER)
    if not apart.any() and one.beyond != other.beyond:
        yield Difference(says="something else is mapped", open=Open.BEYOND)


def _bytes(one: End, other: End, flipped: Sequence[Extent]) -> Iterator[Difference]:
    there = dict(other.memory)
    for place, was in one.memory:
        now = there.get(place)
        if now is None:
            yield Difference(says=f"{place} cannot be read")
        elif np.array_equal(was, now):
            continue
        elif place == one.line and _one_number(was, now):
            yield Difference(says=f"the command line at {place.start:#x}", open=Open.NUMBER)
        else:
            for at in np.nonzero(was != now)[0].tolist():
                if not any(place.start + at in each for each in flipped):
                    yield Difference(says=f"memory at {place.start + at:#x}")
                    return


def _one_number(was: Bytes, now: Bytes) -> bool:
    """Two command lines differ in the case of letters in the address of the core header alone."""
    return _lowered(was) == _lowered(now)


def _lowered(line: Bytes) -> bytes:
    return CORE_HEADER_AT.sub(lambda found: found[0].lower(), line.tobytes())


def first(one: End, other: End, flipped: Sequence[Extent]) -> Difference | None:
    """The first difference that somebody promised there would not be, else the first open one."""
    found = list(differences(one, other, flipped))
    return next((each for each in found if each.open is None), found[0] if found else None)
