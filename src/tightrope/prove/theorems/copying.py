"""Theorem 4: the copy, for lists of any length.

    d(0) <- s(0), d(1) <- s(1), ...      pages, in the order of the list

    unique    no page is a destination twice
    rule      a source is its own destination or nobody's            (Linux kimage_alloc_page)
    order     no source is read after an earlier copy wrote it       (follows from the two)
    kept      tables, control page and list are nobody's destination

Rules: induction over the number of copies done, pages as an unspecified sort, so nothing depends on
their size or number.  That REP MOVS is one such copy is a lemma of its own, by induction over its
elements; the emulator's single memmove is covered by the same lemma under its own guard
(observe.watch).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model.proof import Answer, Result
from tightrope.plan.frames import FramePool
from tightrope.prove.goal import Goal, Limits, Script, Undecided
from tightrope.prove.solver import solver_library, written
from tightrope.prove.theorems import exchange
from tightrope.prove.theorems.pages import Pages, Question, Questions

POOL_FRAMES = 7
WIDTHS = (1, 4, 8)


def goals() -> Iterator[Goal]:
    """The goals in the order in which they build on each other."""
    yield _goal(
        "induction",
        "with unique destinations and ordered sources every destination ends with its source's original"
        " bytes, and what is nobody's destination is untouched",
        _induction,
    )
    yield _goal("rule", "the planner's rule and unique destinations give the order", _rule)
    yield _goal(
        "allocation",
        "each way of choosing a source keeps the rule: in place, a frame that is nobody's destination,"
        " and Linux's exchange with a page that is",
        _allocation,
    )
    yield Goal(
        theorem="copy",
        name="pool",
        statement="the planner's pool gives only frames that it was given, and each once",
        decide=_pool,
    )
    for dropped in ("unique", "rule"):
        yield _goal(
            f"without-{dropped}",
            f"two copies are right without the hypothesis {dropped!r}",
            partial(_two_copies, dropped),
            expected=Answer.FAILS,
        )
    yield _goal(
        "without-kept",
        "tables, control page and list stay whole even if one of them is a destination",
        _overwritten,
        expected=Answer.FAILS,
    )
    yield _goal(
        "movs", "REP MOVS over a page, from page to page, is one page copy", partial(_movs, "page")
    )
    yield _goal(
        "movs-unaligned",
        "REP MOVS over 4096 bytes is one copy wherever they lie",
        partial(_movs, "anywhere"),
        expected=Answer.FAILS,
    )
    yield _goal(
        "shortcut",
        "the emulator's one memmove is REP MOVS, for every count, under its guard that source and"
        " destination are at least that far apart",
        partial(_movs, "apart"),
    )
    # Last: z3 numbers its terms as they are made, and with these before it `shortcut` takes twice
    # as long.
    yield _goal(
        "exchange",
        "pages that change places through a third one, as in Linux up to 6.12, end as copies do where"
        " no page is a source twice",
        exchange.induction,
    )
    yield _goal(
        "exchange-source-twice",
        "two exchanges are right although they share a source",
        exchange.one_source_twice,
        expected=Answer.FAILS,
    )


def _goal(name: str, statement: str, questions: Questions, expected: Answer = Answer.HOLDS) -> Goal:
    return Goal(
        theorem="copy",
        name=name,
        statement=statement,
        decide=partial(_decide, questions),
        expected=expected,
        smt=partial(_scripts, name, questions, expected),
    )


def _decide(questions: Questions, limits: Limits) -> Result:
    """All questions, one after the other; the first that fails is the answer."""
    z3 = solver_library()
    deadline = time.monotonic() + limits.seconds
    asked = questions()
    for question in asked:
        solver = _solver(z3, question)
        solver.set("timeout", max(1, int(1000 * (deadline - time.monotonic()))))
        answer = solver.check()
        if answer == z3.unknown:
            raise Undecided(f"{question.name}: {solver.reason_unknown()}")
        if answer == z3.sat:
            return Result(
                answer=Answer.FAILS,
                how="z3",
                cases=None,
                counterexample=_shown(solver.model(), question),
                detail=question.name,
            )
    return Result(answer=Answer.HOLDS, how="z3", cases=None, detail=f"{len(asked)} obligations")


def _solver(z3: Any, question: Question) -> Any:
    solver = z3.Solver()
    solver.add(*question.given)
    solver.add(z3.Not(question.then))
    return solver


def _shown(model: Any, question: Question) -> Mapping[str, str]:
    values = {str(term): model.eval(term, model_completion=True) for term in question.shown}
    return {
        name: f"{value.as_long():#x}" if hasattr(value, "as_long") else str(value)
        for name, value in values.items()
    }


def _scripts(name: str, questions: Questions, expected: Answer) -> Iterator[Script]:
    z3 = solver_library()
    asked = questions()
    for number, question in enumerate(asked, 1):
        # Of a statement that fails, not every question has to.
        fails = expected is Answer.FAILS and _solver(z3, question).check() == z3.sat
        formulas = [*question.given, z3.Not(question.then)]
        answer = "sat" if fails else "unsat"
        yield written(f"copy-{name}-{number}", formulas, answer, logic="ALL")


# ---------------------------------------------------------------------------------- the induction


def _induction() -> list[Question]:
    w = Pages()
    z3 = w.z3
    given = [w.unique(), w.order(), *w.named(), w.n >= 0]
    begun = z3.And(*w.invariant(w.first, z3.IntVal(0)))
    out = [Question("nothing copied yet", tuple(given), begun)]
    after = z3.Store(w.now, w.d(w.k), w.now[w.s(w.k)])
    before = (*given, w.each(w.k), *w.invariant(w.now, w.k))
    names = ("what is done stays right", "later sources stay whole", "the rest is untouched")
    for name, part in zip(names, w.invariant(after, w.k + 1), strict=True):
        out.append(Question(f"one more copy: {name}", before, part))
    all_done = (*given, *w.invariant(w.now, w.n))
    right = z3.ForAll([w.j], z3.Implies(w.each(w.j), w.now[w.d(w.j)] == w.first[w.s(w.j)]))
    whole = z3.ForAll([w.p], z3.Implies(w.kept(w.p), w.now[w.p] == w.first[w.p]))
    out.append(Question("at the end every destination is right", all_done, right))
    out.append(Question("at the end tables, control page and list are whole", all_done, whole))
    return out


def _rule() -> list[Question]:
    w = Pages()
    return [Question("rule and unique give order", (w.unique(), w.rule(), *w.named()), w.order())]


def _allocation() -> list[Question]:
    """One more copy, to a destination `to` that has none yet, from a page that is not in use."""
    w = Pages()
    z3 = w.z3
    used = z3.Function("used", w.page, z3.BoolSort())
    got, to = z3.Consts("got to", w.page)
    other = z3.Int("other")
    sources = z3.ForAll([w.i], z3.Implies(w.each(w.i), used(w.s(w.i))))
    apart = z3.And(w.each(w.i), w.each(w.j), w.i != w.j)
    distinct = z3.ForAll([w.i, w.j], z3.Implies(apart, w.s(w.i) != w.s(w.j)))
    given = (
        w.rule(), w.unique(), *w.named(), w.is_destination(to), z3.Not(used(got)), sources,
        distinct, w.n >= 0, z3.ForAll([w.i], z3.Implies(w.each(w.i), w.d(w.i) != to)),
    )  # fmt: skip

    def fine(source: Any, destination: Any) -> Any:
        return z3.Or(source == destination, z3.Not(w.is_destination(source)))

    new = z3.ForAll([w.i], z3.Implies(w.each(w.i), w.s(w.i) != got))
    nobody = z3.Not(w.is_destination(got))
    exchange = z3.And(fine(w.s(other), to), z3.Not(w.is_destination(w.s(other))), fine(got, got))
    return [
        Question(
            "a frame that is nobody's destination", (*given, nobody), z3.And(fine(got, to), new)
        ),
        Question("in place", (*given, got == to), fine(got, to)),
        Question(
            "the frame is another copy's destination: that one moves home, its source is free",
            (*given, w.each(other), w.d(other) == got),
            exchange,
        ),
    ]


def _pool(limits: Limits) -> Result:
    """The shipped pool on every set of a few frames, taken in every two portions, both ways."""
    cases = 0
    for count in range(1, POOL_FRAMES + 1):
        for chosen in combinations(range(POOL_FRAMES), count):
            extents = [Extent.sized(frame * PAGE_SIZE, PAGE_SIZE) for frame in chosen]
            for first in range(count + 1):
                for scatter in (None, 1):
                    pool = FramePool(extents, scatter=scatter)
                    parts = [pool.take(first, "a test"), pool.take(count - first, "a test")]
                    got = sorted(np.concatenate(parts).tolist())
                    cases += 1
                    if got != list(chosen):
                        return Result(
                            answer=Answer.FAILS,
                            how="enumeration",
                            cases=cases,
                            counterexample={"free": str(chosen), "given": str(got)},
                        )
        limits.progress("pool", count, POOL_FRAMES)
    return Result(answer=Answer.HOLDS, how="enumeration", cases=cases)


# ------------------------------------------------------------------------------- why they are neede


def _two_copies(dropped: str) -> list[Question]:
    """Two copies of pages with numbers, without one promise: a small counterexample."""
    z3 = solver_library()
    number = z3.BitVecSort(40)
    d, s = ([z3.BitVec(f"{name}{n}", 40) for n in range(2)] for name in "ds")
    first = z3.Array("memory at first", number, z3.BitVecSort(8))
    now = first
    for to, of in zip(d, s, strict=True):
        now = z3.Store(now, to, now[of])
    promises = {
        "unique": d[0] != d[1],
        "rule": z3.And(
            *(z3.Or(s[n] == d[n], z3.And(s[n] != d[0], s[n] != d[1])) for n in range(2))
        ),
    }
    given = tuple(each for name, each in promises.items() if name != dropped)
    right = z3.And(*(now[d[n]] == first[s[n]] for n in range(2)))
    return [Question(f"without {dropped}", given, right, (*d, *s))]


def _overwritten() -> list[Question]:
    z3 = solver_library()
    number = z3.BitVecSort(40)
    d, s, table = z3.BitVecs("d0 s0 table", 40)
    first = z3.Array("memory at first", number, z3.BitVecSort(8))
    now = z3.Store(first, d, first[s])
    return [Question("without kept", (d != s,), now[table] == first[table], (d, s, table))]


# --------------------------------------------------------------------------------------- rep movs


def _movs(where: str) -> list[Question]:
    """After `done` bytes memory is the closed form of that many; one more element keeps it so.

    Elements of 1, 4 and 8 bytes; addresses of 64 bits, which wrap round as the CPU's do.
    """
    z3 = solver_library()
    memory = z3.Array("memory", z3.BitVecSort(64), z3.BitVecSort(8))
    to, of, done, size, off = z3.BitVecs("to of done size off", 64)
    if where == "apart":
        # abs(of - to) >= count * width, addresses as plain numbers below 2^60 (observe.watch).
        low = 1 << 60
        given = [z3.ULE(each, low) for each in (to, of, size)]
        given.append(z3.If(z3.ULE(to, of), z3.UGE(of - to, size), z3.UGE(to - of, size)))
    else:
        given = [size == PAGE_SIZE]
        if where == "page":
            given += [z3.Extract(11, 0, to) == 0, z3.Extract(11, 0, of) == 0]

    # Addresses are told by how far they are from `to`: at = to + off.
    def closed(amount: Any, off: Any) -> Any:
        moved, there = z3.simplify(of + off), z3.simplify(to + off)
        return z3.If(z3.ULT(off, amount), memory[moved], memory[there])

    zero, shown = z3.BitVecVal(0, 64), (to, of, done)
    begun = closed(zero, off) == memory[to + off]
    out = [Question("movs: nothing yet", tuple(given), begun, shown)]
    for width in WIDTHS:
        here = (*given, z3.ULE(done, size - width), z3.UGE(size, width))
        written = [done + byte for byte in range(width)]
        read = [closed(done, of - to + at) for at in written]
        meant = [closed(done + width, at) for at in written]
        if where == "apart":
            out.append(_reads_old(z3, width))
            read = [memory[of + at] for at in written]
        same = z3.And(*(one == other for one, other in zip(read, meant, strict=True)))
        others = z3.And(*(off != at for at in written))
        kept = z3.Implies(others, closed(done, off) == closed(done + width, off))
        element = f"movs of {width} bytes"
        out.append(Question(f"{element}: the bytes of one more", here, same, shown))
        out.append(Question(f"{element}: every other byte", here, kept, shown))
    return out


def _reads_old(z3: Any, width: int) -> Question:
    """What an element reads was not written by an earlier one: asked of plain integers, as the
    guard computes it, because solvers are slow at this with words.
    """
    to, of, done, size = z3.Ints("to of done size")
    given = (
        to >= 0,
        of >= 0,
        done >= 0,
        done + width <= size,
        z3.Or(of - to >= size, to - of >= size),
    )
    behind = [of + done + byte - to for byte in range(width)]
    fresh = z3.And(*(z3.Or(x < 0, x >= done) for x in behind))
    return Question(f"movs of {width} bytes: what is read is old", given, fresh, (to, of, done))
