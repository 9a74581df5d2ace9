"""The old kernel's stack, where a contract lets code use it until it loads CR3.

Rules: it is memory of its own: bytes by their distance from the stack pointer at the call, which
only what was pushed can be read from.  That it is mapped, and is none of the pages that matter, is
a hypothesis.
"""

from __future__ import annotations

import z3

from tightrope.prove.isa.memory import same, split
from tightrope.prove.isa.semantics import Refused
from tightrope.prove.isa.symbolic import OLD, Symbolic
from tightrope.prove.isa.terms import Word

Array = tuple[Word, tuple[Word, ...]]
"""Where words lie, one behind the other, and the words."""
BYTES = 128
"""Below the pointer; relocate_kernel of 7.3 takes 72."""


def distance(stack: Word | None, state: Symbolic, address: Word, size: int) -> int | None:
    """How far from the pointer an access lies; None where it is somewhere else, or no longer
    allowed."""
    base, offset = split(address)
    there = stack is not None and same(base, stack) and state.tables_in_use == OLD
    return offset if there and -BYTES <= offset <= -size else None


def word(state: Symbolic, at: int, width: int) -> Word:
    """What was pushed.  Raises Refused for what was not."""
    parts = [state.old_stack.get(at + n) for n in range(width // 8)]
    found = [each for each in parts if each is not None]
    if len(found) != len(parts):
        raise Refused("it reads of the old kernel's stack what it did not push")
    whole: Word = z3.simplify(z3.Concat(*reversed(found)) if len(found) > 1 else found[0])
    return whole


def read(
    stack: Word | None, arrays: tuple[Array, ...], state: Symbolic, address: Word, width: int
) -> Word | None:
    """What was pushed, or a word of the caller's that lies on that stack as well; None for what is
    neither."""
    below = distance(stack, state, address, width // 8)
    if below is not None:
        return word(state, below, width)
    base, offset = split(address)
    number, rest = divmod(offset, width // 8)
    if state.tables_in_use == OLD and width == address.size() and not rest:
        for at, words in arrays:
            if same(base, at) and 0 <= number < len(words):
                return words[number]
    return None


def put(state: Symbolic, at: int, value: Word, size: int) -> None:
    """A push."""
    parts = {at + n: z3.Extract(8 * n + 7, 8 * n, value) for n in range(size)}
    state.old_stack = state.old_stack | parts
