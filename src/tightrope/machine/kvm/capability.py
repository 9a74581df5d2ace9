"""What this computer's KVM can be, found by running a few instructions.

KVM is not the same everywhere: nested and software-emulated ones offer long mode only, or no 1 GiB
pages, and CPUID does not always say so.  So each paging mode is entered on a tiny identity-mapped
machine, CR3 is loaded once more, and a breakpoint behind that has to be reached; each bit of CR4 is
tried.

Rules: nothing is assumed from CPUID, the vendor or a kernel's version; what was found is kept per
process and told in words.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tightrope.abi import kvm as abi
from tightrope.errors import MachineError
from tightrope.machine.kvm.device import Device
from tightrope.machine.kvm.vcpu import VirtualCpu
from tightrope.machine.kvm.watchdog import Watchdog
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Cpu, Paging, Registers
from tightrope.model.modes import MODES
from tightrope.observe.physical import Ram
from tightrope.x86 import cpu as x86

SECONDS = 5.0
"""For a handful of instructions: whoever needs longer does not run them."""
GDT_AT, CODE_AT, TABLES_AT, SIZE = 0x1000, 0x2000, 0x4000, 0x10_0000
CODE32, CODE64, DATA = 0x08, 0x10, 0x18
PRESENT_WRITABLE, LARGE = 0x63, 0xE3
"""Accessed and dirty are preset; bit 7 makes it a large page (SDM 4.5)."""
RELOAD = bytes.fromhex("0f20d8 0f22d8 b801000000 90")
"""mov %cr3, %eax; mov %eax, %cr3; mov $1, %eax; nop: the same bytes in 32 and in 64 bits."""


@dataclass(frozen=True, slots=True)
class Capability:
    """`missing` has what cannot be, with the reason; `cr4` are the bits that can be set in long
    mode."""

    missing: dict[Paging, str]
    gbpages: bool
    nx: bool
    cr4: int
    physical_bits: int


@dataclass(frozen=True, slots=True)
class _Mode:
    """How a probe of a paging mode looks: control registers and levels of tables above a large
    page."""

    cr4: int
    efer: int
    bits: int
    entry: str
    levels: int


_MODES = {
    paging: _Mode(
        # Without PSE 32-bit paging has no large pages (SDM 4.3).
        cr4=mode.cr4_on or x86.CR4_PSE,
        efer=mode.efer_on,
        bits=64 if paging.long_mode else 32,
        entry="<Q" if mode.format.entry_size == 8 else "<I",
        levels=mode.levels - 1,
    )
    for paging, mode in MODES.items()
}


def probe() -> Capability:
    """What this computer's KVM can be.  Raises MissingPart when there is none to be used."""
    device = Device()
    try:
        return _probe(device)
    finally:
        device.close()


@cache
def capability() -> Capability:
    """`probe`, once per process."""
    return probe()


def _probe(device: Device) -> Capability:
    watchdog = Watchdog()
    try:
        runs = {paging: _runs(device, watchdog, mode) for paging, mode in _MODES.items()}
        long = _MODES[Paging.X86_64]
        cr4 = sum(
            bit
            for bit in x86.CR4_NAMES.values()
            if runs[Paging.X86_64] is None
            and bit not in (x86.CR4_LA57, x86.CR4_PAE)
            and _runs(device, watchdog, long, cr4=bit) is None
        )
        return Capability(
            missing={paging: why for paging, why in runs.items() if why is not None},
            gbpages=_runs(device, watchdog, long, huge=True) is None,
            nx=_runs(device, watchdog, long, efer=x86.EFER_NXE) is None,
            cr4=cr4 | x86.CR4_PAE,
            physical_bits=device.physical_bits,
        )
    finally:
        watchdog.close()


def _runs(
    device: Device,
    watchdog: Watchdog,
    mode: _Mode,
    *,
    cr4: int = 0,
    efer: int = 0,
    huge: bool = False,
) -> str | None:
    """None when the probe got to its end, else what happened instead."""
    ram = Ram((Extent(0, SIZE),))
    for phys, data in _world(mode, huge=huge):
        ram.write(phys, data)
    cpu = Cpu(
        physical_bits=device.physical_bits, nx=True, pse=True, pge=True, gbpages=True, la57=True
    )
    try:
        virtual = VirtualCpu(device, ram, cpu, watchdog)
    except MachineError as err:
        return str(err)
    try:
        virtual.load(_registers(mode, cr4, efer), {"cs": _descriptor(mode.bits), "ss": _DATA})
        end = CODE_AT + len(RELOAD) - 1
        virtual.break_at([end])
        with watchdog.limit(SECONDS):
            left = virtual.go()
        if left is None:
            return "it never comes to an end"
        at = virtual.general()
        if left.reason != abi.EXIT_DEBUG or at["rip"] != end or at["rax"] != 1:
            return f"{left.name} at {at['rip']:#x} instead of the end of a probe"
        return None
    except MachineError as err:
        return str(err)
    finally:
        virtual.close()


_DATA = x86.flat_descriptor(code=False, bits=32)


def _descriptor(bits: int) -> int:
    return x86.flat_descriptor(code=True, bits=bits)


def _registers(mode: _Mode, cr4: int, efer: int) -> Registers:
    return Registers(
        general=dict.fromkeys(x86.GENERAL, 0),
        rip=CODE_AT,
        rflags=x86.RFLAGS_FIXED,
        cr0=x86.CR0_PG | x86.CR0_PE | x86.CR0_ET | x86.CR0_NE | x86.CR0_WP,
        cr2=0,
        cr3=TABLES_AT,
        cr4=mode.cr4 | cr4,
        efer=mode.efer | efer,
        segments={
            "cs": CODE64 if mode.bits == 64 else CODE32,
            **dict.fromkeys(("ss", "ds", "es", "fs", "gs"), DATA),
        },
        gdt=(GDT_AT, 31),
        idt=(0, 0),
    )


def _world(mode: _Mode, *, huge: bool) -> Iterator[tuple[int, bytes]]:
    """A gdt, the code, and tables whose first entries lead to address 0 in one large page."""
    yield GDT_AT, struct.pack("<4Q", 0, _descriptor(32), _descriptor(64), _DATA)
    yield CODE_AT, RELOAD
    levels = mode.levels - 1 if huge else mode.levels
    for level in range(levels):
        last = level == levels - 1
        entry = LARGE if last else TABLES_AT + (level + 1) * PAGE_SIZE | PRESENT_WRITABLE
        if mode.efer == 0 and mode.levels == 2 and level == 0:
            entry = TABLES_AT + PAGE_SIZE | 1  # a PDPTE has no rights (SDM 4.4.1)
        yield TABLES_AT + level * PAGE_SIZE, struct.pack(mode.entry, entry)
