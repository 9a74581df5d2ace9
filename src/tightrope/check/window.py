"""Rules about what may not happen on the way: code that is nobody's, and a fault between two
stacks.

Rules: over the run's fetches, accesses and register writes, by the number of the instruction.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tightrope.check.case import Case, owner
from tightrope.check.rule import Found, finding, rule
from tightrope.memory import PAGE_SIZE, align_down
from tightrope.model import Promise, SegmentRole, Sight, Step
from tightrope.x86.cpu import CR4_FRED
from tightrope.x86.walk import Access

EXECUTED = (SegmentRole.ENTRY_STUB, SegmentRole.PURGATORY)
QUIET = frozenset({"rsp", "rflags", "dr7", "idt"})
"""What may be written in the window: the stack pointer again, flags, breakpoints (0), what ends
it."""
BREAKPOINTS = frozenset({"dr0", "dr1", "dr2", "dr3", "dr6"})
"""And these once DR7 enables none and does not guard them (SDM volume 3, 19.2.4)."""
DR7_ENABLES = 0xFF | 1 << 13
"""L0 to G3, and GD: a write of a debug register raises #DB."""


@rule(
    "fetch-owned",
    Step.CALL,
    says="No instruction is fetched outside the page at V, the control page and the entry stub.",
    source="the thread, steps 1 to 6",
    mend="find where the jump came from: what lies there is executable by chance",
    needs={Sight.TRANSLATIONS},
)
def fetch_owned(case: Case) -> Iterator[Found]:
    """Every fetch against the pages of the chain; the new kernel's first instruction is its own."""
    intent, world = case.intent, case.handover.world
    pages = {int(world.code_phys), int(case.landing), case.control_page.start}
    pages.add(align_down(intent.kernel_entry, PAGE_SIZE))
    pages.add(align_down(intent.stub_at, PAGE_SIZE))
    for segment in intent.segments:
        if segment.role in EXECUTED:
            pages.update(range(segment.destination.start, segment.destination.end, PAGE_SIZE))
    if world.way_out is not None:
        pages.add(align_down(world.way_out.code, PAGE_SIZE))
    for each in case.run.translations:
        frame = align_down(each.phys, PAGE_SIZE)
        if each.access is Access.FETCH and frame not in pages:
            yield finding(
                f"an instruction is fetched at {each.virt:#x}, from {each.phys:#x}, where no program of"
                " the walk lies",
                evidence={"there": owner(case, each.phys), "instruction": str(each.instruction)},
                step=each.step,
            )
            return


@rule(
    "entry-jump",
    Step.COPY,
    says="The relocation code jumps to the planned entry, the first byte of the stub or the purgatory.",
    source="the thread, step 6; Linux relocate_kernel_64.S, start_address",
    mend="hand the relocation code the entry that was planned",
    needs={Sight.INSTRUCTIONS},
)
def entry_jump(case: Case) -> Iterator[Found]:
    """The first instruction of the stub or the purgatory, once addresses are physical ones."""
    entry, run = case.intent.entry, case.run
    place = next(
        (
            each.destination
            for each in case.intent.segments
            if each.role in EXECUTED and entry in each.destination
        ),
        None,
    )
    starts = [index for index, step in run.step_starts if step is Step.COPY]
    if place is None or not starts:
        return
    trace = run.trace[starts[0] :]
    inside = (trace >= np.uint64(place.start)) & (trace < np.uint64(place.end))
    at = int(inside.argmax()) if inside.any() else len(trace)
    if at < len(trace) and int(trace[at]) != entry:
        first = int(trace[at])
        yield finding(
            f"the relocation code jumps to {first:#x}, and the planned entry is {entry:#x}",
            evidence={"instruction": str(starts[0] + at), "there": run.texts.get(first, "")},
        )


@rule(
    "fault-window",
    Step.STATE,
    says="From leaving the old kernel's stack until the idt is dead, nothing is done that may fault.",
    source="SDM volume 3, 6.14: an exception pushes onto the stack in use; FRED (346446), 5.1",
    mend="lidt with limit 0, and CR4.FRED off, before the stack is given up, or right after",
    needs={Sight.INSTRUCTIONS, Sight.REGISTER_WRITES, Sight.STORES, Sight.LOADS},
    promise=Promise.IDT_DROPPED,
    weak=True,
)
def fault_window(case: Case) -> Iterator[Found]:
    """From the first write of rsp to the instruction that disarms idt and FRED, only the own stack
    is used."""
    start = case.handover.registers
    armed = bool(start.idt[1])
    fred = bool(start.cr4 & CR4_FRED)
    opened: int | None = None
    closed = case.run.instructions
    for write in case.run.register_writes:
        if write.register == "rsp" and opened is None:
            # What dom0's code is called with is the hypervisor's to set.
            if write.step is Step.CALL and case.handover.world.way_out is not None:
                continue
            if not armed and not fred:
                return
            opened = write.instruction
        elif write.register == "idt":
            armed = bool(write.after & 0xFFFF)
        elif write.register == "cr4":
            fred = bool(write.after & CR4_FRED)
        if opened is not None and not armed and not fred:
            closed = write.instruction
            break
    if opened is None or armed:
        return  # an idt that is never disarmed: see idt-gone
    quiet = QUIET
    for write in case.run.register_writes:
        if write.register == "dr7":
            quiet = QUIET if write.after & DR7_ENABLES else QUIET | BREAKPOINTS
        if opened < write.instruction < closed and write.register not in quiet:
            yield finding(
                f"`{case.run.texts.get(write.rip, '?')}` at {write.rip:#x} may fault while the old"
                " kernel's handlers can still be found, and its stack is gone",
                evidence={
                    "stack given up": f"at instruction {opened}",
                    "instruction": str(write.instruction),
                },
                step=write.step,
            )
            return
    page = case.control_page
    for rows, verb in ((case.run.stores, "writes"), (case.run.loads, "reads")):
        inside = rows[(rows[:, 0] > opened) & (rows[:, 0] <= closed)]
        stray = inside[(inside[:, 2] < page.start) | (inside[:, 2] + inside[:, 3] > page.end)]
        for index, step, phys, _ in np.atleast_2d(stray)[:1].tolist() if len(stray) else ():
            yield finding(
                f"`{case.text(index)}` {verb} {phys:#x} while the old kernel's handlers can still be"
                " found, and its stack is gone",
                evidence={"there": owner(case, phys), "instruction": str(index)},
                step=Step(step),
            )
            return
