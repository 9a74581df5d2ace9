"""Numbers that a solver knows: the builder and the walker run on them unchanged, path by path.

    program(Fork) --each question of a Word's truth forks--> Path: conditions, goal

A `Word` is 64 bits.  When Python asks for the truth of something about it ("is the entry
present?"), the solver says which answers are possible; where both are, the program is run again for
the other one.  All paths together cover all values, and each ends in a goal, which the solver then
proves or refutes.

Rules: z3 is imported inside functions; an answer that the solver does not give in time raises
Undecided. No operation wraps round in silence: a sum or a product that does not fit 64 bits fails
the path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

from tightrope.prove.goal import Undecided
from tightrope.prove.solver import solver_library

MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Path:
    """One way through a program: z3 terms.  `goal` has to follow from the conditions."""

    conditions: tuple[Any, ...]
    goal: Any


class Fork:
    """Runs a program along one path, and keeps what has to be gone back for."""

    def __init__(self, given: Sequence[Any], seconds: float, distinct: Sequence[Any] = ()) -> None:
        self.z3 = solver_library()
        self.given = (*given, self.z3.Distinct(*distinct)) if distinct else tuple(given)
        # What is given as distinct needs no question to the solver.
        no = self.z3.BoolVal(False)
        self._unlike = [(one == two, no) for one, two in permutations(distinct, 2)]
        self.fits: list[Any] = []
        """Why no sum and no product on this path wraps round; part of its goal."""
        self._solver = self.z3.SolverFor("QF_BV")
        self._solver.add(*self.given)
        self._end = time.monotonic() + seconds
        self._plan: list[tuple[bool, bool]] = []
        """For each question on this path: the answer,
        and whether the other one is still to be tried.
        """
        self._at = 0
        self._conditions: list[Any] = []
        self._model: Any = None

    def word(self, name: str) -> Word:
        """A 64-bit unknown."""
        return Word(self, self.z3.BitVec(name, 64))

    def number(self, value: int) -> Word:
        """A 64-bit known number."""
        return Word(self, self.z3.BitVecVal(value & MASK, 64), value & MASK)

    def decide(self, condition: Any) -> bool:
        """The truth of a z3 term on this path; forks where both are possible."""
        condition = self.z3.simplify(self.z3.substitute(self.z3.simplify(condition), *self._unlike))
        if self.z3.is_true(condition) or self.z3.is_false(condition):
            return bool(self.z3.is_true(condition))
        if self._at == len(self._plan):
            self._plan.append(self._possible(condition))
            self._solver.push()
            self._solver.add(condition if self._plan[-1][0] else self.z3.Not(condition))
        answer = self._plan[self._at][0]
        self._at += 1
        self._conditions.append(condition if answer else self.z3.Not(condition))
        return answer

    def _possible(self, condition: Any) -> tuple[bool, bool]:
        """An answer that is possible, and whether the other one is, too."""
        if self._model is None:
            self._model = self._satisfied()
        assert self._model is not None, "the path so far is possible"
        answer = bool(self.z3.is_true(self._model.eval(condition, model_completion=True)))
        other = self._satisfied(self.z3.Not(condition) if answer else condition)
        return answer, other is not None

    def _satisfied(self, *more: Any) -> Any:
        """A model of the path so far and more, None where there is none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise Undecided("no time left")
        self._solver.set("timeout", max(1, int(left * 1000)))
        self._solver.push()
        self._solver.add(*more)
        answer = self._solver.check()
        model = self._solver.model() if answer == self.z3.sat else None
        self._solver.pop()
        if answer == self.z3.unknown:
            raise Undecided(f"z3 says: {self._solver.reason_unknown()}")
        return model

    def paths(self, program: Callable[[Fork], Any]) -> Iterator[tuple[Path, Any]]:
        """Every path of a program that returns its goal, with a model that refutes it, or None."""
        while True:
            self._at, self._conditions, self.fits = 0, [], []
            goal = program(self)
            whole = self.z3.And(goal, *self.fits)
            yield (Path(tuple(self._conditions), whole), self._satisfied(self.z3.Not(whole)))
            while self._plan and not self._plan[-1][1]:
                self._plan.pop()
                self._solver.pop()
            if not self._plan:
                return
            # The last question with two possible answers is answered the other way, and that was
            # it.
            last = len(self._plan) - 1
            self._plan[last] = (not self._plan[last][0], False)
            self._solver.pop()
            self._solver.push()
            self._solver.add(self.z3.Not(self._conditions[last]))
            self._model = None


