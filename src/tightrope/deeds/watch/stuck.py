"""Whether a guest's CPU stands where nothing can bring it on: a loop of nothing, or a halt.

    jmp .          eb fe, e9 -5             Linux's and kexec-tools' purgatory when a digest is wrong
    pause; jmp     f3 90 eb fc              the same, as some compilers write it
    hlt            QEMU says so             the handlers of a control page (Linux 6.15 and newer), die()

Rules: with interrupts off nothing but an NMI ends either, so that one look is enough; with
interrupts on nothing is said.  Source: SDM volume 2, HLT, JMP; arch/x86/purgatory/purgatory.c.
"""

from __future__ import annotations

from tightrope.deeds.watch.memory import GuestMemory
from tightrope.errors import MachineError
from tightrope.machine.attached import Attached
from tightrope.x86.walk import Mmu

IF = 1 << 9
LOOPS = (
    (0, b"\xeb\xfe"),
    (0, b"\xe9\xfb\xff\xff\xff"),
    (0, b"\xf3\x90\xeb\xfc"),
    (2, b"\xf3\x90\xeb\xfc"),
)
"""How far behind the loop's beginning rip is, and the loop."""


def stuck(guest: Attached, registers: dict[str, int], physical_bits: int) -> str | None:
    """What it does where it stands, for a sentence; None where it may go on by itself."""
    if registers["eflags"] & IF:
        return None
    mmu = Mmu(
        cr0=registers["cr0"],
        cr3=registers["cr3"],
        cr4=registers["cr4"],
        efer=registers["efer"],
        physical_bits=physical_bits,
    )
    memory, rip = GuestMemory(guest), registers["rip"]

    def lies(at: int, code: bytes) -> bool:
        try:
            return memory.virt(mmu, at, len(code)) == code
        except MachineError:
            return False

    if any(lies(rip - behind, code) for behind, code in LOOPS):
        return "goes in circles"
    return "has halted with interrupts off" if guest.halted() else None
