"""The first exception of a walk, from QEMU's own log of them.

    log int  ->  "     0: v=0e e=0010 i=0 cpl=0 IP=0010:... pc=... SP=0018:... CR2=..."

Source: QEMU target/i386/tcg/seg_helper.c, do_interrupt_all().

Rules: text in, facts out; nothing is judged.  The explanation of a fault is put together from the
CPU and the memory as they stand, with the house's own walker.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from tightrope.machine.expected import expectations
from tightrope.memory import PAGE_SIZE, Virt
from tightrope.model import Fault, Handover, Registers, Step
from tightrope.observe.decode import Kind, Operation, decoded
from tightrope.observe.delivery import follow
from tightrope.observe.mmu import WatchedMmu
from tightrope.x86 import cpu as x86
from tightrope.x86.cpu import EFER_LMA, VECTORS, WITH_ERROR_CODE
from tightrope.x86.walk import Access, Refused, walk

LINE = re.compile(
    r"^ *\d+: v=(?P<vector>[0-9a-f]{2}) e=(?P<code>[0-9a-f]{4}) i=(?P<soft>\d) cpl=\d"
    r" IP=[0-9a-f]{4}:[0-9a-f]+ pc=(?P<pc>[0-9a-f]+) SP=[0-9a-f]{4}:(?P<sp>[0-9a-f]+)"
    r"(?: CR2=(?P<cr2>[0-9a-f]+))?",
    re.MULTILINE,
)
PROTECTION, PAGE_FAULT, EXCEPTIONS = 13, 14, 32
WRITE, FETCH = 1 << 1, 1 << 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """One line of the log."""

    vector: int
    error_code: int
    pc: int
    stack: int
    address: int | None


def first(log: str) -> Raised | None:
    """The first exception that the CPU raised; software interrupts and hardware ones are not
    any."""
    for line in LINE.finditer(log):
        vector = int(line["vector"], 16)
        if vector < EXCEPTIONS and line["soft"] == "0":
            return Raised(
                vector=vector,
                error_code=int(line["code"], 16),
                pc=int(line["pc"], 16),
                stack=int(line["sp"], 16),
                address=int(line["cr2"], 16) if vector == PAGE_FAULT and line["cr2"] else None,
            )
    return None


def explained(
    raised: Raised,
    handover: Handover,
    registers: Registers,
    mmu: WatchedMmu,
    stops: int,
) -> Fault:
    """The fault as the emulator would report it; `stops` is how many breakpoints were met
    before."""
    then = replace(
        registers, rip=raised.pc, general=dict(registers.general) | {"rsp": raised.stack}
    )
    access, refused = _access(raised), None
    operation = _operation(mmu, raised.pc)
    if raised.address is not None and access is not None:
        refused = walk(mmu.entry_before, mmu.mmu, raised.address, access)
    elif operation is not None and raised.vector == PROTECTION:
        access, refused = _uncanonical(operation, then, mmu)
    reason = VECTORS.get(raised.vector, f"vector {raised.vector}")
    if isinstance(refused, Refused):
        reason = refused.reason
    elif refused is not None:
        reason = "the tables allow it now; they did not when it happened"
    elif operation is not None and raised.vector == PROTECTION:
        reason = _illegal(operation, then, mmu) or reason
    lines, triple = follow(mmu, then, raised.vector)
    return Fault(
        instruction=stops,
        step=Step.CALL if _leaving(handover, registers) else step_of(handover, raised.pc),
        vector=raised.vector,
        error_code=raised.error_code if raised.vector in WITH_ERROR_CODE else None,
        address=raised.address,
        access=access,
        rip=Virt(raised.pc),
        text=_text(handover, raised, access, mmu, operation),
        reason=reason,
        visits=refused.visits if isinstance(refused, Refused) else (),
        escalation=lines,
        triple=triple,
    )


def _leaving(handover: Handover, registers: Registers) -> bool:
    """The CPU is on a hypervisor's way out of long mode, with paging on or off, or at V itself."""
    return registers.cr3 in expectations(handover).way_out


