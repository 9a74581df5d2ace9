"""A handover walked in Unicorn, from the call at V to the new kernel's first instruction.

Rules: an `Emulator` keeps its memory and its engine from one run to the next when the host's memory
map is the same, so that a thousand rehearsals cost a thousand walks and not a thousand machines.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import MachineError
from tightrope.machine.delivery import follow
from tightrope.machine.emulator.bench import Bench
from tightrope.machine.emulator.console import listen
from tightrope.machine.emulator.engine import Failed
from tightrope.machine.emulator.watch import Watch
from tightrope.machine.emulator.widen import widened
from tightrope.machine.layout import lay
from tightrope.machine.mmu import WatchedMmu
from tightrope.machine.physical import Ram, backed
from tightrope.machine.port import Progress, no_progress
from tightrope.machine.steps import StepTracker
from tightrope.memory import PAGE_SHIFT, Virt
from tightrope.model import Buffer, Console, Fault, Handover, Plan, Registers, Run, Stop
from tightrope.x86.cpu import EFER_LMA

INSTRUCTION_LIMIT = 50_000_000
"""Far above any list that fits a machine: a walk that gets here goes in circles."""


class Emulator:
    """See `machine.port.Machine`."""

    name = "emulator"
    blind = (
        "other CPUs, NMI, machine checks, SMI and DMA",
        "memory types (PAT, MTRR) and caches",
        "memory encryption",
    )

    def __init__(self, *, instruction_limit: int = INSTRUCTION_LIMIT) -> None:
        self._limit = instruction_limit
        self._bench: Bench | None = None
        self._entered = False

    def run(self, handover: Handover) -> Run:
        """Walk.  Raises MachineError when the machine has no room for the host."""
        plan, host = handover.plan, handover.plan.host
        extents = backed(host.memory, host.firmware)
        bits = 64 if host.efer & EFER_LMA else 32
        same = self._bench and self._bench.ram.extents == extents
        if self._bench is None or not same or self._bench.engine.bits != bits:
            self._bench = Bench(Ram(extents), bits)
        bench = self._bench
        engine, ram = bench.engine, bench.ram
        self._entered = False
        lay(handover, ram)
        bench.forget_changed_code()
        frozen: dict[int, Buffer] = {
            **handover.world.tables,
            **handover.page_table_a.pages,
            **(handover.page_table_b.pages if handover.page_table_b else {}),
        }
        mmu = WatchedMmu(ram, host.cpu, handover.registers, frozen)
        steps = StepTracker(plan.relocation)
        bench.load(handover, mmu)
        watch = Watch(
            engine,
            mmu,
            steps,
            plan.kernel_entry,
            self._limit,
            bench.known,
            bench.code,
            lambda frame: _expected(plan, frame),
        )
        try:
            bench.start(watch, handover.registers.rip)
        except Failed as err:
            if not watch.over:
                raise MachineError(
                    f"the emulator gave up at {engine.read('rip'):#x}: {err}"
                ) from err
        bench.trust_code(watch)
        registers = engine.registers()
        if watch.trouble is not None:
            stop = Stop.FAULT
        elif watch.over_limit:
            stop = Stop.LIMIT
        elif watch.arrived:
            stop = Stop.ENTRY
        else:
            stop = Stop.HALT
        self._entered = stop is Stop.ENTRY
        return Run(
            machine=self.name,
            stop=stop,
            instructions=watch.index + 1,
            trace=np.array(watch.trace, np.uint64),
            texts=watch.texts(),
            step_starts=tuple(steps.starts),
            translations=tuple(mmu.log),
            register_writes=tuple(watch.writes),
            stores=_rows(watch.stores),
            loads=_rows(watch.loads),
            copies=_rows(watch.copies),
            fault=_fault(watch, mmu, steps, registers),
            registers=registers,
            memory=ram,
            descriptors=_descriptors(mmu, registers),
            blind=self.blind,
        )

    def close(self) -> None:
        """Forget the engine and its memory."""
        self._bench = None
        self._entered = False

    def console(
        self, *, seconds: float, whole: bool = False, progress: Progress = no_progress
    ) -> Console:
        """See `machine.port.Machine`."""
        if self._bench is None or not self._entered:
            raise MachineError("there is no new kernel to listen to: the walk did not get there")
        self._entered = False
        bench, self._bench = self._bench, None
        bench.leave()
        engine = bench.engine if bench.engine.bits == 64 else widened(bench.engine)
        return listen(engine, seconds=seconds, whole=whole, progress=progress)


def _expected(plan: Plan, frame: int) -> bool:
    """The control page, the list, the sources and the destinations: what a walk has to do with."""
    return (
        frame == plan.control_page >> PAGE_SHIFT
        or frame << PAGE_SHIFT in plan.list_pages
        or bool((plan.destinations == frame).any() or (plan.sources == frame).any())
    )


def _rows(flat: object) -> NDArray[np.int64]:
    return np.array(flat, np.int64).reshape(-1, 4)


def _fault(watch: Watch, mmu: WatchedMmu, steps: StepTracker, registers: Registers) -> Fault | None:
    trouble = watch.trouble
    if trouble is None:
        return None
    lines, triple = follow(mmu, registers, trouble.vector)
    operation = watch.current()
    return Fault(
        instruction=watch.index,
        step=steps.step,
        vector=trouble.vector,
        error_code=trouble.error_code,
        address=trouble.address,
        access=trouble.access,
        rip=Virt(registers.rip if trouble.rip is None else trouble.rip),
        text=operation.text if operation else "?",
        reason=trouble.reason,
        visits=trouble.visits,
        escalation=lines,
        triple=triple,
    )


def _descriptors(mmu: WatchedMmu, registers: Registers) -> dict[str, int]:
    """The gdt slot of each segment register, where the gdt can be read."""
    base, limit = registers.gdt
    out = {}
    for name, selector in registers.segments.items():
        if selector & ~7 and selector | 7 <= limit:
            raw = mmu.look(base + (selector & ~7), 8)
            if isinstance(raw, bytes):
                out[name] = int.from_bytes(raw, "little")
    return out
