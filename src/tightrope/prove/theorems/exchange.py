"""Theorem 4 for code that lets pages change places, as Linux's up to 6.12 does.

    swap <- s(i), s(i) <- d(i), d(i) <- swap        what a page held is kept where the other was

Rules: as in `copying`.  Besides its promises: no page is a source twice, and the swap page is
nobody's source or destination.
"""

from __future__ import annotations

from typing import Any

from tightrope.prove.solver import solver_library
from tightrope.prove.theorems.pages import Pages, Question


def induction() -> list[Question]:
    """The beginning, one more exchange, the end."""
    w = Pages()
    z3 = w.z3
    swap = z3.Const("swap", w.page)
    is_source = z3.Function("is_source", w.page, z3.BoolSort())
    untouched = [z3.Not(w.is_destination(w.p)), z3.Not(is_source(w.p)), w.p != swap]

    def invariant(memory: Any, done: Any) -> list[Any]:
        right, whole, _ = w.invariant(memory, done)
        rest = z3.Implies(z3.And(*untouched), memory[w.p] == w.first[w.p])
        return [right, whole, z3.ForAll([w.p], rest)]

    given = (
        w.unique(), w.rule(), *w.named(), w.n >= 0, distinct(w),
        z3.ForAll([w.i], z3.Implies(w.each(w.i), is_source(w.s(w.i)))),
        z3.ForAll([w.p], z3.Implies(w.kept(w.p), z3.And(*untouched))),
        z3.ForAll([w.i], z3.Implies(w.each(w.i), z3.And(w.d(w.i) != swap, w.s(w.i) != swap))),
    )  # fmt: skip
    begun = z3.And(*invariant(w.first, z3.IntVal(0)))
    out = [Question("nothing exchanged yet", given, begun)]
    after = exchanged(z3, w.now, w.d(w.k), w.s(w.k), swap)
    before = (*given, w.each(w.k), *invariant(w.now, w.k))
    names = ("what is done stays right", "later sources stay whole", "the rest is untouched")
    for name, part in zip(names, invariant(after, w.k + 1), strict=True):
        out.append(Question(f"one more exchange: {name}", before, part))
    done = (*given, *invariant(w.now, w.n))
    right = z3.ForAll([w.j], z3.Implies(w.each(w.j), w.now[w.d(w.j)] == w.first[w.s(w.j)]))
    whole = z3.ForAll([w.p], z3.Implies(w.kept(w.p), w.now[w.p] == w.first[w.p]))
    out.append(Question("at the end every destination is right", done, right))
    out.append(Question("at the end tables, control page and list are whole", done, whole))
    return out


def distinct(w: Pages) -> Any:
    """No page is a source twice."""
    z3 = w.z3
    apart = z3.And(w.each(w.i), w.each(w.j), w.i != w.j)
    return z3.ForAll([w.i, w.j], z3.Implies(apart, w.s(w.i) != w.s(w.j)))


def exchanged(z3: Any, memory: Any, to: Any, of: Any, swap: Any) -> Any:
    """Memory after three copies, one after the other."""
    for into, out_of in ((swap, of), (of, to), (to, swap)):
        memory = z3.Store(memory, into, memory[out_of])
    return memory


def one_source_twice() -> list[Question]:
    """Two exchanges that share a source: the second finds there what the first one put back."""
    z3 = solver_library()
    d0, d1, s, swap = z3.BitVecs("d0 d1 s swap", 40)
    first = z3.Array("memory at first", z3.BitVecSort(40), z3.BitVecSort(8))
    now = exchanged(z3, first, d0, s, swap)
    now = exchanged(z3, now, d1, s, swap)
    right = z3.And(now[d0] == first[s], now[d1] == first[s])
    return [Question("a source twice", (z3.Distinct(d0, d1, s, swap),), right, (d0, d1, s))]
