"""A watched walk, written down: the `Run` of a machine that looked at every instruction.

Rules: everything here was seen by the watch, the MMU or the CPU; nothing is judged.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import MachineError
from tightrope.memory import Virt
from tightrope.model import Fault, Registers, Run, Stop
from tightrope.observe.delivery import follow
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.steps import StepTracker
from tightrope.observe.watch import Watch
from tightrope.x86.walk import Refused


def observed(
    machine: str,
    watch: Watch,
    mmu: WatchedMmu,
    steps: StepTracker,
    registers: Registers,
    blind: tuple[str, ...],
) -> Run:
    """The run of a watch that is over; `registers` are the CPU's where it stopped.

    Raises MachineError for one that is not over: what it has recorded is not the whole walk.
    """
    if watch.trouble is not None:
        stop = Stop.FAULT
    elif watch.over_limit:
        stop = Stop.LIMIT
    elif watch.arrived:
        stop = Stop.ENTRY
    elif watch.halted:
        stop = Stop.HALT
    else:
        raise MachineError(f"the walk stopped at {registers.rip:#x}, and nothing says why")
    return Run(
        machine=machine,
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
        ports=tuple(watch.ports),
        fault=fault(watch, mmu, steps, registers),
        registers=registers,
        memory=watch.memory,
        descriptors=descriptors(mmu, registers),
        blind=blind,
        stretches=tuple(watch.settled.stretches),
    )


def _rows(flat: object) -> NDArray[np.int64]:
    return np.array(flat, np.int64).reshape(-1, 4)


def fault(watch: Watch, mmu: WatchedMmu, steps: StepTracker, registers: Registers) -> Fault | None:
    """The exception that ended a walk, and how far it would get."""
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
        explained=trouble.explained,
    )


def descriptors(mmu: WatchedMmu, registers: Registers) -> dict[str, int]:
    """The gdt slot of each segment register, where the gdt can be read."""
    found = _slots(registers, mmu.look)
    return {name: slot for name, slot in found.items() if slot is not None}


def known_descriptors(mmu: WatchedMmu, registers: Registers) -> dict[str, int | None]:
    """What the old kernel's gdt has for each selector that is not null, None where it cannot be
    read."""
    return _slots(registers, mmu.look_before)


def _slots(
    registers: Registers, look: Callable[[int, int], bytes | Refused | None]
) -> dict[str, int | None]:
    """By segment register, the descriptor of a selector that is not null, read once for each."""
    base, limit = registers.gdt
    seen: dict[int, int | None] = {}
    for selector in registers.segments.values():
        slot = selector & ~7
        if slot and slot not in seen:
            raw = look(base + slot, 8) if slot | 7 <= limit else None
            seen[slot] = int.from_bytes(raw, "little") if isinstance(raw, bytes) else None
    return {name: seen[each & ~7] for name, each in registers.segments.items() if each & ~7}
