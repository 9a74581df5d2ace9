"""A handover walked in Unicorn, from the call at V to the new kernel's first instruction.

Rules: an `Emulator` keeps its memory and its engine from one run to the next when the host's memory
map is the same, so that a thousand rehearsals cost a thousand walks and not a thousand machines.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.errors import MachineError
from tightrope.machine.expected import expectations
from tightrope.machine.layout import lay
from tightrope.machine.port import Ends, Progress, first_line, no_progress
from tightrope.machine.unicorn.bench import Bench
from tightrope.machine.unicorn.console import listen
from tightrope.machine.unicorn.engine import Failed
from tightrope.machine.unicorn.widen import widened
from tightrope.memory import Extent
from tightrope.model import Console, Handover, Host, Run, Stop, once_a_host
from tightrope.observe.at_call import impossible, refused
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.physical import Ram, backed
from tightrope.observe.record import observed
from tightrope.observe.watch import Watch
from tightrope.x86 import cpu as x86

INSTRUCTION_LIMIT = 50_000_000
"""Far above any list that fits a machine: a walk that gets here goes in circles."""


@once_a_host
def _backed(host: Host) -> tuple[Extent, ...]:
    return backed(host.memory, host.firmware)


class Emulator:
    """See `machine.port.Machine`."""

    name = "emulator"
    blind = (
        "other CPUs, NMI, machine checks, SMI and DMA",
        "memory types (PAT, MTRR) and caches",
        "memory encryption",
        "breakpoints that the old kernel left in DR0 to DR7",
    )

    def __init__(self, *, instruction_limit: int = INSTRUCTION_LIMIT, in_bulk: bool = True) -> None:
        """With `in_bulk` turns of a loop that only copy are done many at a time, see
        `observe.bulk`."""
        self._limit = instruction_limit
        self._in_bulk = in_bulk
        self._bench: Bench | None = None
        self._entered = False

    def run(self, handover: Handover) -> Run:
        """Walk.  Raises MachineError when the machine has no room for the host."""
        host = handover.host
        extents = _backed(host)
        bits = 64 if host.efer & x86.EFER_LMA else 32
        same = self._bench and self._bench.ram.extents == extents
        if self._bench is None or not same or self._bench.engine.bits != bits:
            self._bench = Bench(Ram(extents), bits)
        bench = self._bench
        engine, ram = bench.engine, bench.ram
        self._entered = False
        lay(handover, ram)
        bench.forget_changed_code()
        expected = expectations(handover)
        mmu = WatchedMmu(
            ram,
            host.cpu,
            handover.registers,
            expected.tables,
            handover.relocation_code.contract.same,
        )
        steps = expected.steps()
        why = impossible(mmu, handover.registers)
        if why is not None:
            return refused(self.name, why, handover.registers, ram, self.blind)
        bench.load(handover, mmu)
        watch = Watch(engine, mmu, steps, expected, self._limit, bench.code, in_bulk=self._in_bulk)
        try:
            bench.start(watch, handover.registers.rip)
        except Failed as err:
            if not watch.over:
                raise MachineError(
                    f"the emulator gave up at {engine.read('rip'):#x}: {err}"
                ) from err
        bench.trust_code(watch)
        # Unicorn keeps whatever is written to CR0, and not every bit of CR4 and EFER.
        stands = engine.registers()
        stands = replace(
            stands, cr0=stands.cr0 & x86.CR0_DEFINED, cr4=mmu.mmu.cr4, efer=mmu.mmu.efer
        )
        run = observed(self.name, watch, mmu, steps, stands, self.blind)
        self._entered = run.stop is Stop.ENTRY
        return run

    def close(self) -> None:
        """Forget the engine and its memory."""
        self._bench = None
        self._entered = False

    def console(
        self, *, seconds: float, ends: Ends = first_line, progress: Progress = no_progress
    ) -> Console:
        """See `machine.port.Machine`."""
        if self._bench is None or not self._entered:
            raise MachineError("there is no new kernel to listen to: the walk did not get there")
        self._entered = False
        bench, self._bench = self._bench, None
        bench.leave()
        engine = bench.engine if bench.engine.bits == 64 else widened(bench.engine)
        return listen(engine, seconds=seconds, ends=ends, progress=progress)
