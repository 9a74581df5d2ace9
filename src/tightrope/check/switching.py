"""Rules about the switches: what the CPU may still remember, and in which order things happen.

Rules: these read the run's translations and register writes; "may" is the worst-case TLB that the
machine recorded with each translation.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.check.case import Case, owner
from tightrope.check.rule import Found, finding, rule
from tightrope.memory import PAGE_SIZE, align_down
from tightrope.model import Old, Promise, Sight, Step
from tightrope.x86 import cpu as x86
from tightrope.x86.walk import Access


@rule(
    "same-bytes",
    Step.TABLE_A,
    says="The control page is the old kernel's page at V, byte for byte.",
    source="the thread: 'When the switch occurs the cpu will continue to run on the same virtual'",
    mend="copy the whole page of relocation code into the control page",
)
def same_bytes(case: Case) -> Iterator[Found]:
    """The page at V holds the same bytes before and after the switch to page_table_a."""
    if case.contract.stays_at_v or case.handover.world.way_out is not None:
        return  # it is the same page: the control page holds other code, or V is where it lies
    old = next(
        (p.data for p in case.handover.world.pieces if p.phys == case.handover.world.code_phys), b""
    )
    new = next((p.data for p in case.pieces if p.phys == case.intent.control_page), b"")
    # What follows the code in the control page is the routine's own.
    old, new = bytes(old)[: case.contract.same], bytes(new)[: case.contract.same]
    if old == new:
        return
    pairs = zip(bytes(old), bytes(new), strict=False)
    at = next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(old), len(new)))
    yield finding(
        f"byte {at:#x} of the page at V = {case.intent.relocation:#x} differs between the old kernel's"
        f" text and the control page {case.intent.control_page:#x}",
        evidence={"old": bytes(old)[at : at + 8].hex(), "new": bytes(new)[at : at + 8].hex()},
    )


@rule(
    "code-stays",
    Step.TABLE_A,
    says="Across every table switch the next instruction is the one that was there before.",
    source="the thread (Biederman): 'must be mapped at the same location in both page tables'",
    mend="map the page that executes the switch to the same bytes in both tables",
    needs={Sight.TRANSLATIONS},
)
def code_stays(case: Case) -> Iterator[Found]:
    """Across every table switch the next instruction comes from the same place or the same
    bytes."""
    before: dict[int, int] = {}
    twins = {case.handover.world.code_phys, case.intent.control_page}
    for each in case.run.translations:
        if each.access is not Access.FETCH:
            continue
        page = align_down(each.virt, PAGE_SIZE)
        frame = align_down(each.phys, PAGE_SIZE)
        was = before.get(page, frame)
        before[page] = frame
        if was != frame and {was, frame} != twins:
            yield finding(
                f"the code at {page:#x} moved from {was:#x} to {frame:#x} under the CPU",
                evidence={"was": owner(case, was), "is": owner(case, frame)},
                step=each.step,
            )
            return


@rule(
    "tlb-agreement",
    Step.TABLE_A,
    says="Every access is translated alike under every TLB that the manual allows.",
    source="SDM 4.10.2.2, 4.10.4.1",
    mend="clear CR4.PGE at V, before any identity address is used: that drops global entries too",
    needs={Sight.INSTRUCTIONS, Sight.TRANSLATIONS},
)
def tlb_agreement(case: Case) -> Iterator[Found]:
    """Every access is translated alike under every TLB that the manual allows."""
    for each in case.run.translations:
        for stale in each.stale:
            if stale.harmless:
                continue
            instruction = case.run.trace[max(each.instruction, 0)] if len(case.run.trace) else 0
            kind = "global entry" if stale.is_global else "entry"
            yield finding(
                f"a {each.access.value} at {each.virt:#x} should reach {each.phys:#x}, and a stale"
                f" {kind} of the old tables still leads to {stale.phys:#x}",
                evidence={
                    "instruction": f"`{case.run.texts.get(int(instruction), '?')}`"
                    f" (number {each.instruction} of the walk)",
                    "tables in use": f"{each.cr3:#x}",
                    "stale entry from": f"{stale.cr3:#x}",
                    "now": owner(case, each.phys),
                    "stale": owner(case, stale.phys),
                },
                step=each.step,
            )
            return


@rule(
    "pge-before-identity",
    Step.STATE,
    says="CR4.PGE is cleared before any identity address is trusted.",
    source="SDM 4.10.2.4: global translations survive a CR3 write",
    mend="write CR4 without PGE right after loading page_table_a, still at V",
    needs={Sight.TRANSLATIONS, Sight.REGISTER_WRITES},
    promise=Promise.GLOBALS_DROPPED,
    weak=True,
)
def pge_before_identity(case: Case) -> Iterator[Found]:
    """CR4.PGE is off before the first identity address is trusted."""
    if not case.handover.registers.cr4 & x86.CR4_PGE:
        return
    cleared = next(
        (
            write.instruction
            for write in case.run.register_writes
            if write.register == "cr4" and not write.after & x86.CR4_PGE
        ),
        None,
    )
    for each in case.run.translations:
        switched = each.cr3 != case.handover.registers.cr3
        identity = int(each.virt) == int(each.phys)
        # V may be a physical address as well, and P the very same: its bytes are the same then.
        at_v = (
            each.access is Access.FETCH
            and align_down(each.virt, PAGE_SIZE) == case.intent.relocation
        )
        if switched and identity and not at_v and (cleared is None or each.instruction < cleared):
            yield finding(
                f"the identity address {each.virt:#x} is used while CR4.PGE is still on",
                evidence={
                    "CR4.PGE cleared": "never" if cleared is None else f"at instruction {cleared}",
                    "first used": f"at instruction {each.instruction}",
                },
                step=each.step,
            )
            return


@rule(
    "accessed-dirty-preset",
    Step.TABLE_A,
    says="Accessed and dirty are preset, so that the CPU never writes into a table.",
    source="SDM 4.8",
    mend="preset accessed and dirty in every entry (0x63)",
    needs={Sight.TRANSLATIONS},
)
def accessed_preset(case: Case) -> Iterator[Found]:
    """The CPU never has to set an accessed or dirty bit, that is, to write into a table."""
    old = case.handover.registers.cr3
    for each in case.run.translations:
        if each.cr3 != old and each.sets_accessed:
            yield finding(
                f"the walk for a {each.access.value} at {each.virt:#x} writes an accessed or dirty"
                " bit into a table",
                evidence={v.level: f"{v.entry:#x} at {v.at:#x}" for v in each.visits},
                step=each.step,
            )
            return


@rule(
    "interrupts-off",
    Step.CALL,
    says="Interrupts are off from before the first table switch to the entry.",
    source="the thread, step 3; boot.rst: 'interrupt must be disabled'",
    mend="cli first, and load flags without IF",
    needs={Sight.REGISTER_WRITES},
)
def interrupts_off(case: Case) -> Iterator[Found]:
    """IF is clear before CR3 is first written and stays clear."""
    enabled = bool(case.handover.registers.rflags & x86.RFLAGS_IF)
    for write in case.run.register_writes:
        if write.register == "rflags":
            enabled = bool(write.after & x86.RFLAGS_IF)
            if enabled:
                yield finding(
                    f"`{case.run.texts.get(write.rip, '?')}` at {write.rip:#x} turns interrupts on",
                    evidence={"flags": x86_flags(write.after)},
                    step=write.step,
                )
                return
        elif write.register == "cr3" and enabled:
            yield finding(
                "interrupts are on while the tables are switched",
                step=write.step,
            )
            return


def x86_flags(value: int) -> str:
    """RFLAGS with the names of its bits."""
    names = [name for name, mask in x86.RFLAGS_NAMES.items() if value & mask]
    return f"{value:#x} ({' '.join(names) or 'none set'})"


@rule(
    "idt-gone",
    Step.STATE,
    says="The idt has limit 0 before the old kernel's handlers are out of reach.",
    source="the thread, step 3",
    mend="lidt with limit 0 in step 3",
    needs={Sight.INSTRUCTIONS, Sight.REGISTER_WRITES},
    promise=Promise.IDT_DROPPED,
    weak=True,
)
def idt_gone(case: Case) -> Iterator[Found]:
    """Before the identity jump the idt has limit 0: no exception can find the old kernel's
    handlers."""
    loaded = [w for w in case.run.register_writes if w.register == "idt"]
    jumped = any(step >= Step.TABLE_B for _, step in case.run.step_starts)
    base, limit = case.handover.registers.idt
    until = case.contract.old.get(Old.IDT, Step.PREPARE)
    bad = next((w for w in loaded if w.after & 0xFFFF and not _own_idt(case, w.after)), None)
    if bad:
        yield finding(
            f"an idt with limit {bad.after & 0xFFFF:#x} is loaded at {bad.after >> 16:#x}",
            step=bad.step,
        )
    elif jumped and limit and not any(w.step <= until for w in loaded):
        yield finding(
            f"the old kernel's idt at {base:#x} is still loaded when its"
            " handlers are no longer mapped",
        )


def _own_idt(case: Case, loaded: int) -> bool:
    """The idt that the contract has in the control page, with all of its gates."""
    gates = case.contract.gates
    if gates is None:
        return False
    at = case.intent.control_page + case.handover.code.symbols[gates.idt]
    return (loaded >> 16, loaded & 0xFFFF) == (at, gates.count * 16 - 1)


@rule(
    "stack-inside",
    Step.STATE,
    says="The stack lies inside the control page, and rsp is an identity address.",
    source="the thread, step 3: 'The stack pointer should point to the identity mapped page'",
    mend="rsp = P + 4096: the page's own end, by its identity address",
    needs={Sight.INSTRUCTIONS, Sight.REGISTER_WRITES},
    promise=Promise.STACK_IN_CONTROL_PAGE,
)
def stack_inside(case: Case) -> Iterator[Found]:
    """The stack of the walk is the control page, by its identity address."""
    for write in case.run.register_writes:
        if write.register != "rsp" or write.step > Step.STATE:
            continue
        if write.step is Step.CALL and case.handover.world.way_out is not None:
            continue  # the stack that dom0's code is called with
        top = write.after
        # Below 4 GiB the last page ends at 0, and what is pushed there wraps round into it.
        first = top - case.word & (1 << 8 * case.word) - 1
        if first not in case.control_page or first + case.word > case.control_page.end:
            yield finding(
                f"the stack is set to {top:#x}, outside the control page {case.control_page}",
                evidence={"first push": f"{first:#x}", "there": owner(case, first)},
            )
        return
