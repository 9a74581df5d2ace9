"""An exception, explained: one finding that says which rule of the walk it broke.

Rules: the rule is chosen by what kind of exception it was and how it was met; the evidence is the
walk of the address up to the entry where it stopped, and what the CPU then tried.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

from tightrope.check.case import Case, owner
from tightrope.check.rule import Found, Rule, finding, rule
from tightrope.memory import PAGE_SIZE, align_down
from tightrope.model import Fault, Sight, Step
from tightrope.x86.control import VIRTUALIZATION, VMM_COMMUNICATION
from tightrope.x86.cpu import CR0_PG, CR4_PAE, VECTORS
from tightrope.x86.walk import Access

PAGE_FAULT, GENERAL_PROTECTION, STACK_FAULT, MACHINE_CHECK = 14, 13, 12, 18
PRESENT, RESERVED = 1, 8
NX_CLEAR = "clear NX (bit 63) in every entry on the way to the control page"
LAST = "look at what was executed last: --trace FILE writes every instruction"
WRITES = re.compile(r"(mov|wrmsr)\b")
"""An instruction that writes a register of the CPU's: the guest that must not is told by its
rule."""


def _sort(fault: Fault) -> str:
    """The id of the rule that a fault belongs to."""
    if fault.vector == PAGE_FAULT:
        if (fault.error_code or 0) & RESERVED:
            return "fault-reserved"
        if fault.access is Access.FETCH:
            return "fetch-executable" if (fault.error_code or 0) & PRESENT else "fetch-mapped"
        return "access-mapped"
    if fault.vector == STACK_FAULT and fault.access:
        return "access-mapped"
    if fault.vector == GENERAL_PROTECTION:
        # An address that is not canonical; without an access it was the instruction's own doing.
        if fault.access is Access.FETCH:
            return "fetch-mapped"
        return "access-mapped" if fault.access else "legal-writes"
    if fault.vector in (VIRTUALIZATION, VMM_COMMUNICATION) and WRITES.match(fault.text):
        return "legal-writes"
    return "no-exception"


def _other_format(case: Case) -> bool:
    """CR4.PAE was changed under paging, so that tables are read in a format they were not made
    for."""
    paging, changed = bool(case.handover.registers.cr0 & CR0_PG), False
    for write in case.run.register_writes:
        if write.register == "cr0":
            paging = bool(write.after & CR0_PG)
        elif write.register == "cr4" and (write.before ^ write.after) & CR4_PAE:
            changed = paging
    return changed and paging


def _mend(case: Case, fault: Fault, which: str) -> str:
    at = fault.address or 0
    if _other_format(case):
        return "clear CR0.PG first, then CR4.PAE (SDM 4.1.2)"
    if fault.vector in (GENERAL_PROTECTION, STACK_FAULT) and fault.access:
        return "see where the address came from: it is not an address at all"
    if which == "fetch-mapped":
        if align_down(at, PAGE_SIZE) == case.intent.relocation:
            return "map V to the control page in the table that was just loaded"
        return f"map {at:#x} to itself in the table that is in use"
    if which == "fetch-executable":
        return NX_CLEAR
    if which == "fault-reserved":
        return f"clear the reserved bits; this CPU has {case.host.cpu.physical_bits} address bits"
    if which == "access-mapped":
        if at in case.control_page:
            return "map P to itself in page_table_a: stack and gdt are there"
        whose = f" ({owner(case, at)})" if at < 1 << case.host.cpu.physical_bits else ""
        return f"map {align_down(at, PAGE_SIZE):#x}{whose} in the table that is in use, or do not touch it"
    if which == "legal-writes":
        return "change the order or the value; the manual's reason is above"
    return LAST


def _explained(case: Case, which: str) -> Iterator[Found]:
    """The finding for the run's fault, if there is one and it belongs to this rule."""
    fault = case.run.fault
    if fault is None or _sort(fault) != which:
        return
    name = VECTORS.get(fault.vector, f"vector {fault.vector}")
    code = "" if fault.error_code is None else f", error code {fault.error_code:#x}"
    if fault.access is Access.FETCH:
        what = f"the instruction at {fault.address or fault.rip:#x} cannot be fetched"
        ran = f"after `{fault.text}`"
    elif fault.address is not None and fault.access is not None:
        what = f"a {fault.access.value} at {fault.address:#x} faults"
        ran = f"`{fault.text}` at {fault.rip:#x}"
    else:
        what = f"`{fault.text}` at {fault.rip:#x} faults"
        ran = f"`{fault.text}`"
    seen = Sight.INSTRUCTIONS in case.run.sees
    evidence = {"exception": f"{name}{code}"}
    if seen:
        evidence["instruction"] = f"{ran} (number {fault.instruction} of the walk)"
    if fault.visits:
        last = fault.visits[-1]
        evidence["stopped at"] = f"{last.level} entry {last.entry:#x} at {last.at:#x}"
        evidence["levels walked"] = ", ".join(f"{v.level} {v.entry:#x}" for v in fault.visits)
    if fault.address is not None:
        evidence["CR2"] = f"{fault.address:#x}"
        if align_down(fault.address, PAGE_SIZE) == case.intent.relocation:
            evidence["there"] = "V"
        elif fault.address < 1 << case.host.cpu.physical_bits:
            evidence["there"] = f"as a physical address, {owner(case, fault.address)}"
    if _other_format(case):
        evidence["tables"] = (
            "CR4.PAE was changed while paging was on: entries are read in another size"
        )
    evidence["then"] = "; ".join(fault.escalation)
    yield finding(
        f"{what}: {fault.reason}",
        evidence=evidence,
        step=fault.step,
        mend=_mend(case, fault, which),
    )


def _fault_rule(id: str, says: str, source: str, mend: str) -> Rule:
    return rule(id, Step.CALL, says=says, source=source, mend=mend, needs={Sight.FAULTS})(
        partial(_explained, which=id)
    )


RULES = (
    _fault_rule(
        "fetch-mapped",
        "Every instruction of the walk can be fetched.",
        "SDM 4.7",
        "map V to the control page, and P to itself, in the table that is in use",
    ),
    _fault_rule(
        "fetch-executable", "Every fetch is from an executable page.", "SDM 4.6.1", NX_CLEAR
    ),
    _fault_rule(
        "access-mapped",
        "Every read and write of the walk is mapped and allowed.",
        "SDM 4.6.1",
        "map in the table that is in use what the code touches, or do not touch it",
    ),
    _fault_rule(
        "fault-reserved",
        "No walk meets a reserved bit.",
        "SDM 4.7, RSVD",
        "clear the reserved bits, including those beyond the CPU's address width",
    ),
    _fault_rule(
        "legal-writes",
        "Every write of a control register, EFER or a segment is legal where it stands.",
        "SDM volume 2B, MOV to control registers",
        "change the order or the value, as the manual's reason has it",
    ),
    _fault_rule(
        "no-exception",
        "No other exception is raised: nothing is left that would handle it.",
        "SDM 6.15",
        LAST,
    ),
)
