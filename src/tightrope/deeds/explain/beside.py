"""The same handover rehearsed beside a log: where its addresses lie, and what was to be there.

    exact       the log's rip is one of the rehearsal's own
    by offset   the control page was another frame: the same offset into the page at V, or at P

Rules: an address that fits nothing stays without a place.  The rehearsal is a sound one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tightrope.deeds.explain import alone
from tightrope.machine.port import Machine
from tightrope.memory import PAGE_SIZE
from tightrope.model import Handover, SegmentRole, Step, Tables, Verdict
from tightrope.model.corpse import Phase, Raised
from tightrope.x86.walk import Access, Refused, Translated, entries_in, walk

HIGH = 1 << 63
SHOWN = ("cr3", "cr4", "cr0", "efer")
ROOT = ~0xFFF
PHASES = {
    SegmentRole.KERNEL: Phase.DECOMPRESSOR,
    SegmentRole.PURGATORY: Phase.PURGATORY,
    SegmentRole.ENTRY_STUB: Phase.WALK,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsed:
    """A rehearsal whose machine is still there."""

    verdict: Verdict
    machine: Machine

    @property
    def handover(self) -> Handover:
        """What was walked."""
        return self.verdict.handover


@dataclass(frozen=True, kw_only=True, slots=True)
class Located:
    """Where a log's instruction lies in the rehearsal."""

    rip: int
    """In the rehearsal."""
    shift: int
    """The rehearsal's address minus the log's."""
    phase: Phase
    step: Step | None
    place: str
    instruction: str | None
    index: int | None
    """When the rehearsal was there first; None where it never was."""


def located(raised: Raised, rehearsed: Rehearsed) -> Located | None:
    """Where it was; None where the rehearsal has no such place."""
    built, run = rehearsed.handover, rehearsed.verdict.run
    if raised.rip is None:
        return None
    rip, intent = raised.rip, built.intent
    trace = run.trace.tolist()
    pages = {"V": int(intent.relocation), "P": int(intent.control_page)}
    shift = 0
    # Only the walk's own places count: what a new kernel does is not in a rehearsal.
    known = rip in trace or any(base <= rip < base + PAGE_SIZE for base in pages.values())
    if not known and not any(rip in each.destination for each in intent.segments):
        side = pages["V" if rip & HIGH else "P"]
        shift = side + rip % PAGE_SIZE - rip
        if rip + shift not in trace:
            return None
    rip += shift
    index = trace.index(rip) if rip in trace else None
    step, phase = _step(rehearsed, rip, index)
    return Located(
        rip=rip,
        shift=shift,
        phase=phase,
        step=step,
        place=built.place(rip) or f"{rip:#x}",
        instruction=_instruction(raised, rehearsed, rip, index),
        index=index,
    )


def _step(rehearsed: Rehearsed, rip: int, index: int | None) -> tuple[Step | None, Phase]:
    built, run = rehearsed.handover, rehearsed.verdict.run
    segment = next((each for each in built.intent.segments if rip in each.destination), None)
    phase = Phase.WALK if segment is None else PHASES.get(segment.role, Phase.UNKNOWN)
    if rip == built.intent.kernel_entry:
        # The entry itself belongs to step 6: what could not be fetched was never the kernel's.
        return Step.COPY, Phase.WALK
    if index is not None:
        return max(step for at, step in run.step_starts if at <= index), phase
    if phase is not Phase.WALK or segment is not None:
        return None, phase
    before = [(at, step) for at, step in run.step_starts if run.trace[at] <= rip]
    near = [step for at, step in before if rip - int(run.trace[at]) < PAGE_SIZE]
    return (max(near) if near else None), phase


def _instruction(raised: Raised, rehearsed: Rehearsed, rip: int, index: int | None) -> str | None:
    run = rehearsed.verdict.run
    text = run.texts.get(rip)
    if rip == rehearsed.handover.intent.kernel_entry and text is None:
        return "the new kernel's first instruction"
    fetch = raised.vector == alone.PAGE_FAULT and raised.address == raised.rip
    if fetch and index:
        before = run.texts.get(int(run.trace[index - 1]))
        return f"the fetch behind `{before}`" if before else text
    return text


def differences(raised: Raised, there: Located, rehearsed: Rehearsed) -> Iterator[str]:
    """Registers that are not what the rehearsal had at this place."""
    if there.index is None or there.shift:
        return
    registers = rehearsed.handover.registers
    values = {name: getattr(registers, name) for name in SHOWN}
    values |= {"idt": registers.idt[0], "gdt": registers.gdt[0]}
    for write in rehearsed.verdict.run.register_writes:
        # What this instruction itself writes it had not written yet.
        if write.instruction >= there.index:
            break
        if write.register in SHOWN:
            values[write.register] = write.after
        elif write.register in ("idt", "gdt"):
            values[write.register] = write.after >> 16
    for each, wanted in values.items():
        had = raised.registers.get(each)
        if had is None:
            continue
        mask = ROOT if each == "cr3" else ~0
        if had & mask != wanted & mask:
            yield f"{each.upper()} was {had:#x}; the rehearsal has {wanted:#x} there"


def in_use(raised: Raised, there: Located, rehearsed: Rehearsed) -> tuple[str, Tables] | None:
    """The tables that the walk is under at that place, by CR3 where the log has it."""
    built = rehearsed.handover
    a, b = built.page_table_a, built.page_table_b
    cr3 = raised.registers.get("cr3")
    named = [("page_table_a", a), *([("page_table_b", b)] if b is not None else [])]
    if cr3 is not None and not there.shift:
        for name, tree in named:
            if tree.root & ROOT == cr3 & ROOT:
                return name, tree
        if cr3 & ROOT == built.world.pgd & ROOT:
            return "the current pgd", Tables(root=built.world.pgd, pages=built.world.tables)
        return None
    if there.step is None or there.step < Step.TABLE_A:
        return "the current pgd", Tables(root=built.world.pgd, pages=built.world.tables)
    later = b is not None and (there.step > Step.TABLE_B or there.phase is not Phase.WALK)
    return named[-1] if later else named[0]


def looked_up(
    raised: Raised, virt: int, tables: Tables, rehearsed: Rehearsed
) -> Translated | Refused:
    """How the sound tables translate an address, for what the log's access was."""
    built = rehearsed.handover
    mmu = replace(built.registers.mmu(built.host.cpu, root=tables.root), cr3=tables.root)
    return walk(entries_in(tables.pages), mmu, virt, access(raised))


def access(raised: Raised) -> Access:
    """What the error code says the access was."""
    code = raised.error_code or 0
    if code & alone.FETCH or raised.address == raised.rip:
        return Access.FETCH
    return Access.WRITE if code & alone.WRITE else Access.READ
