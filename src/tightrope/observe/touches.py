"""The memory that an instruction is about to touch, implicit accesses too.

Rules: addresses only; nothing is translated or recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tightrope.memory import PAGE_SIZE
from tightrope.observe.decode import Kind, Operation
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.observed import ObservedCpu
from tightrope.x86.walk import Access, Refused

PAGE_FAULT = 14
Touch = tuple[int, int, Access]
"""Linear address, bytes, access."""


def touches(operation: Operation, cpu: ObservedCpu, mmu: WatchedMmu, bits: int) -> list[Touch]:
    """What the operands name, and the descriptor that a segment register is loaded from."""
    if operation.kind is Kind.INVLPG:
        return []  # it names a page and touches nothing
    out = operation.accesses(cpu.read)
    if operation.kind is Kind.DESCRIPTOR_TABLE:
        # The limit, then the base: two reads, as every CPU here makes them.
        out = [(at, 2, access) for at, _, access in out]
        out += [(at + 2, bits // 8, access) for at, _, access in out]
    selector = 0
    if operation.kind is Kind.SEGMENT_LOAD and operation.source != "none":
        selector = cpu.read(operation.source)
    elif operation.kind in (Kind.FAR_RETURN, Kind.FAR_JUMP):
        raw = mmu.look(operation.selector_at(cpu.read), 2)
        selector = 0 if isinstance(raw, Refused) else int.from_bytes(raw, "little")
    if selector & 0xFFF8:
        slot = cpu.table("gdtr")[0] + (selector & 0xFFF8)
        out += [(slot, 4, Access.READ), (slot + 4, 4, Access.READ)]
    return out


def exactly(
    page: int,
    access: Access,
    got: Refused,
    touched: Sequence[Touch],
    refusal: Callable[[int, Access], Refused | None],
) -> tuple[int, Access, Refused]:
    """Address, kind and reason of a fault, of which a question for a page has only the page."""
    for at, size, kind in touched:
        if at & -PAGE_SIZE <= page <= at + size - 1 and page & -PAGE_SIZE <= at + size - 1:
            if got.vector == PAGE_FAULT and kind is Access.WRITE and access is Access.READ:
                # It reads and writes in one: to a CPU that is a write (SDM 4.7, W/R).
                again = refusal(page, kind)
                got, access = again or got, kind if again else access
            return max(at, page) if got.vector == PAGE_FAULT else at, access, got
    return page, access, got
