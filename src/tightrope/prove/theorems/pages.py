"""What theorem 4 speaks of: questions to a solver, a list of copies as functions of their number.

Rules: pages are an unspecified sort; nothing is decided here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tightrope.prove.solver import solver_library


@dataclass(frozen=True, slots=True)
class Question:
    """`given` implies `then`, for every value of what is not bound; `shown` names what to print."""

    name: str
    given: tuple[Any, ...]
    then: Any
    shown: tuple[Any, ...] = ()


Questions = Callable[[], list[Question]]


class Pages:
    """The list as functions of the copy's number, and the three promises about it."""

    def __init__(self) -> None:
        z3 = self.z3 = solver_library()
        self.page, self.bytes = z3.DeclareSort("Page"), z3.DeclareSort("Bytes")
        self.d = z3.Function("d", z3.IntSort(), self.page)
        self.s = z3.Function("s", z3.IntSort(), self.page)
        self.is_destination = z3.Function("is_destination", self.page, z3.BoolSort())
        self.kept = z3.Function("kept", self.page, z3.BoolSort())
        self.first = z3.Array("memory at first", self.page, self.bytes)
        self.now = z3.Array("memory now", self.page, self.bytes)
        self.n, self.k = z3.Ints("n k")
        self.i, self.j = z3.Ints("i j")
        self.p = z3.Const("p", self.page)

    def each(self, number: Any) -> Any:
        """A number of a copy."""
        return self.z3.And(number >= 0, number < self.n)

    def unique(self) -> Any:
        z3, i, j = self.z3, self.i, self.j
        both = z3.And(self.each(i), self.each(j), i != j)
        return z3.ForAll([i, j], z3.Implies(both, self.d(i) != self.d(j)))

    def order(self) -> Any:
        z3, i, j = self.z3, self.i, self.j
        both = z3.And(self.each(i), self.each(j), i < j)
        return z3.ForAll([i, j], z3.Implies(both, self.s(j) != self.d(i)))

    def rule(self) -> Any:
        z3, i = self.z3, self.i
        fine = z3.Or(self.s(i) == self.d(i), z3.Not(self.is_destination(self.s(i))))
        return z3.ForAll([i], z3.Implies(self.each(i), fine))

    def named(self) -> list[Any]:
        """What the two predicates mean."""
        z3, i, p = self.z3, self.i, self.p
        return [
            z3.ForAll([i], z3.Implies(self.each(i), self.is_destination(self.d(i)))),
            z3.ForAll([p], z3.Implies(self.kept(p), z3.Not(self.is_destination(p)))),
        ]

    def invariant(self, memory: Any, done: Any) -> list[Any]:
        """After `done` copies: the done ones are right, the others' sources whole,
        the rest untouched.
        """
        z3, j, p = self.z3, self.j, self.p
        return [
            z3.ForAll(
                [j],
                z3.Implies(z3.And(j >= 0, j < done), memory[self.d(j)] == self.first[self.s(j)]),
            ),
            z3.ForAll(
                [j],
                z3.Implies(
                    z3.And(done <= j, j < self.n), memory[self.s(j)] == self.first[self.s(j)]
                ),
            ),
            z3.ForAll([p], z3.Implies(z3.Not(self.is_destination(p)), memory[p] == self.first[p])),
        ]
