"""Theorem 3: which orders of the switch are safe, whatever the old kernel had mapped and cached.

    A   CR3 = page_table_a, at V         G   clear CR4.PGE: everything cached is dropped
    J   go on at P (the stack is there)  B   CR3 = page_table_b       O   paging off

    linear pages that matter: V, P, and X, a page of the copy (an identity address)
    frames: K the old kernel's page at V, P the control page (same bytes as K), X the copy's,
            Q any other

The maximal TLB.  A walk reads a TLB and never needs it to hold something, so whatever is safe with
more in it is safe with less.  What the manual allows to be cached only grows until something
flushes it (SDM 4.10.2 to 4.10.4).  So one TLB is the worst: all that was ever mapped and not
flushed since.  There is no quantifier over TLBs, and every order runs once against every old table.

Rules: no solver.  The order that ships is read from the routine's bytes, in `shipped_order`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product
from typing import NamedTuple

from tightrope.model import Paging
from tightrope.prove.goal import Answer, Goal, Limits, Result
from tightrope.prove.theorems.order import shipped_order

THEOREM = "switch"
FRAMES = "KPXQ"
WANTED = {"V": "P", "P": "P", "X": "X"}
"""The frame that each linear page has to lead to once page_table_a is loaded."""


class Entry(NamedTuple):
    """A translation: frame and whether it is global."""

    frame: str
    is_global: bool


Tables = Mapping[str, Entry]
TABLE_A: Tables = {"V": Entry("P", False), "P": Entry("P", False)}
TABLE_B: Tables = {"P": Entry("P", False), "X": Entry("X", False)}
ONE_TABLE: Tables = {**TABLE_A, **TABLE_B}
LOADS = {"A": TABLE_A, "B": TABLE_B, "1": ONE_TABLE}


@dataclass(frozen=True, slots=True)
class Assumption:
    """What is taken for granted of the old kernel's tables."""

    name: str
    says: str
    global_identity: bool
    """They may hold a global translation at the linear address P or X."""


ANY = Assumption("any old tables", "whatever the old kernel has mapped", True)
NO_GLOBAL = Assumption(
    "no global identity",
    "if the old kernel has no global translation at P or at a page of the copy",
    False,
)


def old_tables(assumption: Assumption) -> Iterator[Tables]:
    """Every old kernel: V leads to its text or, called through the direct map,
    to the control page.
    """
    globals_ = (False, True)
    low = [None, *(Entry(f, False) for f in FRAMES)]
    if assumption.global_identity:
        low += [Entry(f, True) for f in FRAMES]
    for at_v, is_global, p, x in product("KP", globals_, low, low):
        tables = {"V": Entry(at_v, is_global)}
        tables |= {"P": p} if p else {}
        tables |= {"X": x} if x else {}
        yield tables


class Cpu:
    """Where the code runs and what its TLB may hold at the most."""

    def __init__(self, old: Tables) -> None:
        self.tables: Tables | None = old
        """None with paging off."""
        self.at = "V"
        self.pge = True
        self.switched = False
        self.tlb: set[tuple[str, Entry]] = set()
        self._cache()

    def _cache(self) -> None:
        """Anything that is mapped may be cached at any time, speculatively (SDM 4.10.2.3)."""
        for linear, mapping in (self.tables or {}).items():
            self.tlb.add((linear, Entry(mapping.frame, mapping.is_global and self.pge)))

    def step(self, event: str) -> str | None:
        """One event and the next fetch; what may go wrong, or None."""
        problem = None
        if event in LOADS:
            self.tables = LOADS[event]
            self.switched = True
            # MOV to CR3 keeps global translations (SDM 4.10.4.1).
            self.tlb = {each for each in self.tlb if each[1].is_global}
        elif event == "G":
            self.pge = False
            self.tlb.clear()
        elif event == "O":
            # MOV to CR0 that clears PG drops everything, global or not (SDM 4.10.4.1).
            self.tables = None
            self.tlb.clear()
        elif event == "J":
            # The stack of the far return is at the identity address.
            problem = self._access("P", "the stack")
            self.at = "P"
        elif event == "C":
            problem = self._access("P", "the list") or self._access("X", "the copy")
        self._cache()
        if problem is None and (self.switched or self.at == "P" or self.tables is None):
            problem = self._access(self.at, "the next fetch")
        return f"{event}: {problem}" if problem else None

    def _access(self, linear: str, what: str) -> str | None:
        if self.tables is None:
            return None if linear != "V" else f"{what} at V, with paging off"
        now = self.tables.get(linear)
        if now is None:
            return f"{what} at {linear} is not mapped"
        cached = {mapping.frame for at, mapping in self.tlb if at == linear}
        for frame in sorted(cached | {now.frame}):
            # K holds the same bytes as the control page, but is not to be written.
            twin = what == "the next fetch" and linear == "V" and frame == "K"
            if frame != WANTED[linear] and not twin:
                return f"{what} at {linear} may use frame {frame}"
        return None


