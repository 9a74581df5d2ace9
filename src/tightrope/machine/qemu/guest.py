"""A real old kernel, booted on the PC to where it would call its relocation code.

    firmware -> kernel -> init says what it is -> reboot -> machine_shutdown() -> stopped

An old kernel that is about to kexec has shut its devices and interrupt controllers down; so has one
that is about to restart (native_machine_restart() in Linux arch/x86/kernel/reboot.c), and that is
where it is stopped: at native_machine_emergency_restart(), the function that would reset the
machine.

Rules: the guest's init is the one of scripts/build-initramfs; it speaks in lines that begin with
`tightrope:`.  This file reads lines and drives the CPU; what they mean is for `host` to say.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from tightrope.errors import MachineError
from tightrope.machine.layout import Destinations, lay
from tightrope.machine.port import Progress, no_progress
from tightrope.machine.qemu import cpu
from tightrope.machine.qemu.pc import Board, Pc
from tightrope.memory import PAGE_SIZE
from tightrope.model import Handover, Registers
from tightrope.x86.cpu import CR4_PAE, EFER_LMA, GENERAL

STOP_AT = "native_machine_emergency_restart"
IOMEM, SYMBOL, NOTE = "tightrope: iomem ", "tightrope: symbol ", "tightrope: note "
TOLD = "tightrope: told"
LAST_LINES = 3
ACCESSED = 0x20


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """An old kernel that stands: what it said of itself, and its CPU."""

    pc: Pc
    iomem: str
    symbols: str
    notes: str
    """Lines of START SIZE WHAT, hexadecimal without 0x: where it leaves notes for a crash kernel.
    """
    registers: Registers


def boot(board: Board, *, seconds: float, progress: Progress = no_progress) -> Standing:
    """Boot the old kernel of a board and stop it.  Raises MachineError when it does not come up."""
    pc = Pc(replace(board, command_line=f"{board.command_line} tightrope.do=tell".strip()))
    try:
        return _stand(pc, seconds, progress)
    except BaseException:
        pc.close()
        raise


def _stand(pc: Pc, seconds: float, progress: Progress) -> Standing:
    started = time.monotonic()

    def told() -> bool:
        progress("the old kernel boots", int(time.monotonic() - started), int(seconds))
        return TOLD in pc.lines

    stopped = pc.go(seconds=seconds, turn=told)
    if stopped is not None or TOLD not in pc.lines:
        raise never(pc, "the old kernel's init did not tell what it is", seconds)
    symbols = _behind(pc, SYMBOL)
    at = [row.split()[0] for row in symbols.splitlines() if row.split()[-1:] == [STOP_AT]]
    if not at:
        raise MachineError(f"the old kernel has no {STOP_AT} in /proc/kallsyms")
    pc.break_at(int(at[0], 16))
    pc.say("\n")
    stopped = pc.go(seconds=seconds)
    if stopped is None or stopped.shut_down:
        raise never(pc, f"the old kernel did not get to {STOP_AT}", seconds)
    pc.unbreak_all()
    _pdptes_as_a_cpu_has_them(pc)
    return Standing(
        pc=pc,
        iomem=_behind(pc, IOMEM),
        symbols=symbols,
        notes=_behind(pc, NOTE),
        registers=cpu.registers(pc),
    )


def never(pc: Pc, what: str, seconds: float) -> MachineError:
    """The error for a guest that does not get somewhere: its last lines, and where its CPU
    stands."""
    if pc.running:
        pc.stop()
    said = " / ".join(pc.lines[-LAST_LINES:]) or "nothing"
    return MachineError(
        f"{what} within {seconds:.0f} s; the CPU is at {pc.registers()['rip']:#x},"
        f" and the console says: {said}"
    )


def _behind(pc: Pc, word: str) -> str:
    """What the lines that begin with a word say behind it."""
    return "".join(f"{line[len(word) :]}\n" for line in pc.lines if line.startswith(word))


def _pdptes_as_a_cpu_has_them(pc: Pc) -> None:
    """Clear the accessed bit in the PDPTEs: see `walk`, which does so for tables of ours."""
    said = pc.registers()
    if said["cr4"] & CR4_PAE and not said["efer"] & EFER_LMA:
        root = said["cr3"] & ~0x1F & 0xFFFF_FFFF
        for at in range(root, root + 32, 8):
            view = pc.ram.view(at, 1)
            if view is not None:
                view[0] &= ~ACCESSED & 0xFF


def lay_over(standing: Standing, handover: Handover) -> None:
    """The handover into the memory of an old kernel that stands, and its CPU to the call at V."""
    pc = standing.pc
    lay(handover, pc.ram, Destinations.KEPT)
    page = bytes(handover.world.pieces[0].data)
    virt = handover.registers.rip & -PAGE_SIZE
    for at in range(0, PAGE_SIZE, 1024):
        # Through the stub, so that QEMU forgets what it translated of this page.
        pc.write(virt + at, page[at : at + 1024])
    names = GENERAL if handover.registers.efer & EFER_LMA else GENERAL[:8]
    for name in names:
        pc.set_register(name, handover.registers.general[name])
    pc.set_register("eflags", handover.registers.rflags)
    pc.set_register("rip", handover.registers.rip)
