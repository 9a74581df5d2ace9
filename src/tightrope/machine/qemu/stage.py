"""A PC put into the state of a described old kernel: its memory laid, its CPU at the call at V.

    firmware -> stage_pc (a Multiboot kernel of ours, halted) -> lay -> stage_32 or stage_64 -> V

What firmware leaves is kept, because the new kernel will look for it: ACPI tables, chipset, BIOS
data.  So a host has to fit the PC: all RAM that it names must be RAM here.

Rules: descriptor tables and segments are loaded by `routines/stage_pc.S`, which the CPU runs; the
gdb stub sets the rest, and everything is read back before the walk begins.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from tightrope import routines
from tightrope.errors import CannotBe, MachineError
from tightrope.machine.layout import lay
from tightrope.machine.qemu import cpu
from tightrope.machine.qemu.memory import HIGH, LOW_ALL, LOW_SPLIT, MIB
from tightrope.machine.qemu.pc import Board, Pc
from tightrope.memory import PAGE_SIZE, Extent, align_up, subtract
from tightrope.model import Code, Handover, Host, Registers
from tightrope.x86.cpu import CR4_PCIDE, EFER_LMA, GENERAL

FIRMWARE_SECONDS = 60.0
HOME = 0x10_0000
"""Where the firmware loads stage_pc: the address in its Multiboot header."""
STAGES = (0x2_0000, 0x4_0000, 0x6_0000)
"""Where it may be moved: low memory that firmware has done with and plans leave alone."""
STAGE_SIZE = 4 * PAGE_SIZE
PHYSICAL_BITS = 40
"""MAXPHYADDR of every CPU that TCG plays (QEMU target/i386/cpu.h, TCG_PHYS_ADDR_BITS)."""
INFO_MEMORY_MAP = 1 << 6
"""Multiboot 0.6.96, 3.3: mmap_length and mmap_addr are valid."""
FIRMWARE = 128 << 10
"""Bytes at the top of low RAM that SeaBIOS keeps for itself; a host that has a use for them gets
more."""
_WAKE = 1 << 20
"""Bytes at the top of low RAM where SeaBIOS runs its start-up code (its src/post.c, reloc_preinit).
"""


def board_for(host: Host, *, accelerator: str = "tcg", model: str = "max") -> Board:
    """The PC that has a host's RAM.  Raises CannotBe where the `pc` machine cannot have it."""
    low = max((e.end for e in host.memory.ram if e.start < HIGH), default=0)
    high = max((e.end for e in host.memory.ram if e.start >= HIGH), default=0)
    if host.memory.ram[-1].end > 1 << PHYSICAL_BITS:
        raise CannotBe(f"RAM at {host.memory.ram[-1]}: QEMU's CPU has {PHYSICAL_BITS} address bits")
    low = align_up(low + FIRMWARE, MIB)
    if low > (LOW_SPLIT if high else LOW_ALL - MIB):
        raise CannotBe(f"RAM up to {low:#x}: QEMU's pc has none so high below 4 GiB")
    return Board(
        size=LOW_SPLIT + align_up(high - HIGH, MIB) if high else low,
        split=bool(high),
        kernel=routines.read(routines.STAGE_PC).data.ljust(PAGE_SIZE, b"\0"),
        cpu=f"{model},la57={_on(host.cpu.la57)},pdpe1gb={_on(host.cpu.gbpages)}",
        accelerator=accelerator,
    )


def _on(flag: bool) -> str:
    return "on" if flag else "off"


def after_firmware(pc: Pc, *, seconds: float | None = None) -> tuple[Extent, ...]:
    """Let the firmware run until stage_pc halts; the RAM that it reports.  Raises MachineError."""
    seconds = FIRMWARE_SECONDS if seconds is None else seconds
    code = routines.read(routines.STAGE_PC)
    loaded = HOME + code.symbols["loaded"]
    pc.break_at(loaded)
    stopped = pc.go(seconds=seconds)
    said = pc.registers()
    if stopped is None or stopped.shut_down or said["rip"] != loaded:
        raise MachineError(
            f"the firmware did not boot within {seconds:.0f} s: the CPU is at"
            f" {said['rip']:#x}, and the console says {pc.lines[-1:] or 'nothing'}"
        )
    pc.unbreak(loaded)
    return _memory_map(pc, said["rbx"])