def runs(order: str, assumption: Assumption) -> tuple[int, str | None, Tables | None]:
    """How many old tables an order was run against, and the first fall: why, and the old tables."""
    cases = 0
    for old in old_tables(assumption):
        cases += 1
        cpu = Cpu(old)
        for event in f"{order}C":
            problem = cpu.step(event)
            if problem:
                return cases, problem, old
    return cases, None, None


@dataclass(frozen=True, slots=True)
class Question:
    """Which orders of some events are safe; `safe` is the theorem."""

    name: str
    says: str
    events: str
    modes: tuple[Paging, ...]
    design: str
    assumption: Assumption
    safe: tuple[str, ...]


LONG, LEGACY = (Paging.X86_64, Paging.LA57), (Paging.I386, Paging.PAE)


def _questions() -> Iterator[Question]:
    two, one = "two-tables", "one-table"
    rows = (
        ("AGJB", LONG, two, ANY, ("AGJB", "GAJB")),
        ("AGJB", LONG, two, NO_GLOBAL, ("AGJB", "AJBG", "AJGB", "GAJB")),
        ("AJB", LONG, two, ANY, ()),
        ("AJB", LONG, two, NO_GLOBAL, ("AJB",)),
        ("AGJO", LEGACY, two, ANY, ("AGJO", "GAJO")),
        ("AGJO", LEGACY, two, NO_GLOBAL, ("AGJO", "AJGO", "AJOG", "GAJO")),
        ("AJO", LEGACY, two, ANY, ()),
        ("AJO", LEGACY, two, NO_GLOBAL, ("AJO",)),
        ("1GJ", LONG, one, ANY, ("1GJ", "G1J")),
        ("1J", LONG, one, NO_GLOBAL, ("1J",)),
    )
    for events, modes, design, assumption, safe in rows:
        clear = "" if "G" in events else ", PGE never cleared"
        yield Question(
            name=f"orders of {events}, {assumption.name}",
            says=f"Safe {assumption.says}{clear}: {', '.join(safe) or 'no order'}; no other.",
            events=events,
            modes=modes,
            design=design,
            assumption=assumption,
            safe=safe,
        )


def goals() -> Iterator[Goal]:
    """All orders; the thread's own; and the one that ships."""
    for question in _questions():
        for mode in question.modes:
            yield Goal(
                theorem=THEOREM,
                name=question.name,
                statement=question.says,
                mode=mode,
                design=question.design,
                decide=partial(decide, question),
            )
    for mode in Paging:
        last = "B" if mode.long_mode else "O"
        yield Goal(
            theorem=THEOREM,
            name="the thread's order",
            statement="page_table_a, the jump, then step 5, and PGE left alone: safe whatever the old"
            " kernel has mapped.",
            mode=mode,
            design="two-tables",
            expected=Answer.FAILS,
            decide=partial(one_order, f"AJ{last}"),
        )
    for mode in Paging:
        yield Goal(
            theorem=THEOREM,
            name="the order that ships",
            statement="The routine's bytes load page_table_a, clear PGE, jump and do step 5, in an"
            " order that is safe whatever the old kernel has mapped.",
            mode=mode,
            design="two-tables",
            decide=partial(shipped, mode),
        )


def decide(question: Question, limits: Limits) -> Result:
    """Every order of the events against every old table."""
    cases = 0
    safe, why = [], {}
    for events in permutations(question.events):
        order = "".join(events)
        ran, problem, _old = runs(order, question.assumption)
        cases += ran
        if problem is None:
            safe.append(order)
        else:
            why[order] = problem
    if tuple(sorted(safe)) != question.safe:
        return Result(
            answer=Answer.FAILS,
            how="enumeration",
            cases=cases,
            counterexample={"safe orders": ", ".join(sorted(safe)) or "none"},
            detail=str(why),
        )
    return Result(
        answer=Answer.HOLDS,
        how="enumeration",
        cases=cases,
        detail=f"{len(safe)} of {len(safe) + len(why)} orders",
    )


def one_order(order: str, limits: Limits) -> Result:
    """One order whatever the old kernel has mapped."""
    cases, problem, old = runs(order, ANY)
    if problem is None or old is None:
        return Result(answer=Answer.HOLDS, how="enumeration", cases=cases)
    shown = {
        f"old {linear}": f"frame {mapping.frame}{', global' if mapping.is_global else ''}"
        for linear, mapping in old.items()
    }
    return Result(
        answer=Answer.FAILS,
        how="enumeration",
        cases=cases,
        counterexample=shown,
        detail=f"{order}, {problem}",
    )


def shipped(mode: Paging, limits: Limits) -> Result:
    """The order of the routine's own bytes, among the safe ones."""
    order = shipped_order(mode)
    result = one_order(order, limits)
    detail = f"{order}: {result.detail}" if result.detail else order
    return Result(
        answer=result.answer,
        how=result.how,
        cases=result.cases,
        counterexample=result.counterexample,
        detail=detail,
    )