class Word:
    """64 bits that may be unknown.  Python's operators, as unsigned numbers.

    `may` has the bits that can be set at all: a sum of words without a common one is an `or`, which
    is how "frame + slot" keeps its two halves apart and stays easy for a solver.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, fork: Fork, term: Any, may: int = MASK) -> None:
        self.fork, self.term, self.may = fork, term, may

    def _other(self, other: Any) -> Word:
        return other if isinstance(other, Word) else self.fork.number(other)

    def _word(self, term: Any, may: int) -> Word:
        return Word(self.fork, self.fork.z3.simplify(term), may)

    def __and__(self, value: Any) -> Word:
        other = self._other(value)
        return self._word(self.term & other.term, self.may & other.may)

    def __or__(self, value: Any) -> Word:
        other = self._other(value)
        return self._word(self.term | other.term, self.may | other.may)

    def __add__(self, value: Any) -> Word:
        other = self._other(value)
        if not self.may & other.may:
            return self | other
        self.fork.fits.append(self.fork.z3.BVAddNoOverflow(self.term, other.term, False))
        return self._word(self.term + other.term, MASK)

    def __mul__(self, factor: int) -> Word:
        """By a power of two."""
        bits = factor.bit_length() - 1
        if factor != 1 << bits:
            raise TypeError(f"a word was multiplied with {factor}")
        return self << bits

    __rand__, __ror__, __radd__, __rmul__ = __and__, __or__, __add__, __mul__

    def __rshift__(self, bits: int) -> Word:
        return self._word(self.fork.z3.LShR(self.term, bits), self.may >> bits)

    def __lshift__(self, bits: int) -> Word:
        z3 = self.fork.z3
        if self.may << bits > MASK:
            self.fork.fits.append(z3.Extract(63, 64 - bits, self.term) == 0)
        moved = z3.Concat(z3.Extract(63 - bits, 0, self.term), z3.BitVecVal(0, bits))
        return self._word(moved, self.may << bits & MASK)

    def _of(self, value: Any) -> Any:
        return self._other(value).term

    def __lt__(self, other: Any) -> Truth:
        return Truth(self.fork, self.fork.z3.ULT(self.term, self._of(other)))

    def __eq__(self, other: object) -> Truth:  # type: ignore[override]
        return Truth(self.fork, self.term == self._of(other))

    def __ne__(self, other: object) -> Truth:  # type: ignore[override]
        return Truth(self.fork, self.term != self._of(other))

    def __bool__(self) -> bool:
        return self.fork.decide(self.term != 0)

    def __format__(self, _spec: str) -> str:
        return "an unknown number"


class Truth:
    """Something about a Word that Python may ask for the truth of."""

    __slots__ = ("fork", "term")

    def __init__(self, fork: Fork, term: Any) -> None:
        self.fork, self.term = fork, term

    def __bool__(self) -> bool:
        return self.fork.decide(self.term)


class WordTables:
    """Table memory of `Word`s by physical address: a log of writes over `zeroed` frames.

    `frames` are handed out to tables; elsewhere, and in those that are not zeroed, lies anything.
    """

    def __init__(
        self, fork: Fork, zeroed: Sequence[Word], entry_size: int, frames: Sequence[Word]
    ) -> None:
        self._fork, self._frames, self._size = fork, zeroed, entry_size
        self._next = iter(frames)
        self._log: list[tuple[Word, Word]] = []
        self._elsewhere = 0
        self.root = next(self._next)

    def new_table(self) -> Word:
        """The next frame."""
        return next(self._next)

    def entry(self, table: Word, index: Word) -> Word:
        """See `x86.paging.TableMemory`."""
        found = self.read(table + index * self._size, self._size)
        assert found is not None
        return found

    def set_entry(self, table: Word, index: Word, value: Word) -> None:
        """See `x86.paging.TableMemory`."""
        z3 = self._fork.z3
        if value.may >> 8 * self._size:
            self._fork.fits.append(z3.ULT(value.term, z3.BitVecVal(1 << 8 * self._size, 64)))
        self._log.append((table + index * self._size, value))

    def read(self, at: Word, size: int) -> Word:
        """See `x86.walk.ReadEntry`.  Outside our frames lies anything."""
        assert size == self._size
        for where, value in reversed(self._log):
            if where == at:
                return value
        page = at & ~0xFFF
        if any(page == frame for frame in self._frames):
            return self._fork.number(0)
        self._elsewhere += 1
        return self._fork.word(f"elsewhere_{self._elsewhere}") & (1 << 8 * self._size) - 1


def values(model: Any, names: Mapping[str, Any]) -> dict[str, str]:
    """What a model gives to some terms, in hexadecimal."""
    return {
        name: f"{model.eval(term, model_completion=True).as_long():#x}"
        for name, term in names.items()
    }