def _memory_map(pc: Pc, info: int) -> tuple[Extent, ...]:
    """The RAM in the Multiboot information at a physical address (Multiboot 0.6.96, 3.3)."""
    flags, *_rest, length, at = struct.unpack("<I10III", pc.ram.read(Extent.sized(info, 52)))
    if not flags & INFO_MEMORY_MAP:
        raise MachineError("the firmware hands over no memory map")
    data = pc.ram.read(Extent.sized(at, length))
    found, offset = [], 0
    while offset + 24 <= length:
        size, start, bytes_, kind = struct.unpack_from("<IQQI", data, offset)
        if kind == 1:
            found.append(Extent.sized(start, bytes_))
        offset += size + 4
    return tuple(found)


def check_ram(host: Host, ram: Iterable[Extent]) -> None:
    """Raise CannotBe where the host has RAM that the PC has not."""
    missing = subtract(host.memory.ram, ram)
    if missing:
        raise CannotBe(
            f"{host.source} has RAM at {missing[0]}, and QEMU's pc has none there:"
            " `tightrope host example --pc MIB` describes one that fits"
        )


def lay_out(pc: Pc, handover: Handover, *, may_lack: int = CR4_PCIDE) -> int:
    """Everything into RAM, and the CPU at the call at V; the CR4 that it has.

    `may_lack` are the bits of CR4 that the CPU may be without.  Raises MachineError, CannotBe.
    """
    for extent in handover.host.memory.ram:
        if extent.start >= HOME:  # what firmware worked in; below it keeps its own data
            pc.ram.zero(Extent(align_up(extent.start, PAGE_SIZE), extent.end & -PAGE_SIZE))
    pc.ram.began_empty = True
    lay(handover, pc.ram)
    world = handover.world
    for phys in (world.code_phys, handover.intent.control_page, handover.intent.entry):
        _forget_code(pc, phys)
    _segments(pc, handover)
    _control(pc, handover.registers)
    for name in GENERAL:
        if handover.registers.efer & EFER_LMA or name in GENERAL[:8]:
            pc.set_register(name, handover.registers.general[name])
    pc.set_register("eflags", handover.registers.rflags)
    pc.set_register("rip", handover.registers.rip)
    now = cpu.registers(pc)
    _compare(now, handover.registers, may_lack)
    return now.cr4


def _forget_code(pc: Pc, phys: int) -> None:
    """Make QEMU drop what it translated of a page that this process wrote to behind its back.

    A write through the gdb stub does that; the firmware's own code ran at the top of low RAM.
    """
    page = phys & -PAGE_SIZE
    if page >= HIGH or page + _WAKE < pc.ram.extents[0].end:
        return
    data = bytes(pc.ram.read(Extent.sized(page, PAGE_SIZE)))
    for at in range(0, PAGE_SIZE, 1024):
        pc.write(page + at, data[at : at + 1024])


