"""Words of bits, in two kinds: numbers (many at once) and solver terms.

    Numbers   a word is a numpy array of uint64, one element per CPU state; a truth is an array of bool
    Terms     a word is a z3 bit vector, a truth a z3 formula              (prove.isa.terms)

Rules: the instruction model is written once, against `Algebra`.  So the very code that makes proof
obligations can be run on ten thousand random states and compared with a CPU.  Widths are passed where
an operation depends on them; a word of a smaller width has zeros above it.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

Word = Any
"""A numpy array or a z3 bit vector."""
Truth = Any
"""A numpy array of bool or a z3 formula."""


class Algebra(Protocol):
    """What the instruction model needs of words."""

    def const(self, value: int, width: int) -> Word: ...
    def truth(self, value: bool) -> Truth: ...
    def add(self, a: Word, b: Word, width: int) -> Word: ...
    def sub(self, a: Word, b: Word, width: int) -> Word: ...
    def both(self, a: Word, b: Word) -> Word: ...
    def either(self, a: Word, b: Word) -> Word: ...
    def differ(self, a: Word, b: Word) -> Word: ...
    def shift_left(self, a: Word, count: int, width: int) -> Word: ...
    def shift_right(self, a: Word, count: int, width: int) -> Word: ...
    def low(self, a: Word, width: int) -> Word:
        """The low `width` bits, as a word of that width."""

    def wide(self, a: Word, width: int, to: int) -> Word:
        """Zeros above: a word of `to` bits."""

    def bit(self, a: Word, number: int) -> Truth: ...
    def word(self, truth: Truth, width: int) -> Word:
        """1 where it is so, else 0."""

    def equal(self, a: Word, b: Word) -> Truth: ...
    def below(self, a: Word, b: Word) -> Truth:
        """a < b, unsigned."""

    def choose(self, condition: Truth, yes: Word, no: Word) -> Word: ...
    def negate(self, a: Truth) -> Truth: ...
    def all(self, *truths: Truth) -> Truth: ...
    def any(self, *truths: Truth) -> Truth: ...
    def unlike(self, a: Truth, b: Truth) -> Truth:
        """Exactly one of the two."""

    def unknown(self) -> Truth:
        """What the manual leaves undefined."""


def mask(width: int) -> int:
    """`width` ones."""
    return (1 << width) - 1


class Numbers:
    """`Algebra` over `count` states at once."""

    def __init__(self, count: int) -> None:
        self.count = count

    def const(self, value: int, width: int) -> Word:
        return np.full(self.count, value & mask(width), np.uint64)

    def truth(self, value: bool) -> Truth:
        return np.full(self.count, value)

    def add(self, a: Word, b: Word, width: int) -> Word:
        return self.low(a + b, width)

    def sub(self, a: Word, b: Word, width: int) -> Word:
        return self.low(a - b, width)

    def both(self, a: Word, b: Word) -> Word:
        return a & b

    def either(self, a: Word, b: Word) -> Word:
        return a | b

    def differ(self, a: Word, b: Word) -> Word:
        return a ^ b

    def shift_left(self, a: Word, count: int, width: int) -> Word:
        return self.low(a << np.uint64(count), width)

    def shift_right(self, a: Word, count: int, width: int) -> Word:
        return a >> np.uint64(count)

    def low(self, a: Word, width: int) -> Word:
        return a & np.uint64(mask(width))

    def wide(self, a: Word, width: int, to: int) -> Word:
        return a

    def bit(self, a: Word, number: int) -> Truth:
        return (a >> np.uint64(number)) & np.uint64(1) != 0

    def word(self, truth: Truth, width: int) -> Word:
        return truth.astype(np.uint64)

    def equal(self, a: Word, b: Word) -> Truth:
        return a == b

    def below(self, a: Word, b: Word) -> Truth:
        return a < b

    def choose(self, condition: Truth, yes: Word, no: Word) -> Word:
        return np.where(condition, yes, no)

    def negate(self, a: Truth) -> Truth:
        return ~a

    def all(self, *truths: Truth) -> Truth:
        return np.logical_and.reduce(truths)

    def any(self, *truths: Truth) -> Truth:
        return np.logical_or.reduce(truths)

    def unlike(self, a: Truth, b: Truth) -> Truth:
        return a ^ b

    def unknown(self) -> Truth:
        return None
