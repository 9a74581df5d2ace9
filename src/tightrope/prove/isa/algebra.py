"""Words of bits, in two kinds: numbers (many at once) and solver terms.

    Numbers   a word is an array of uint64, one element per CPU state; a truth is one of bool
    Terms     a word is a z3 bit vector, a truth a z3 formula              (prove.isa.terms)

Rules: the instruction model is written once, against `Algebra`.  So the very code that makes proof
obligations can be run on ten thousand random states and compared with a CPU.  Widths are passed
where an operation depends on them; a word of a smaller width has zeros above it.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Word = TypeVar("Word")
"""A numpy array or a z3 bit vector."""
Truth = TypeVar("Truth")
"""A numpy array of bool or a z3 formula."""


class Algebra(Protocol[Word, Truth]):
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


Words = NDArray[np.uint64]
Truths = NDArray[np.bool_]


class Numbers:
    """`Algebra` over `count` states at once."""

    def __init__(self, count: int) -> None:
        self.count = count

    def const(self, value: int, width: int) -> Words:
        return np.full(self.count, value & mask(width), np.uint64)

    def truth(self, value: bool) -> Truths:
        return np.full(self.count, value)

    def add(self, a: Words, b: Words, width: int) -> Words:
        return self.low(a + b, width)

    def sub(self, a: Words, b: Words, width: int) -> Words:
        return self.low(a - b, width)

    def both(self, a: Words, b: Words) -> Words:
        return a & b

    def either(self, a: Words, b: Words) -> Words:
        return a | b

    def differ(self, a: Words, b: Words) -> Words:
        return a ^ b

    def shift_left(self, a: Words, count: int, width: int) -> Words:
        return self.low(a << np.uint64(count), width)

    def shift_right(self, a: Words, count: int, width: int) -> Words:
        return a >> np.uint64(count)

    def low(self, a: Words, width: int) -> Words:
        return a & np.uint64(mask(width))

    def wide(self, a: Words, width: int, to: int) -> Words:
        return a

    def bit(self, a: Words, number: int) -> Truths:
        return ((a >> np.uint64(number)) & np.uint64(1)).astype(np.bool_)

    def word(self, truth: Truths, width: int) -> Words:
        return truth.astype(np.uint64)

    def equal(self, a: Words, b: Words) -> Truths:
        return np.equal(a, b)

    def below(self, a: Words, b: Words) -> Truths:
        return np.less(a, b)

    def choose(self, condition: Truths, yes: Words, no: Words) -> Words:
        return np.where(condition, yes, no)

    def negate(self, a: Truths) -> Truths:
        return ~a

    def all(self, *truths: Truths) -> Truths:
        return np.asarray(np.logical_and.reduce(truths))

    def any(self, *truths: Truths) -> Truths:
        return np.asarray(np.logical_or.reduce(truths))

    def unlike(self, a: Truths, b: Truths) -> Truths:
        return a ^ b

    def unknown(self) -> Truths:
        raise ValueError("what the manual leaves undefined has no number")
