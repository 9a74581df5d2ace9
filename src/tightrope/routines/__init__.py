"""Assembled routines: each `NAME.S` beside `NAME.bin` (its bytes) and `NAME.sym` (its symbols).

Rules: the code that a reader sees is the code that runs.  `scripts/assemble` makes the bytes with
GNU as, a test assembles again and compares; nothing is assembled at run time.  A routine is
position independent and is used whole; whoever has to fill in a word finds it by its symbol.

May import: model
"""

from __future__ import annotations

import os
from functools import cache

from tightrope.model import Code

RELOCATE_X86_64 = "relocate_x86_64"
RELOCATE_I386 = "relocate_i386"
CONTROL_X86_64 = "control_x86_64"
CONTROL_I386 = "control_i386"
IN_PLACE_X86_64 = "in_place_x86_64"
IN_PLACE_I386 = "in_place_i386"
IN_PLACE_PAE = "in_place_pae"
SWITCH_X86_64 = "switch_x86_64"
SWITCH_I386 = "switch_i386"
RELOCATE_X86_64_PAGE_LIST = "relocate_x86_64_page_list"
RELOCATE_I386_PAGE_LIST = "relocate_i386_page_list"
RELOCATE_XEN = "relocate_xen"
LEAVE_XEN = "leave_xen"
STAGE_PC = "stage_pc"
BACK_UP_X86_64 = "back_up_x86_64"
BACK_UP_I386 = "back_up_i386"
PURGATORY_64 = "purgatory_64"
DIGEST_64 = "digest_64"
LEAVE_GUEST_64 = "leave_guest_64"
ENTER_64 = "enter_64"
ENTER_32 = "enter_32"
ENTER_32_FROM_64 = "enter_32_from_64"


@cache
def read(name: str) -> Code:
    """The routine `name`, read once; `symbols` are byte offsets into its data.  Raises
    FileNotFoundError."""
    lines = _bytes_of(f"{name}.sym").decode("ascii").splitlines()
    return Code(
        name=name,
        data=_bytes_of(f"{name}.bin"),
        symbols={symbol: int(offset, 16) for offset, symbol in (line.split() for line in lines)},
    )


def _bytes_of(name: str) -> bytes:
    """A file beside this one.  importlib.resources imports half of the library for that."""
    with open(os.path.join(os.path.dirname(__file__), name), "rb") as file:
        return file.read()
