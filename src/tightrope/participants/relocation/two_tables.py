"""The thread's design: page_table_a has the control page twice, page_table_b all that is needed.

    current pgd        page_table_a       page_table_b, or paging off
    V -> the code      V -> P             (not mapped)
    P -> whatever      P -> P             P -> P, and what the copy and the entry touch

Source: the thread, steps 1 to 6; routines/relocate_x86_64.S and relocate_i386.S.
"""

from __future__ import annotations

from collections.abc import Mapping

from tightrope import routines
from tightrope.model import Contract, Given, Kind, Paging, Participant, Step, Trees

ARGUMENTS: Mapping[str, Given] = {
    "rdi": Given.LIST,
    "rsi": Given.CONTROL_PAGE,
    "rdx": Given.ENTRY,
    "rcx": Given.TABLE_A,
    "r8": Given.TABLE_B,
}
"""In 32-bit code the low halves; there is no page_table_b and nothing in r8."""
LANDMARKS: Mapping[str, Step] = {
    "after_table_a": Step.TABLE_A,
    "set_stack": Step.STATE,
    "identity": Step.IDENTITY,
    "after_table_b": Step.TABLE_B,
    "paging_off": Step.TABLE_B,
}


def two_tables(paging: Paging) -> Participant:
    """The design for a mode."""
    return walker("two-tables", paging, Contract(arguments=ARGUMENTS, trees=Trees.TWO))


def walker(name: str, paging: Paging, contract: Contract) -> Participant:
    """The routine of this design under another contract: it walks whatever tables it is handed."""
    wide = paging.long_mode
    return Participant(
        name=name,
        kind=Kind.RELOCATION,
        code=routines.read(routines.RELOCATE_X86_64 if wide else routines.RELOCATE_I386),
        contract=contract,
        landmarks=LANDMARKS,
    )
