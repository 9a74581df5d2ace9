"""Unicorn as the CPU; the MMU is ours (`observe.mmu`).

    emulator    a walk from V to the entry, and after how many instructions it is given up
    engine      the Unicorn instance: registers, memory, hooks
    callbacks   what Unicorn calls most often
    at_call     the CPU put where the old kernel calls V
    bench       what stays between two runs on the same memory
    context     two facts about an exception that Unicorn keeps to itself
    widen       a 64-bit engine in the state of a 32-bit one
    alone       Unicorn with its own MMU and nobody watching; it gives up much sooner
    ticker      the clock, while it runs
    console     the new kernel runs on, with its own idt and a serial port
    translations   what its page tables say, answered in the way that costs least
    cpuid       what CPUID says to it
    binding     Unicorn's library and its numbers, by the house's names

Who gives a walk up: `emulator` after 50 million instructions, each copy of a page being one, as
`observe.watch` counts them, or after 16 pages that a walk without paging uses astray; and `alone`
after 2 million, as Unicorn counts them, each turn of a repeated string instruction being one.

May import: errors, memory, model, observe, x86
"""

from tightrope.machine.unicorn.emulator import Emulator

__all__ = ["Emulator"]
