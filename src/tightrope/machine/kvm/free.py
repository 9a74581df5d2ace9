"""A walk at full speed: the verdict of a CPU that nobody watches.

Hardware breakpoints stand at the new kernel's first instruction and at the old kernel's exception
handlers.  Between V and there nothing is seen; where the CPU falls it is explained from where it
stands (`machine.post_mortem`).

Rules: that it fell, rip and CR2 are the CPU's own; the rest of a fault is inferred.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tightrope.abi import kvm as abi
from tightrope.errors import MachineError
from tightrope.machine.kvm.kvm import Ready
from tightrope.machine.kvm.vcpu import Exit
from tightrope.machine.kvm.watchdog import Watchdog
from tightrope.model import Fault, Handover, Registers, Run, Sight, Step, Stop
from tightrope.observe.delivery import gate_handler
from tightrope.observe.physical import Ram
from tightrope.observe.post_mortem import explain, mmu_of
from tightrope.observe.record import descriptors
from tightrope.observe.watch import MACHINE_CHECK
from tightrope.x86.cpu import EFER_LMA
from tightrope.x86.walk import Access, Refused

SEES = frozenset({Sight.FAULTS})
BLIND = ("the exception that came first: it is inferred from where the CPU stood",)
EXCEPTIONS = range(32)


def walk(ready: Ready, watchdog: Watchdog) -> Run:
    """Run from V until something stops it.  Raises MachineError where KVM gives up."""
    entry = ready.handover.plan.kernel_entry
    cpu = ready.cpu
    found = handlers(ready)
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
    mmu = mmu_of(ready.handover, ready.ram, registers)
    steps = ((0, Step.CALL), (0, Step.COPY)) if stop is Stop.ENTRY else ((0, Step.CALL),)
    if fell is not None:
        steps = ((0, Step.CALL), (0, fell.step))
    return Run(
        machine="kvm-free",
        stop=stop,
        instructions=0,
        trace=np.zeros(0, np.uint64),
        texts={registers.rip: fell.text} if fell else {},
        step_starts=steps,
        translations=(),
        register_writes=(),
        stores=np.zeros((0, 4), np.int64),
        loads=np.zeros((0, 4), np.int64),
        copies=np.zeros((0, 4), np.int64),
        fault=fell,
        registers=registers,
        memory=ready.ram,
        descriptors=descriptors(mmu, registers),
        blind=(*ready.blind, *BLIND),
        sees=SEES,
    )


def entered(ready: Ready, registers: Registers, left: Exit) -> Exit:
    """The exit at the entry: a breakpoint is met before the page is asked for, which may not be there.

    Only where it is not mapped the CPU is let go on, to fall by itself.
    """
    if mmu_of(ready.handover, ready.ram, registers).refusal(registers.rip, Access.FETCH) is None:
        return left
    ready.cpu.break_at([], stepping=True)
    return ready.cpu.go() or left


def handlers(ready: Ready) -> list[int]:
    """Where the old kernel's gates lead to, each once: a fault that is delivered is seen there."""
    base, limit = ready.handover.registers.idt
    long = bool(ready.handover.registers.efer & EFER_LMA)
    size = 16 if long else 8
    out: dict[int, None] = {}
    for vector in EXCEPTIONS:
        if size * vector + size - 1 > limit:
            break
        phys = ready.mmu.before_the_walk(base + size * vector)
        raw = None if phys is None else ready.ram.view(phys, size)
        if raw is not None:
            out[gate_handler(bytes(raw))] = None
    return list(out)


def _fall(
    ready: Ready, left: Exit, registers: Registers, found: list[int]
) -> tuple[Registers, Fault]:
    """The CPU as it was when it fell, and why."""
    if left.reason == abi.EXIT_DEBUG and registers.rip in found:
        registers, code = interrupted(ready.handover, ready.ram, registers)
        return registers, explain(
            ready.handover,
            ready.ram,
            registers,
            bits=ready.cpu.bits(),
            reset=False,
            error_code=code,
        )
    told = explain(
        ready.handover,
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
            reason=f"no memory answers at physical {left.phys or 0:#x}",
        )
    if left.reason == abi.EXIT_SHUTDOWN or "does not say why" not in told.reason:
        return registers, told
    raise MachineError(
        f"this computer's KVM gave up at {registers.rip:#x} (`{told.text}`): {left.name}"
    )


def interrupted(handover: Handover, ram: Ram, registers: Registers) -> tuple[Registers, int | None]:
    """What a handler's stack frame says: the CPU as it was, and the error code (SDM 6.12, 6.14)."""
    long = bool(registers.efer & EFER_LMA)
    word = 8 if long else 4
    mmu = mmu_of(handover, ram, registers)
    raw = mmu.look(registers.general["rsp"], 6 * word, Access.READ)
    if isinstance(raw, Refused):
        raise MachineError(f"a handler's frame at {registers.general['rsp']:#x} cannot be read")
    words = [int.from_bytes(raw[n * word : n * word + word], "little") for n in range(6)]
    code = None
    # In long mode the frame's start is aligned; a 32-bit one has CS where an error code moves it from.
    aligned = registers.general["rsp"] % 16 == 0
    if aligned if long else words[1] != registers.segments["cs"]:
        code = words.pop(0)
    rip, _cs, flags, *rest = words
    general = dict(registers.general)
    general["rsp"] = rest[0] if long else general["rsp"] + (12 if code is None else 16)
    return replace(registers, rip=rip, rflags=flags, general=general), code
