"""Unicorn as the CPU; the MMU is ours (`machine.mmu`).

    engine      the Unicorn instance: registers, memory, hooks
    alone       Unicorn with its own MMU and nobody watching
    console     the new kernel runs on, with its own idt and a serial port

May import: errors, memory, model, x86
"""

from tightrope.machine.emulator.emulator import Emulator

__all__ = ["Emulator"]
