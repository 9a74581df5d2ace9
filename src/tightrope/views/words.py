"""How things are written for people: addresses, sizes, walks, register names, steps.

Rules: one place for each notation, so that a value looks alike on every screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tightrope.model.walk import PAGING_OFF, STEP_NAMES, Step
from tightrope.x86 import cpu as x86
from tightrope.x86.bits import named_bits
from tightrope.x86.walk import TableVisit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tightrope.model import Handover, Plan, Run

OURS = "Tightrope's own"
"""Whose code or whose segments, where they are nobody else's: `our own` would be the reader's."""


def size(count: int) -> str:
    """Bytes in the largest unit that is exact, or rounded to a tenth of one."""
    for shift, unit in ((40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")):
        if count >= 1 << shift:
            whole, rest = divmod(count, 1 << shift)
            return f"{whole:,} {unit}" if not rest else f"{count / (1 << shift):,.1f} {unit}"
    return "1 byte" if count == 1 else f"{count} bytes"


def count(number: int, noun: str, plural: str | None = None) -> str:
    """A number and its noun; `plural` where that is more than an s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


def machine(name: str) -> str:
    """A machine in a sentence: only the emulator is one of a kind that has an article."""
    return "the emulator" if name == "emulator" else name


def walked(visits: Sequence[TableVisit]) -> str:
    """A walk level by level: `PML4 0x... -> PDPT 0x... -> PT 0x...`."""
    return " -> ".join(f"{visit.level} {visit.entry:#x}" for visit in visits) or "paging is off"


def crash_kexec(plan: Plan) -> str:
    """What a crash plan is, and where all of it lies."""
    return f"a crash kexec: everything lies in the crash region {plan.host.crash_region} already"


def arguments(plan: Plan) -> str:
    """The registers with arguments, by the names of the entry's mode: `eax = 0x2badb002`."""
    letter = "r" if plan.entry_bits == 64 else "e"
    given = [f"{letter}{name[1:]} = {value:#x}" for name, value in plan.arguments.items()]
    return ", ".join(given) or "no arguments"


def place(handover: Handover, rip: int) -> str:
    """Where an instruction lies: see `Handover.place`."""
    return handover.place(rip)


def shown(text: str) -> str:
    """Text of a file, or of a guest's, as it may go to a terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def control(register: str, value: int) -> str:
    """A register's value with the names of its bits, where it has names."""
    names = {
        "cr0": x86.CR0_NAMES,
        "cr4": x86.CR4_NAMES,
        "efer": x86.EFER_NAMES,
        "rflags": x86.RFLAGS_NAMES,
    }.get(register)
    if names is None:
        return f"{value:#x}"
    fixed = x86.RFLAGS_FIXED if register == "rflags" else 0
    return f"{value:#x} ({named_bits(value & ~fixed, names)})"


def table(register: str, value: int) -> str:
    """A descriptor table register written by lgdt or lidt: base << 16 | limit."""
    return f"{register} at {value >> 16:#x}, limit {value & 0xFFFF:#x}"


def step_name(step: Step, handover: Handover) -> str:
    """A step in the thread's words, or what it is in a design and a mode that do it otherwise."""
    if step is Step.TABLE_B and handover.page_table_b is None:
        return PAGING_OFF
    if step is Step.TABLE_A and handover.at_v is not None:
        live = handover.page_table_a.root == handover.world.pgd
        return REWRITTEN if live else STAYS
    if step is Step.IDENTITY and handover.jumps_to is not None:
        return OWN_IDENTITY
    return STEP_NAMES[step]


REWRITTEN = "load the current pgd again, which is overwritten by now"
STAYS = "load page_table_a (still at V, in the old kernel's own page)"
OWN_IDENTITY = "jump to that page's identity address"


def copied(run: Run) -> NDArray[np.int64]:
    """The copies of step 6 that moved something."""
    start = next((at for at, step in run.step_starts if step is Step.COPY), run.instructions)
    copies = run.copies
    moved: NDArray[np.int64] = copies[(copies[:, 0] >= start) & (copies[:, 1] != copies[:, 2])]
    return moved
