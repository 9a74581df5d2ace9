"""The walk on a PC: from V to the new kernel's first instruction, seen at a handful of places.

    V, and the landmarks before step 4      by the old kernel's address
    the landmarks from step 4 on            by the identity address
    the entry stub, the kernel's entry

Which landmarks there are is the participant's to say: somebody else's code may have fewer.

Rules: hardware breakpoints stop the CPU at these places once each; between them it runs as fast as
it can.  What a fall leaves is read from the machine as it stands.  Nothing is judged here.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace

from tightrope.machine.expected import expectations
from tightrope.machine.qemu import cpu, exceptions
from tightrope.machine.qemu.pc import Pc
from tightrope.machine.qemu.stage import PHYSICAL_BITS
from tightrope.memory import PAGE_SIZE
from tightrope.model import Cpu, Fault, Handover, Paging, Registers, Run, Step, Stop
from tightrope.observe.interrupted import INFERRED, handlers, interrupted
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.post_mortem import explain, mmu_of
from tightrope.observe.record import descriptors
from tightrope.x86.walk import Access, Refused

ACCESSED = 0x20
GATES = (6, 8, 13, 14)
"""#UD, #DF, #GP, #PF: their handlers in the old kernel's idt are where a fall may end up."""


def here(handover: Handover) -> Cpu:
    """The host's CPU with as many address bits as the one that QEMU plays."""
    return replace(handover.host.cpu, physical_bits=PHYSICAL_BITS)


def places(handover: Handover) -> dict[int, Step]:
    """Linear address -> the step that has begun there, as far as the relocation code has landmarks."""
    intent, code = handover.intent, handover.relocation_code
    found: dict[int, Step] = {}
    for step in Step:
        offset = code.begins(step)
        if offset is not None:
            base = intent.relocation if step < Step.IDENTITY else intent.control_page
            found[base + offset] = step
    found[intent.entry] = Step.COPY
    return found


def walk(
    pc: Pc,
    handover: Handover,
    *,
    machine: str,
    blind: tuple[str, ...],
    seconds: float,
    look: Callable[[Step], None],
    breakpoints: int | None = None,
) -> Run:
    """Let the CPU go from V; `look` is called where a step has begun.

    With a number of `breakpoints` the CPU is a real one: it stops at so many places, and QEMU's log
    has none of its exceptions.  Raises MachineError when QEMU does not answer.
    """
    plan = handover.intent
    seen, starts = [handover.registers.rip], [(0, Step.CALL)]
    ahead = places(handover)
    at_call = WatchedMmu(pc.ram, here(handover), handover.registers, {})
    found = handlers(at_call, handover.registers, GATES)
    order = dict.fromkeys((plan.kernel_entry, *found, *reversed(ahead)))
    for virt in list(order)[:breakpoints]:
        pc.break_at(virt)
    logged = len(pc.process.logged())
    pc.monitor("log int")
    stop = Stop.LIMIT
    while stopped := pc.go(seconds=seconds):
        _as_a_cpu_leaves_pdptes(pc, handover)
        rip = pc.registers()["rip"]
        if stopped.shut_down or rip in found:
            stop = Stop.FAULT
            break
        if not _fetched(pc, handover, rip):
            pc.unbreak(rip)  # QEMU stops before it fetches: let it try
            continue
        seen.append(rip)
        if rip == plan.kernel_entry:
            stop = Stop.ENTRY
            break
        pc.unbreak(rip)
        step = ahead.pop(rip, None)
        if step is not None and step > starts[-1][1]:
            starts.append((len(seen) - 1, step))
            look(step)
            if step is Step.TABLE_B:
                starts.append((len(seen) - 1, Step.COPY))
    pc.monitor("log none")
    _as_a_cpu_leaves_pdptes(pc, handover)
    pc.unbreak_all()
    registers = cpu.registers(pc)
    raised = exceptions.first(pc.process.logged()[logged:]) if stop is not Stop.ENTRY else None
    fault = None
    mmu = WatchedMmu(pc.ram, here(handover), registers, {})
    if breakpoints is not None and stop is Stop.FAULT:
        registers, fault = _fallen(pc, handover, registers, found)
        starts += [(len(seen) - 1, step) for step in Step if starts[-1][1] < step <= fault.step]
    elif raised is not None:
        fault = exceptions.explained(raised, handover, registers, mmu, len(seen) - 1)
        stop = Stop.FAULT
        starts += [(len(seen) - 1, step) for step in Step if starts[-1][1] < step <= fault.step]
    if stop is Stop.LIMIT and cpu.halted(pc.monitor("info registers")):
        stop = Stop.HALT
    return Run.unwatched(
        machine=machine,
        stop=stop,
        trace=tuple(seen),
        step_starts=tuple(starts),
        fault=fault,
        registers=registers,
        memory=pc.ram,
        descriptors=descriptors(mmu, registers),
        blind=blind if breakpoints is None else (*blind, *INFERRED),
    )


def _fallen(
    pc: Pc, handover: Handover, registers: Registers, found: Container[int]
) -> tuple[Registers, Fault]:
    """A CPU of KVM's as it was when it fell, and why: from where it stands, or from a handler's
    frame."""
    expected = expectations(handover)
    if registers.rip not in found:
        return registers, explain(expected, pc.ram, registers, reset=True)
    registers, code = interrupted(mmu_of(expected, pc.ram, registers), registers)
    return registers, explain(expected, pc.ram, registers, reset=False, error_code=code)


def _as_a_cpu_leaves_pdptes(pc: Pc, handover: Handover) -> None:
    """Clear the accessed bit that TCG sets in PAE's PDPTEs, where it was not set before.

    A CPU never writes there: the bit is reserved in a PDPTE, and all four were read when CR3 was
    loaded (SDM 4.4.1).  QEMU 7.2 treats them as any other level
    (target/i386/tcg/sysemu/excp_helper.c, mmu_translate()).
    """
    if handover.intent.paging is not Paging.PAE:
        return
    old, table_a = handover.world, handover.page_table_a
    way = old.way_out
    # Where long mode is left first, the old kernel's own tables are not PAE's.
    first, root_pages = (way.narrow.root, way.narrow.pages) if way else (old.pgd, old.tables)
    pages = {**root_pages, **table_a.pages}
    for root in (first, table_a.root):
        page = pages.get(root & -PAGE_SIZE)
        if page is None:
            continue
        for at in range(root % PAGE_SIZE, root % PAGE_SIZE + 32, 8):
            view = pc.ram.view((root & -PAGE_SIZE) + at, 1)
            if view is not None and page[at] | ACCESSED == view[0]:
                view[0] = page[at]


def _fetched(pc: Pc, handover: Handover, rip: int) -> bool:
    """The tables in use allow the CPU, which stands at `rip`, to fetch from there."""
    mmu = WatchedMmu(pc.ram, here(handover), cpu.registers(pc), {})
    return not isinstance(mmu.look(rip, 1, Access.FETCH), Refused)
