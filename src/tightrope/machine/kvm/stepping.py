"""A walk instruction by instruction on the real CPU, told as the emulator's.

Ahead of each instruction the lookout asks our own MMU and the manual what is going to happen; then
KVM executes it.  The two can differ: then the CPU is right, because this is its verdict.

    our model refuses, the CPU falls        a fault, with the model's reason
    our model refuses, the CPU goes on      no fault; the walk goes on, and `blind` counts it
    our model allows, the CPU falls         a fault that the model cannot explain

Rules: a repeated string move runs to its end by a breakpoint behind it and is one instruction.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.abi import kvm as abi
from tightrope.errors import MachineError
from tightrope.machine.kvm.ready import Ready
from tightrope.machine.kvm.vcpu import Exit
from tightrope.machine.kvm.watchdog import Watchdog
from tightrope.model import Registers, Run
from tightrope.observe.decode import Kind
from tightrope.observe.interrupted import handlers, interrupted
from tightrope.observe.lookout import Lookout
from tightrope.observe.observed import Words
from tightrope.observe.physical import Ram
from tightrope.observe.post_mortem import explain, mmu_of, register
from tightrope.observe.record import observed
from tightrope.observe.trouble import Trouble
from tightrope.x86.cpu import EFER_LMA

INSTRUCTION_LIMIT = 5_000_000


class Stepped:
    """A virtual CPU between two instructions: see `observe.observed.ObservedCpu`."""

    def __init__(self, ready: Ready) -> None:
        self._cpu = ready.cpu
        self.ram: Ram = ready.ram
        self.bits = 64 if ready.expected.registers.efer & EFER_LMA else 32
        self.general = ready.cpu.general()
        self._whole: Registers | None = None

    def stepped(self) -> None:
        """An instruction has run."""
        self.general = self._cpu.general()
        self._whole = None

    @property
    def registers(self) -> Registers:
        """All registers; what only a few instructions need is fetched only for them."""
        if self._whole is None:
            self._whole = self._cpu.registers()
        return self._whole

    def read(self, name: str) -> int:
        """One register by name."""
        value = self.general.get(name)
        return register(self.registers, name) if value is None else value

    def table(self, name: str) -> tuple[int, int]:
        """Base and limit of "gdtr" or "idtr"."""
        return self.registers.gdt if name == "gdtr" else self.registers.idt

    def batch(self, *names: str) -> Words:
        """See `Words`."""
        return _Copies(self, names)

    def stop(self) -> None:
        """Between two instructions it stands anyway."""

    def forget_code(self) -> None:
        """A real CPU sees what was written."""


class _Copies:
    """Register values to look at; what a watch would write back the CPU does itself."""

    def __init__(self, cpu: Stepped, names: tuple[str, ...]) -> None:
        self._cpu = cpu
        self._names = names

    def read(self) -> list[int]:
        return [self._cpu.read(name) for name in self._names]

    def write(self) -> None:
        pass


def walk(ready: Ready, watchdog: Watchdog) -> Run:
    """Step from V until the walk is over.  Raises MachineError where KVM gives up."""
    steps = ready.expected.steps()
    cpu = Stepped(ready)
    watch = Lookout(cpu, ready.mmu, steps, ready.expected, INSTRUCTION_LIMIT)
    found = handlers(ready.mmu, ready.expected.registers)[: abi.BREAKPOINTS]
    overruled = 0
    with watchdog.limit(ready.seconds):
        # Stepping alone may run on through a handler: an exception's delivery is no step to all
        # KVMs.
        ready.cpu.break_at(found, stepping=True)
        while not watch.over:
            before = cpu.general
            watch.ahead(before["rip"])
            if watch.arrived or watch.halted or watch.over_limit:
                break
            left = _step(ready, cpu, watch, found)
            if left is None:
                watch.over_limit = True
            elif left.reason == abi.EXIT_IO:
                continue
            elif left.reason != abi.EXIT_DEBUG:
                _fell(watch, cpu, left)
            elif cpu.general["rip"] in found:
                _taken(ready, cpu, watch)
            elif watch.trouble is not None:
                watch.trouble = None
                overruled += 1
                if before["rip"] == ready.expected.entry:
                    raise MachineError("this computer's KVM fetches from where nothing is mapped")
    blind = ready.blind
    if overruled:
        blind += (f"{overruled} faults that the manual asks for and this KVM does not raise",)
    run = observed("kvm", watch, ready.mmu, steps, cpu.registers, blind)
    if run.fault is not None and not run.fault.explained:
        # In the middle of a string move, or what the model allows.
        told = explain(
            ready.expected, ready.ram, cpu.registers, bits=ready.cpu.bits(), reset=run.fault.triple
        )
        now = replace(told, instruction=run.fault.instruction, step=run.fault.step)
        run = replace(run, fault=now)
    return run


def _step(ready: Ready, cpu: Stepped, watch: Lookout, found: tuple[int, ...]) -> Exit | None:
    """Execute one instruction, a repeated string move as one."""
    operation = watch.current()
    if operation is not None and operation.kind is Kind.STRING and watch.trouble is None:
        ready.cpu.break_at([watch.rip + operation.size, *found[: abi.BREAKPOINTS - 1]])
        left = ready.cpu.go()
        ready.cpu.break_at(found, stepping=True)
    else:
        left = ready.cpu.go()
    cpu.stepped()
    return left


def _fell(watch: Lookout, cpu: Stepped, left: Exit) -> None:
    """The CPU shut down, met a hole, or KVM gave up."""
    if watch.trouble is not None:
        return
    if left.reason == abi.EXIT_MMIO and left.phys is not None:
        watch.hole(left.phys)
        return
    if left.reason != abi.EXIT_SHUTDOWN:
        text = watch.texts().get(watch.rip, "?")
        raise MachineError(f"this computer's KVM gave up at {watch.rip:#x} (`{text}`): {left.name}")
    watch.exception(8)


def _taken(ready: Ready, cpu: Stepped, watch: Lookout) -> None:
    """An exception reached a handler of the old kernel: the CPU as it was, and what was pushed."""
    registers, code = interrupted(mmu_of(ready.expected, ready.ram, cpu.registers), cpu.registers)
    cpu._whole = registers
    if watch.trouble is None:
        watch.exception(14 if registers.cr2 != ready.expected.registers.cr2 else 13)
    trouble = watch.trouble
    assert isinstance(trouble, Trouble)
    watch.trouble = replace(
        trouble, error_code=code if trouble.error_code is None else trouble.error_code
    )
