"""What a CPU holds, as words of an algebra, and where control goes after an instruction.

Rules: values only.  Registers carry their 64-bit names in every mode and are `bits` wide.  A flag
is a truth, `Later` one, or None where the manual leaves it undefined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic, Self

from tightrope.prove.isa.algebra import Truth, Word
from tightrope.x86.cpu import GENERAL

FLAG_BITS = {
    "CF": 0, "PF": 2, "AF": 4, "ZF": 6, "SF": 7, "TF": 8, "IF": 9, "DF": 10, "OF": 11,
    "IOPL0": 12, "IOPL1": 13, "NT": 14, "AC": 18, "ID": 21,
}  # fmt: skip
"""The flags that POPF writes at CPL 0 (SDM volume 1, 3.4.3); RF is cleared, VM and VIF stay."""
ARITHMETIC = ("CF", "PF", "AF", "ZF", "SF", "OF")


@dataclass(frozen=True, slots=True)
class Later(Generic[Truth]):
    """A flag that is made when somebody asks for it: most never are."""

    made: Callable[[], Truth]


def general(bits: int) -> tuple[str, ...]:
    """The names of the general registers that code of this width has."""
    return GENERAL if bits == 64 else GENERAL[:8]


@dataclass(kw_only=True, slots=True)
class State(Generic[Word, Truth]):
    """`control` has cr0, cr3, cr4, efer and dr7; `tables` (base, limit) for gdt and idt."""

    bits: int
    registers: dict[str, Word]
    flags: dict[str, Truth | Later[Truth] | None]
    control: dict[str, Word]
    segments: dict[str, Word]
    tables: dict[str, tuple[Word, Word]]
    rip: Word
    """The address of the image's first byte, to which offsets are added."""

    def flag(self, name: str) -> Truth | None:
        """A flag as it is now, None where it is undefined."""
        got = self.flags[name]
        if isinstance(got, Later):
            got = self.flags[name] = got.made()
        return got

    def copied(self) -> Self:
        """A state of its own, to change."""
        return replace(
            self,
            registers=dict(self.registers),
            flags=dict(self.flags),
            control=dict(self.control),
            segments=dict(self.segments),
            tables=dict(self.tables),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow(Generic[Word, Truth]):
    """Where control goes: on, to an offset (under a condition), to an address, or nowhere."""

    target: int | None = None
    condition: Truth | None = None
    address: Word | None = None
    far: bool = False
    halts: bool = False
