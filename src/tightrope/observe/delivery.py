"""How far an exception gets: the idt, the gate, the stack, the handler, each through the tables.

Between two kernels nobody handles a fault, but a CPU does not know that: it looks for the gate,
faults again on the way, and after the second failure resets (SDM 6.15, interrupt 8).  This file
follows it and says in words where each attempt ended.

Rules: nothing is delivered here; the answer is text and whether it ends in a triple fault.
"""

from __future__ import annotations

from collections.abc import Callable

from tightrope.model import Registers
from tightrope.observe.mmu import WatchedMmu
from tightrope.x86.cpu import EFER_LMA, VECTORS, Descriptor, Gate
from tightrope.x86.walk import Access, Refused

DOUBLE_FAULT = 8


def follow(mmu: WatchedMmu, registers: Registers, vector: int) -> tuple[tuple[str, ...], bool]:
    """What happens to exception `vector`: one line per attempt, and whether the machine resets."""
    lines = []
    for attempt in (vector, DOUBLE_FAULT):
        name = VECTORS.get(attempt, f"vector {attempt}")
        problem, handler = _gate(mmu, registers, attempt)
        if problem is None:
            lines.append(f"{name} would be taken to {handler:#x}, a handler of the old kernel")
            return tuple(lines), False
        lines.append(f"{name} cannot be delivered: {problem}")
        if attempt == DOUBLE_FAULT:
            break
    lines.append("triple fault: the machine resets")
    return tuple(lines), True


def _gate(mmu: WatchedMmu, registers: Registers, vector: int) -> tuple[str | None, int]:
    """Why the gate cannot be used (SDM 6.14), or None and the handler's address."""
    base, limit = registers.idt
    long_mode = bool(mmu.mmu.efer & EFER_LMA)
    size = Gate.size(long_mode=long_mode)
    if size * vector + size - 1 > limit:
        return f"the idt's limit is {limit:#x}", 0
    raw = mmu.look(base + size * vector, size)
    if isinstance(raw, Refused):
        return f"the idt at {base:#x} is not readable: {raw.reason}", 0
    gate = Gate.decode(raw)
    if not gate.present:
        return "the gate is not present", 0
    problem = _code_segment(mmu.look, registers, gate.selector, long_mode=long_mode)
    if problem:
        return problem, 0
    stack = registers.general["rsp"]
    # SS, RSP, RFLAGS, CS, RIP and an error code; in a 32-bit ring 0 EFLAGS, CS, EIP and the code.
    frame = (stack & ~0xF) - 48 if long_mode else stack - 16 & 0xFFFF_FFFF
    pushed = mmu.look(frame, 48 if long_mode else 16, Access.WRITE)
    if isinstance(pushed, Refused):
        return f"its frame cannot be pushed at {frame:#x}: {pushed.reason}", 0
    first = mmu.look(gate.handler, 1, Access.FETCH)
    if isinstance(first, Refused):
        return f"its handler {gate.handler:#x} cannot be fetched: {first.reason}", 0
    return None, gate.handler


def _code_segment(
    look: Callable[[int, int], bytes | Refused],
    registers: Registers,
    selector: int,
    *,
    long_mode: bool,
) -> str | None:
    base, limit = registers.gdt
    if selector | 7 > limit:
        return f"its selector {selector:#x} is beyond the gdt's limit"
    raw = look(base + (selector & ~7), 8)
    if isinstance(raw, Refused):
        return f"the gdt at {base:#x} is not readable: {raw.reason}"
    descriptor = Descriptor.decode(int.from_bytes(raw, "little"))
    if not (descriptor.code and descriptor.present and descriptor.long == long_mode):
        return f"its selector {selector:#x} is not {64 if long_mode else 32}-bit code"
    return None
