"""Unicorn as the CPU; the MMU is ours (`machine.mmu`).

    engine      the Unicorn instance: registers, memory, hooks
    callbacks   what Unicorn calls most often
    at_call     the CPU put where the old kernel calls V
    bench       what stays between two runs on the same memory
    context     two facts about an exception that Unicorn keeps to itself
    widen       a 64-bit engine in the state of a 32-bit one
    alone       Unicorn with its own MMU and nobody watching
    ticker      the clock, while it runs
    console     the new kernel runs on, with its own idt and a serial port

May import: errors, memory, model, observe, x86
"""

from tightrope.machine.unicorn.emulator import Emulator

__all__ = ["Emulator"]
