"""Fields of a word: one accessor that is right for numbers and, later, for symbolic words.

Rules: a field is read shift-then-mask with a declared width, which is what z3 calls `Extract`;
there is no bare `>>` and no comparison but equality in code that uses these fields to build tables.
Writing a value that does not fit raises; nothing is truncated in silence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Field:
    """`width` bits of a word, the lowest of which is bit `lo` in the manual's numbering."""

    lo: int
    width: int

    @property
    def mask(self) -> int:
        """The field's bits in place."""
        return ((1 << self.width) - 1) << self.lo

    def get(self, word: int) -> int:
        """The field's value in `word`."""
        return (word >> self.lo) & ((1 << self.width) - 1)

    def put(self, value: int) -> int:
        """A word with only this field set.  Raises ValueError when `value` does not fit."""
        if not 0 <= value < 1 << self.width:
            raise ValueError(f"Field.put: {value:#x} does not fit {self.width} bits")
        return value << self.lo


def bit(number: int) -> int:
    """The word with only bit `number` set."""
    return 1 << number


def add_up(fields: Iterable[Field], width: int) -> None:
    """Check that the fields tile a word of `width` bits from bit 0 up.  Raises ValueError."""
    at = 0
    for field in fields:
        if field.lo != at:
            raise ValueError(
                f"add_up: a field starts at bit {field.lo}, the last one ended at {at}"
            )
        at += field.width
    if at != width:
        raise ValueError(f"add_up: the fields end at bit {at} of {width}")


def named_bits(word: int, names: dict[str, int]) -> str:
    """The names of the set bits of `word`, low to high; bits without a name as hex."""
    out = [name for name, mask in names.items() if word & mask == mask]
    rest = word & ~sum(names[name] for name in out)
    if rest:
        out.append(f"{rest:#x}")
    return " ".join(out) or "-"
