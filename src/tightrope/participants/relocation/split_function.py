"""Biederman's last proposal in the thread (26 May 2006): what switches tables stays in the
kernel's text.

    current pgd          page_table_a       page_table_b, or paging off
    V -> the function    the function       (not mapped)
    F -> whatever        the function       the function
    P -> whatever        (not mapped)       the control page

page_table_a may have to lead V and P through the same entry, and P is known only when the image is
loaded.  So the function is mapped at V and at its own physical address F by tables that are there
from the beginning; when it is done it jumps to the control page.

Source: the thread; routines/switch_x86_64.S and switch_i386.S.
"""

from __future__ import annotations

from tightrope import routines
from tightrope.model import Contract, Given, Kind, Paging, Participant, Place, Step, Trees

LANDMARKS = {
    "after_table_a": Step.TABLE_A,
    "control": Step.IDENTITY,
    "after_table_b": Step.TABLE_B,
    "paging_off": Step.TABLE_B,
}


def split_function(paging: Paging) -> Participant:
    """The design for a mode."""
    wide = paging.long_mode
    common = {
        "rdi": Given.LIST,
        "rsi": Given.CONTROL_PAGE,
        "rdx": Given.ENTRY,
        "rcx": Given.TABLE_A,
    }
    own = {"r8": Given.TABLE_B, "r9": Given.FUNCTION}
    narrow = {"rbx": Given.FUNCTION, "rax": Given.V}
    return Participant(
        name="split-function",
        kind=Kind.RELOCATION,
        code=routines.read(routines.CONTROL_X86_64 if wide else routines.CONTROL_I386),
        at_v=routines.read(routines.SWITCH_X86_64 if wide else routines.SWITCH_I386),
        contract=Contract(
            arguments=common | (own if wide else narrow),
            trees=Trees.IN_IMAGE,
            stays_at_v=True,
            reads=Contract().reads | {Place.CODE_AT_V},
            writes=frozenset({Place.CONTROL_PAGE, Place.IN_IMAGE}),
        ),
        landmarks=LANDMARKS,
    )
