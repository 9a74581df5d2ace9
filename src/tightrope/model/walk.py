"""The walk: its six steps, and the page-table formats it is walked under.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum


class Step(IntEnum):
    """The six steps of the walk as the thread numbers them, and what is prepared before them."""

    PREPARE = 0
    CALL = 1
    TABLE_A = 2
    STATE = 3
    IDENTITY = 4
    TABLE_B = 5
    COPY = 6


STEP_NAMES: Mapping[Step, str] = {
    Step.PREPARE: "prepare: image, page list, control page and tables are in memory",
    Step.CALL: "call the relocation code at V under the current pgd",
    Step.TABLE_A: "load page_table_a (still at V, now backed by the control page)",
    Step.STATE: "set idt, gdt, segments and stack",
    Step.IDENTITY: "jump to the identity address P",
    Step.TABLE_B: "load page_table_b",
    Step.COPY: "copy the pages, enter the new kernel",
}

PAGING_OFF = "turn paging off"
"""What step 5 is on i386 and PAE."""
