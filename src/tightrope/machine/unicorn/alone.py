"""Unicorn by itself: its own MMU, nothing watched, nothing checked.

This is what somebody would run who had no rehearsal, and a second opinion on ours: the engine is
the same, but no translation, no legality of a control register and no copy comes from our code.
What it lets pass that a CPU would not is listed in `agree.known`.

Rules: only where the walk ended, and the exception that ended it, are observed.  Memory and engine
are those of the run before where the host has the same memory, and are as new: a run's memory is
good until the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tightrope.errors import MachineError
from tightrope.machine.expected import expectations
from tightrope.machine.layout import lay
from tightrope.machine.port import Ends, Progress
from tightrope.machine.unicorn.at_call import AtCall
from tightrope.machine.unicorn.context import ExceptionState
from tightrope.machine.unicorn.engine import Engine, Failed
from tightrope.memory import Extent
from tightrope.model import Console, Fault, Handover, Run, Step, Stop
from tightrope.observe.expectations import Expectations
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.physical import Ram, backed
from tightrope.observe.post_mortem import explain, mmu_of
from tightrope.observe.record import descriptors
from tightrope.x86.cpu import EFER_LMA, WITH_ERROR_CODE
from tightrope.x86.walk import Access

PAGE_FAULT, MACHINE_CHECK, INVALID_OPCODE = 14, 18, 6
INSTRUCTION_LIMIT = 2_000_000
"""Unicorn counts; a repeated string instruction is one for each of its iterations."""
RESERVED, WRITE, FETCH = 8, 2, 16


@dataclass(slots=True)
class _End:
    """What ended it, when it was not the entry."""

    vector: int | None = None
    error_code: int | None = None
    hole: int | None = None
    address: int = 0
    """CR2 when it was raised: on its way out Unicorn looks around at the exit, and CR2 is lost."""


class Alone:
    """See `machine.port.Machine`."""

    name = "unicorn"
    blind = (
        "illegal writes of control registers, EFER and segments: Unicorn lets them pass",
        "what the CPU's own caches of translations held",
        "other CPUs, NMI, machine checks, SMI and DMA",
        "memory types (PAT, MTRR) and caches",
        "memory encryption",
        "breakpoints that the old kernel left in DR0 to DR7",
    )

    def __init__(self, *, instruction_limit: int = INSTRUCTION_LIMIT) -> None:
        self._limit = instruction_limit
        self._engine: Engine | None = None
        self._exceptions: ExceptionState | None = None
        self._end = _End()

    def close(self) -> None:
        """Forget the engine and its memory."""
        self._engine = self._exceptions = None

    def console(self, *, seconds: float, ends: Ends, progress: Progress) -> Console:
        """Raises MachineError: the emulator's own console is the better one."""
        raise MachineError("the unicorn machine stops at the new kernel's first instruction")

    def run(self, handover: Handover) -> Run:
        """Walk.  Raises MachineError for a host that Unicorn cannot be."""
        host, registers = handover.host, handover.registers
        extents = backed(host.memory, host.firmware)
        engine = self._as_new(extents, 64 if host.efer & EFER_LMA else 32)
        ram = engine.ram
        lay(handover, ram)
        expected = expectations(handover)
        mmu = WatchedMmu(ram, host.cpu, registers, expected.tables)
        engine.own_mmu(True)
        call = AtCall(engine, mmu)
        setting_up = engine.on_translation(lambda page, _access: call.translation(page))
        try:
            call.put(registers)
        finally:
            engine.unhook(setting_up)
        engine.own_mmu(False)
        end = self._end = _End()
        try:
            engine.start(registers.rip, until=expected.entry, count=self._limit)
        except Failed as err:
            if end.vector is None:
                raise MachineError(f"Unicorn gave up at {engine.read('rip'):#x}: {err}") from err
        return self._run(expected, ram, engine, end)

    def _as_new(self, extents: tuple[Extent, ...], bits: int) -> Engine:
        """An engine that has run nothing, over memory that holds nothing."""
        engine = self._engine
        if engine is not None and (engine.ram.extents, engine.bits) == (extents, bits):
            engine.ram.clear()
            engine.forget_code()
            return engine
        engine = self._engine = Engine(Ram(extents), bits)
        self._exceptions = ExceptionState(engine)
        engine.on_exception(self._raised)
        engine.on_hole(self._hole)
        engine.on_invalid(self._invalid)
        return engine

    def _raised(self, vector: int) -> None:
        end, engine = self._end, self._engine
        assert engine is not None
        assert self._exceptions is not None
        if end.vector is None:
            end.vector = vector
            if vector in WITH_ERROR_CODE:
                end.error_code = self._exceptions.error_code()
            end.address = engine.read("cr2")
        engine.stop()

    def _hole(self, phys: int) -> bool:
        self._end.vector, self._end.hole = MACHINE_CHECK, phys
        return False

    def _invalid(self) -> None:
        self._end.vector = INVALID_OPCODE

    def _run(self, expected: Expectations, ram: Ram, engine: Engine, end: _End) -> Run:
        registers = engine.registers()
        fault: Fault | None = None
        step = Step.COPY
        if end.vector is not None:
            stop = Stop.FAULT
            if end.vector == PAGE_FAULT:
                registers = replace(registers, cr2=end.address)
            fault = _fault(explain(expected, ram, registers, reset=None), end)
            step = fault.step
        elif registers.rip == expected.entry:
            stop = Stop.ENTRY
        else:
            halted = ram.word(registers.rip - 1, 1) == 0xF4
            stop, step = (Stop.HALT if halted else Stop.LIMIT), Step.CALL
        return Run.unwatched(
            machine=self.name,
            stop=stop,
            texts={registers.rip: fault.text} if fault else {},
            step_starts=((0, Step.CALL), (0, step)),
            fault=fault,
            registers=registers,
            memory=ram,
            descriptors=descriptors(mmu_of(expected, ram, registers), registers),
            blind=self.blind,
        )


def _fault(told: Fault, end: _End) -> Fault:
    """The exception that Unicorn raised; only its words are ours."""
    assert end.vector is not None
    if end.vector == PAGE_FAULT:
        code = end.error_code or 0
        # Without NX a fetch has no bit of its own (SDM 4.7): then it is a read where CR2 is rip.
        at_rip = end.address == told.rip and not code & WRITE
        fetch = bool(code & FETCH) or (at_rip and told.access is not Access.READ)
        access = Access.FETCH if fetch else Access.WRITE if code & WRITE else Access.READ
        same = (told.vector, told.address, told.error_code) == (PAGE_FAULT, end.address, code)
        return replace(
            told,
            vector=PAGE_FAULT,
            error_code=code,
            address=end.address,
            access=access,
            reason=told.reason if same else "raised by Unicorn",
        )
    if end.hole is not None:
        reason = f"no memory answers at physical {end.hole:#x}"
        return replace(
            told, vector=MACHINE_CHECK, error_code=None, address=None, access=None, reason=reason
        )
    same = told.vector == end.vector
    return replace(
        told,
        vector=end.vector,
        error_code=end.error_code,
        address=None,
        access=told.access if same else None,
        reason=told.reason if same else "raised by Unicorn",
    )
