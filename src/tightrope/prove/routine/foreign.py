"""Somebody else's relocation code, with the lines of its source, and whether it looks like ours.

Rules: whether the code is any good is not decided here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tightrope.model import Paging
from tightrope.participants import from_file
from tightrope.participants.from_file import Written
from tightrope.prove.isa.decode import Mem, Reg, sweep
from tightrope.prove.routine.source_lines import Lines, lines_of

CONTRACTS = ("two-tables",)
CALLED = {
    64: "head in rdi, P in rsi, start in rdx, page_table_a in rcx, page_table_b in r8",
    32: "head in edi, P in esi, start in edx, page_table_a in ecx",
}


@dataclass(frozen=True, slots=True)
class Foreign:
    """Code out of a file, and the lines of its source."""

    code: Written
    lines: Lines = field(default=Lines(), compare=False)


def read(path: Path, mode: Paging | None) -> Foreign:
    """The code in a file.  Raises BadInput, and MissingPart where there is no GNU as."""
    code = from_file.read(path, mode)
    if not code.made:
        return Foreign(code)
    if path.suffix in (".S", ".s"):
        return Foreign(code, lines_of(code.made, path.name, path.read_bytes()))
    return Foreign(code, lines_of(code.made))


def misfit(data: bytes, bits: int) -> str:
    """Why the code seems to be written for another contract than two-tables; "" where it does not.

    Before the first load of CR3 two-tables code has nothing but registers: rsi is a physical
    address, and the stack is the old kernel's.  Linux's relocate_kernel reads page_list through rsi
    there, its 32-bit one arguments from the stack (arch/x86/kernel/relocate_kernel_64.S,
    relocate_kernel_32.S).
    """
    known = {"rsi", "rsp"}
    for at in sweep(data, len(data), bits):
        into = at.operands[0] if at.operands else None
        if at.mnemonic == "mov" and isinstance(into, Reg) and into.name == "cr3":
            return ""
        read = [op for op in at.operands[1:] if isinstance(op, Mem) and op.base in known]
        if read and at.mnemonic != "lea":
            what = (
                "through rsi, as Linux's relocate_kernel reads its page_list"
                if read[0].base == "rsi" and bits == 64
                else f"through {read[0].base if bits == 64 else 'e' + str(read[0].base)[1:]}"
            )
            return (
                f"`{at.text}` at {at.offset:#x} reads {what}, before it loads CR3: it seems to be written"
                " for another contract. --contract two-tables does not fit then: the code is called at V"
                f" with {CALLED[bits]}, and has no stack and no memory until page_table_a is loaded"
            )
        if isinstance(into, Reg):
            known.discard(into.name)
    return ""