def _operation(mmu: WatchedMmu, pc: int) -> Operation | None:
    """The instruction at an address, None where it cannot be read."""
    raw = mmu.look(pc, 15)
    if isinstance(raw, Refused):  # the last one of its page
        raw = mmu.look(pc, min(15, PAGE_SIZE - pc % PAGE_SIZE))
    bits = 64 if mmu.mmu.efer & EFER_LMA else 32
    return None if isinstance(raw, Refused) else decoded(raw, pc, bits)


def _uncanonical(
    operation: Operation, registers: Registers, mmu: WatchedMmu
) -> tuple[Access | None, Refused | None]:
    """The access of an instruction that raises #GP because its address is none (SDM 4.5.3)."""
    for virt, _size, access in operation.accesses(_reader(registers)):
        got = walk(lambda phys, size: None, mmu.mmu, virt, access)
        if isinstance(got, Refused) and got.vector == PROTECTION:
            return access, got
    return None, None


def _illegal(operation: Operation, registers: Registers, mmu: WatchedMmu) -> str | None:
    """The manual's reason why an instruction that writes a control register or EFER is refused."""
    read = _reader(registers)
    state = mmu.state(code64=bool(mmu.mmu.efer & EFER_LMA))
    if operation.kind is Kind.WRMSR:
        value = read("rax") & 0xFFFF_FFFF | (read("rdx") & 0xFFFF_FFFF) << 32
        return x86.efer_refusal(state, value)
    if operation.kind is not Kind.CONTROL_WRITE or operation.target not in _CONTROL_RULES:
        return None
    return _CONTROL_RULES[operation.target](state, read(operation.source))


_CONTROL_RULES = {"cr0": x86.cr0_refusal, "cr3": x86.cr3_refusal, "cr4": x86.cr4_refusal}


def _reader(registers: Registers) -> Callable[[str], int]:
    """Registers by any of their names: rax, eax."""

    def read(name: str) -> int:
        wide = "r" + name[1:] if name[0] == "e" else name
        return registers.general.get(wide, 0)

    return read


def _access(raised: Raised) -> Access | None:
    """What the error code says (SDM 4.7); without NX a fetch is not told apart, but by its
    address."""
    if raised.address is None:
        return None
    if raised.error_code & FETCH or raised.address == raised.pc:
        return Access.FETCH
    return Access.WRITE if raised.error_code & WRITE else Access.READ


def _offset(handover: Handover, pc: int) -> int | None:
    """Where in the relocation code an instruction is, at V or at P."""
    for base in (handover.intent.relocation, handover.intent.control_page):
        if base <= pc < base + PAGE_SIZE:
            return pc - base
    return None


def step_of(handover: Handover, pc: int) -> Step:
    """The step of the walk that an instruction of the relocation code belongs to."""
    offset, code = _offset(handover, pc), handover.relocation_code
    if offset is None:
        return Step.COPY
    at_v = handover.intent.relocation <= pc < handover.intent.relocation + PAGE_SIZE
    begun = Step.CALL
    for step in Step:
        # Code that stays at V and the control page's are two: each has landmarks of its own.
        first = code.begins(step) if code.at_v is None or at_v == (step < Step.IDENTITY) else None
        if first is None or offset < first:
            continue
        begun = step
        if step >= Step.IDENTITY and offset > first:
            begun = Step.TABLE_B if step is Step.IDENTITY else Step.COPY
    return begun


def _text(
    handover: Handover,
    raised: Raised,
    access: Access | None,
    mmu: WatchedMmu,
    operation: Operation | None,
) -> str:
    """The instruction that faulted; of a fetch, the one that was executed before it in the code."""
    if access is not Access.FETCH:
        return operation.text if operation else "?"
    bits = 64 if mmu.mmu.efer & EFER_LMA else 32
    code, offset = handover.code.data, _offset(handover, raised.pc)
    at, before = 0, "?"
    while offset is not None and at < min(offset, len(code)):
        it = decoded(code[at : at + 15], handover.intent.relocation + at, bits)
        at, before = at + max(it.size, 1), it.text
    return before if at == offset else "?"
