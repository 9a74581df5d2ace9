"""Words as z3 terms.

Rules: every result is simplified at once, so that addresses stay `P + constant`, constants stay
numbers, and two ways to the same value mostly end in the same term.  Formulas are quantifier-free.
"""

from __future__ import annotations

from itertools import count

import z3

Word = z3.BitVecRef
Truth = z3.BoolRef
Array = z3.ArrayRef
"""A map from addresses to bytes."""

# z3 takes SIGINT for itself while it searches, answers "unknown", and nobody hears of the
# interrupt.
z3.set_param("ctrl_c", False)

_fresh = count()


class Terms:
    """`Algebra` over solver terms."""

    def __init__(self) -> None:
        self._bits: dict[tuple[int, int], tuple[Word, Truth]] = {}
        """Bits that were asked for, by the word's identity, with the word: held, so that it stays
        the only one of that identity."""

    def const(self, value: int, width: int) -> Word:
        return z3.BitVecVal(value, width)

    def truth(self, value: bool) -> Truth:
        return z3.BoolVal(value)

    def add(self, a: Word, b: Word, width: int) -> Word:
        return z3.simplify(a + b)

    def sub(self, a: Word, b: Word, width: int) -> Word:
        return z3.simplify(a - b)

    def both(self, a: Word, b: Word) -> Word:
        return z3.simplify(a & b)

    def either(self, a: Word, b: Word) -> Word:
        return z3.simplify(a | b)

    def differ(self, a: Word, b: Word) -> Word:
        return z3.simplify(a ^ b)

    def shift_left(self, a: Word, count: int, width: int) -> Word:
        return z3.simplify(a << count)

    def shift_right(self, a: Word, count: int, width: int) -> Word:
        return z3.simplify(z3.LShR(a, count))

    def low(self, a: Word, width: int) -> Word:
        return a if a.size() == width else z3.simplify(z3.Extract(width - 1, 0, a))

    def wide(self, a: Word, width: int, to: int) -> Word:
        return a if width == to else z3.simplify(z3.ZeroExt(to - width, a))

    def bit(self, a: Word, number: int) -> Truth:
        key = (a.get_id(), number)
        if key not in self._bits:
            self._bits[key] = (a, z3.simplify(z3.Extract(number, number, a) == 1))
        return self._bits[key][1]

    def word(self, truth: Truth, width: int) -> Word:
        return z3.simplify(z3.If(truth, z3.BitVecVal(1, width), z3.BitVecVal(0, width)))

    def equal(self, a: Word, b: Word) -> Truth:
        return z3.simplify(a == b)

    def below(self, a: Word, b: Word) -> Truth:
        return z3.simplify(z3.ULT(a, b))

    def choose(self, condition: Truth, yes: Word, no: Word) -> Word:
        return z3.simplify(z3.If(condition, yes, no))

    def negate(self, a: Truth) -> Truth:
        return z3.simplify(z3.Not(a))

    def all(self, *truths: Truth) -> Truth:
        return z3.simplify(z3.And(*truths))

    def any(self, *truths: Truth) -> Truth:
        return z3.simplify(z3.Or(*truths))

    def unlike(self, a: Truth, b: Truth) -> Truth:
        return z3.simplify(z3.Xor(a, b))

    def unknown(self) -> Truth:
        return z3.Bool(f"undefined {next(_fresh)}")


def value(term: Word) -> int | None:
    """The number that a term is, None where it depends on something."""
    return int(term.as_long()) if z3.is_bv_value(term) else None
