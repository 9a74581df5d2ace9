"""What the terms of a loop are, turn by turn.

Rules: terms come from `loops`, registers and words from whoever goes round; all turns of a path are
one array.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import PAGE_SIZE
from tightrope.observe.columns import Column, column
from tightrope.observe.loops import WORD, Asks, Path, Question, Term

Values = NDArray[np.uint64]


class Series:
    """What terms are, turn by turn, while one path is taken."""

    def __init__(self, state: Mapping[str, int], path: Path, bits: int, words: Values) -> None:
        self.words = words
        self._state = state
        self._bits = bits
        self._known: dict[Term, Values] = {}
        self._pages: dict[tuple[Term, int], Column] = {}
        self._step = by = steps(path, bits)
        used = {path.read_from.base}
        used |= {each.base for copy in path.copies for each in (copy.to, copy.of)}
        used |= {each.base for asked, _ in path.whether for each in (asked.left, asked.right)}
        # Where the next turn's registers come out of this one's word, there is one turn at a time.
        steady = all(by.get(name or "", 0) is not None for name in used)
        goes_on = by.get(path.read_from.base or "") == bits // 8
        self.count = len(words) if goes_on and steady else 1

    def of(self, term: Term) -> Values:
        """A term in each turn."""
        known = self._known.get(term)
        if known is None:
            known = self._known[term] = self._of(term) & np.uint64((1 << self._bits) - 1)
        return known

    def pages(self, term: Term, count: int) -> Column:
        """A term in the first turns, as far as whole pages begin there."""
        known = self._pages.get((term, count))
        if known is None:
            virtual = self.of(term)[:count]
            whole = virtual[: run(virtual & np.uint64(PAGE_SIZE - 1) == 0)]
            known = self._pages[term, count] = column(whole.astype(np.int64))
        return known

    def _of(self, term: Term) -> Values:
        if term.base is None:
            return np.full(self.count, term.plus, np.uint64)
        if term.base == WORD:
            base = self.words[: self.count]
        else:
            by = np.uint64(self._step.get(term.base, 0) or 0)
            base = np.uint64(self._state[term.base]) + by * np.arange(self.count, dtype=np.uint64)
        return (base & np.uint64(term.mask)) + np.uint64(term.plus)

    def answers(self, question: Question) -> NDArray[np.bool_]:
        """Whether the zero flag is set, in each turn."""
        left, right = self.of(question.left), self.of(question.right)
        answers: NDArray[np.bool_] = (
            left & right == 0 if question.asks is Asks.BITS else left == right
        )
        return answers


def steps(path: Path, bits: int) -> dict[str, int | None]:
    """What each turn adds to the registers that it changes; None where it is not a number."""
    ones = (1 << bits) - 1
    return {
        name: term.plus if term.base == name and term.mask == ones else None
        for name, term in path.after
    }


def value(term: Term, state: Mapping[str, int], bits: int) -> int:
    """A term's number, out of the registers and the word at the head."""
    known = 0 if term.base is None else state[term.base] & term.mask
    return (known + term.plus) & (1 << bits) - 1


def answered(path: Path, state: Mapping[str, int], bits: int) -> bool:
    """Whether a turn that begins so takes the path."""
    for question, yes in path.whether:
        left, right = value(question.left, state, bits), value(question.right, state, bits)
        if (not left & right if question.asks is Asks.BITS else left == right) is not yes:
            return False
    return True


def run(good: NDArray[np.bool_]) -> int:
    """How many are true before the first that is not."""
    return len(good) if good.all() else int(np.argmin(good))
