"""v1's page_list: the hypervisor's array of addresses, two slots a page.

Rules: read from memory as it lay at the call.
"""

from __future__ import annotations

from tightrope.abi import xen as abi
from tightrope.check.case import Case
from tightrope.model import PageList


def slots(case: Case) -> tuple[int, ...]:
    """v1's page_list as the hypervisor keeps it; nothing under v2."""
    if not isinstance(case.intent.through, PageList):
        return ()
    at = case.handover.world.arguments[0]
    piece = next(p for p in case.handover.world.pieces if p.phys == at.start)
    data = bytes(piece.data)[: abi.NO_PAGES * case.word]
    return tuple(memoryview(data).cast("Q" if case.word == 8 else "I"))
