"""A walk at full speed: the verdict of a CPU that nobody watches.

Hardware breakpoints stand at the new kernel's first instruction and at the old kernel's exception
handlers.  Between V and there nothing is seen; where the CPU falls it is explained from where it
stands (`observe.post_mortem`).

Rules: that it fell, rip and CR2 are the CPU's own; the rest of a fault is inferred.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.abi import kvm as abi
from tightrope.errors import MachineError
from tightrope.machine.kvm.ready import Ready
from tightrope.machine.kvm.vcpu import Exit
from tightrope.machine.kvm.watchdog import Watchdog
from tightrope.model import Fault, Registers, Run, Step, Stop
from tightrope.observe.interrupted import INFERRED, handlers, interrupted
from tightrope.observe.post_mortem import explain, mmu_of
from tightrope.observe.record import descriptors
from tightrope.observe.watch import MACHINE_CHECK
from tightrope.x86.walk import Access


def walk(ready: Ready, watchdog: Watchdog) -> Run:
    """Run from V until something stops it.  Raises MachineError where KVM gives up."""
    entry = ready.expected.entry
    cpu = ready.cpu
    found = handlers(ready.mmu, ready.expected.registers)
    cpu.break_at([entry, *found[: abi.BREAKPOINTS - 1]])
    with watchdog.limit(ready.seconds):
        while True:
            left = cpu.go()
            if left is None or left.reason != abi.EXIT_IO:
                break
    registers = cpu.registers()
    if left and left.reason == abi.EXIT_DEBUG and registers.rip == entry:
        left = entered(ready, registers, left)
    fell: Fault | None = None
    if left is None:
        stop = Stop.LIMIT
    elif left.reason == abi.EXIT_HLT:
        stop = Stop.HALT
    elif left.reason == abi.EXIT_DEBUG and registers.rip not in found:
        stop = Stop.ENTRY
    else:
        stop = Stop.FAULT
        registers, fell = _fall(ready, left, registers, found)
    mmu = mmu_of(ready.expected, ready.ram, registers)
    steps = ((0, Step.CALL), (0, Step.COPY)) if stop is Stop.ENTRY else ((0, Step.CALL),)
    if fell is not None:
        steps = ((0, Step.CALL), (0, fell.step))
    return Run.unwatched(
        machine="kvm-free",
        stop=stop,
        texts={registers.rip: fell.text} if fell else {},
        step_starts=steps,
        fault=fell,
        registers=registers,
        memory=ready.ram,
        descriptors=descriptors(mmu, registers),
        blind=(*ready.blind, *INFERRED),
    )


def entered(ready: Ready, registers: Registers, left: Exit) -> Exit:
    """The exit at the entry: a breakpoint is met before the page is asked for, which may not be
    there.

    Only where it is not mapped the CPU is let go on, to fall by itself.
    """
    if mmu_of(ready.expected, ready.ram, registers).refusal(registers.rip, Access.FETCH) is None:
        return left
    ready.cpu.break_at([], stepping=True)
    return ready.cpu.go() or left


def _fall(
    ready: Ready, left: Exit, registers: Registers, found: tuple[int, ...]
) -> tuple[Registers, Fault]:
    """The CPU as it was when it fell, and why."""
    if left.reason == abi.EXIT_DEBUG and registers.rip in found:
        registers, code = interrupted(mmu_of(ready.expected, ready.ram, registers), registers)
        return registers, explain(
            ready.expected,
            ready.ram,
            registers,
            bits=ready.cpu.bits(),
            reset=False,
            error_code=code,
        )
    told = explain(
        ready.expected,
        ready.ram,
        registers,
        bits=ready.cpu.bits(),
        reset=left.reason == abi.EXIT_SHUTDOWN,
    )
    if left.reason == abi.EXIT_MMIO:
        # A write is reported once its instruction is done: rip may be that of the next one.
        return registers, replace(
            told,
            vector=MACHINE_CHECK,
            error_code=None,
            address=None,
            explained=True,
            reason=f"no memory answers at physical {left.phys or 0:#x}",
        )
    if left.reason == abi.EXIT_SHUTDOWN or told.explained:
        return registers, told
    raise MachineError(
        f"this computer's KVM gave up at {registers.rip:#x} (`{told.text}`): {left.name}"
    )