def _segments(pc: Pc, handover: Handover) -> None:
    """Descriptor tables and segment registers, by stage_pc."""
    code = routines.read(routines.STAGE_PC)
    place = _place(handover)
    registers = handover.registers
    bits = 64 if registers.efer & EFER_LMA else 32
    own = (
        place.start + code.symbols["own_gdt"],
        code.symbols["own_gdt_end"] - code.symbols["own_gdt"] - 1,
    )
    given_up = all(
        selector | 7 > registers.gdt[1] for selector in registers.segments.values() if selector & ~7
    )
    kept = bytes(pc.ram.read(place))
    pc.ram.zero(place)
    pc.ram.write(
        place.start, _filled(code, place.start, registers, own if given_up else registers.gdt)
    )
    pc.set_register("rsi", place.start)
    _until_ready(pc, code, place, f"stage_{bits}")
    if given_up:
        # Linux gives its gdt up before the call: what it had loaded from it was flat, as ours is.
        for name, selector in registers.segments.items():
            if name != "cs":
                pc.set_register(name, selector)
        pc.ram.write(place.start, _filled(code, place.start, registers, registers.gdt))
        _until_ready(pc, code, place, f"tables_{bits}")
    pc.ram.write(place.start, kept)


def _until_ready(pc: Pc, code: Code, place: Extent, label: str) -> None:
    """Run stage_pc from a label until it is ready."""
    ready = place.start + code.symbols["ready"]
    pc.set_register("rip", place.start + code.symbols[label])
    pc.break_at(ready)
    stopped = pc.go(seconds=FIRMWARE_SECONDS)
    if stopped is None or stopped.shut_down or pc.registers()["rip"] != ready:
        raise MachineError("the PC does not get into the old kernel's segments")
    pc.unbreak(ready)


def _place(handover: Handover) -> Extent:
    pieces = (*handover.world.pieces, *handover.pieces)
    for start in STAGES:
        place = Extent.sized(start, STAGE_SIZE)
        if not any(piece.extent.overlaps(place) for piece in pieces):
            return place
    raise CannotBe("the handover leaves no low memory to set the stage in")


def _filled(code: Code, base: int, registers: Registers, gdt: tuple[int, int]) -> bytes:
    """The page of stage_pc at `base`, which is to load this gdt, and the registers' idt and CR3."""
    data = bytearray(code.data)
    struct.pack_into("<I", data, code.symbols["own_base"], base + code.symbols["own_gdt"])
    for symbol, (address, limit) in (("old_gdt", gdt), ("old_idt", registers.idt)):
        struct.pack_into("<HQ", data, code.symbols[symbol], limit, address)
    struct.pack_into("<Q", data, code.symbols["old_cr3"], registers.cr3)
    return bytes(data)


def _control(pc: Pc, registers: Registers) -> None:
    """Paging as the old kernel has it; in long mode it stays on all the time.  Then what is
    left."""
    pc.set_register("efer", registers.efer)
    pc.set_register("cr4", registers.cr4)
    if registers.efer & EFER_LMA:
        pc.set_register("cr3", registers.cr3)
    pc.set_register("cr0", registers.cr0)
    now = pc.registers()
    for name, selector in registers.segments.items():
        if now[name] != selector:
            # Not Linux's: the stub reads the descriptor from the old kernel's own gdt.
            pc.set_register(name, selector)


def _compare(now: Registers, wanted: Registers, may_lack: int) -> None:
    """Raise CannotBe where the CPU did not take a value."""
    for name in ("rip", "rflags", "cr0", "cr3", "efer", "gdt", "idt"):
        got, want = getattr(now, name), getattr(wanted, name)
        if got != want:
            raise CannotBe(f"QEMU's CPU has {name} = {got}, where the old kernel has {want}")
    # What this CPU has no feature for it drops; the walk clears CR4 but for PAE and LA57 in any
    # case.
    if (now.cr4 ^ wanted.cr4) & ~may_lack:
        raise CannotBe(
            f"QEMU's CPU takes CR4 = {wanted.cr4:#x} as {now.cr4:#x}: it lacks a feature of the host's"
        )
    for name, selector in wanted.segments.items():
        if now.segments[name] != selector:
            raise MachineError(f"{name} is {now.segments[name]:#x}, not {selector:#x}")
    for name, value in wanted.general.items():
        if now.general[name] != value and (wanted.efer & EFER_LMA or name in GENERAL[:8]):
            raise MachineError(f"{name} is {now.general[name]:#x}, not {value:#x}")
