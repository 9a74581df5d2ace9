"""The CPU's state in the house's words, from the gdb stub and the monitor.

Rules: the stub's names are gdb's; what it lacks (the descriptor tables) the monitor's `info
registers` has.  Source of that text: QEMU target/i386/cpu-dump.c, x86_cpu_dump_state().
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tightrope.errors import WireError
from tightrope.machine.qemu.pc import Pc
from tightrope.model import Registers
from tightrope.x86.cpu import EFER_LMA, GENERAL, RFLAGS_IF

SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs")
TABLE = re.compile(r"\b(GDT|IDT)=\s+([0-9a-f]+) ([0-9a-f]+)")
FLAGS = re.compile(r"\b[RE]FL=([0-9a-f]+)")
HALTED = re.compile(r"\bHLT=1\b")


def tables(dump: str) -> dict[str, tuple[int, int]]:
    """(base, limit) of "gdt" and "idt" in a dump of the CPU.  Raises WireError without them."""
    found = {
        name.lower(): (int(base, 16), int(limit, 16)) for name, base, limit in TABLE.findall(dump)
    }
    if len(found) != 2:
        raise WireError("QEMU's register dump has no GDT and IDT")
    return found


def halted(dump: str) -> bool:
    """The CPU has executed HLT with interrupts off: nothing but an NMI will wake it.

    The byte before rip says nothing of it: many an instruction ends in 0xf4, a load from -12(%ebp)
    for one.
    """
    flags = FLAGS.search(dump)
    if flags is None:
        raise WireError("QEMU's register dump has no flags")
    return HALTED.search(dump) is not None and not int(flags[1], 16) & RFLAGS_IF


def registers(pc: Pc) -> Registers:
    """All of the CPU as it stands."""
    return as_registers(pc.registers(), pc.monitor("info registers"))


def as_registers(said: Mapping[str, int], dump: str) -> Registers:
    """What the stub and the monitor's dump say of one CPU.  Raises WireError without its tables."""
    table = tables(dump)
    # Outside long mode the upper halves and r8 to r15 do not exist; QEMU keeps what was there.
    wide = bool(said["efer"] & EFER_LMA)
    names = GENERAL if wide else GENERAL[:8]
    mask = (1 << 64) - 1 if wide else (1 << 32) - 1
    general = dict.fromkeys(GENERAL, 0) | {name: said[name] & mask for name in names}
    return Registers(
        general=general,
        rip=said["rip"] & mask,
        rflags=said["eflags"],
        cr0=said["cr0"],
        cr2=said["cr2"],
        cr3=said["cr3"],
        cr4=said["cr4"],
        efer=said["efer"],
        segments={name: said[name] for name in SEGMENTS},
        gdt=table["gdt"],
        idt=table["idt"],
    )
