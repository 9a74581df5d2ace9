"""The arithmetic flags that an instruction leaves (SDM volume 1, 3.4.3.1; volume 2, ADD, AND, CMP,
TEST).

Rules: numbers in, RFLAGS out.  AF is undefined behind AND and TEST: it is 0 here, as QEMU leaves
it.
"""

from __future__ import annotations

from enum import Enum, auto

from tightrope.x86.cpu import RFLAGS_NAMES

CF, PF, AF, ZF, SF, OF = (RFLAGS_NAMES[name] for name in ("CF", "PF", "AF", "ZF", "SF", "OF"))
ARITHMETIC = CF | PF | AF | ZF | SF | OF


class Computes(Enum):
    """What sets flags."""

    AND = auto()
    """AND and TEST."""
    SUM = auto()
    """ADD."""
    DIFFERENCE = auto()
    """SUB and CMP."""


def flags_after(what: Computes, left: int, right: int, bits: int, before: int) -> int:
    """RFLAGS behind an instruction with these operands of `bits` bits, when they were `before`
    it."""
    ones, top = (1 << bits) - 1, 1 << bits - 1
    left, right = left & ones, right & ones
    out = before & ~ARITHMETIC
    if what is Computes.AND:
        result = left & right
    elif what is Computes.SUM:
        result = left + right & ones
        out |= CF * (left + right > ones) | OF * bool(~(left ^ right) & (left ^ result) & top)
    else:
        result = left - right & ones
        out |= CF * (left < right) | OF * bool((left ^ right) & (left ^ result) & top)
    if what is not Computes.AND:
        out |= (left ^ right ^ result) & AF
    out |= ZF * (result == 0) | SF * bool(result & top)
    return out | PF * ((result & 0xFF).bit_count() % 2 == 0)
