"""Theorem 2: the exact conditions under which the rival designs are right.

    damm-v4     right if and only if V and P differ in the top-level index, or agree in all
    one-table   right if and only if V is not one of the other pages that it maps to themselves
    in-place    overwrites an entry of the current pgd for every P: no crash dump finds it whole

Rules: the functions that ship fill the tables; a class stands for all addresses that coincide in
the same way, as in theorem 1.  For which memory layouts a condition can be missed is in `splits`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import Any

from tightrope.handover.apart import current
from tightrope.handover.designs import CODE_AND_STACK, write_chains
from tightrope.memory import PAGE_SIZE, Extent, Phys
from tightrope.model import Named, Paging
from tightrope.prove.goal import Answer, Goal, Limits, Result, Script, Undecided
from tightrope.prove.theorems import tables_by_z3
from tightrope.prove.theorems.enumerate import Names, Wrong, class_holds, counterexample
from tightrope.prove.theorems.modes import GEOMETRIES
from tightrope.prove.theorems.opaque import Address, Located, TokenTables, others, pairs
from tightrope.x86.paging import map_page
from tightrope.x86.walk import Access, Refused, walk

THEOREM = "designs"
ENUMERATION = "enumeration"


def goals() -> Iterator[Goal]:
    """Theorem 2's conditions, for every mode."""
    kinds: tuple[tuple[str, str, str, Answer, Callable[[Paging, Limits], Result]], ...] = (
        (
            "damm-v4-always",
            "damm-v4",
            "V leads to P, whatever V and P are.",
            Answer.FAILS,
            damm_v4_always,
        ),
        (
            "damm-v4-condition",
            "damm-v4",
            "It is right if and only if V and P differ in the top-level index, or agree in all;"
            " where it is wrong, V is lost.",
            Answer.HOLDS,
            damm_v4_condition,
        ),
        (
            "one-table-always",
            "one-table",
            "One table leads V to P, and each page X of the copy and P to itself.",
            Answer.FAILS,
            one_table_always,
        ),
        (
            "one-table-condition",
            "one-table",
            "It does so if and only if V is none of those pages, P apart.",
            Answer.HOLDS,
            one_table_condition,
        ),
        (
            "in-place-overwrites",
            "in-place",
            "An entry of the current pgd is overwritten, whatever P is: a crash dump never finds it"
            " whole.",
            Answer.HOLDS,
            in_place_overwrites,
        ),
    )
    for name, design, statement, expected, decide in kinds:
        for mode in Paging:
            yield Goal(
                theorem=THEOREM,
                name=name,
                statement=statement,
                mode=mode,
                design=design,
                expected=expected,
                decide=partial(decide, mode),
                smt=partial(_condition_script, mode) if name == "damm-v4-condition" else None,
            )


# ------------------------------------------------------------------------------------- damm-v4


def damm_v4_always(mode: Paging, limits: Limits) -> Result:
    """The first class that fails, as numbers."""
    cases = 0
    for virt, phys in pairs(GEOMETRIES[mode]):
        cases += 1
        try:
            class_holds(write_chains, mode, virt, phys)
        except Wrong as wrong:
            return Result(
                answer=Answer.FAILS,
                how=ENUMERATION,
                cases=cases,
                counterexample=counterexample(write_chains, mode, wrong),
                detail="the chain of P is written over that of V, step 2",
            )
    return Result(answer=Answer.HOLDS, how=ENUMERATION, cases=cases)


def damm_v4_condition(mode: Paging, limits: Limits) -> Result:
    """Every class is right or wrong as the condition says, and loses V where it is wrong."""
    cases = wrong_classes = 0
    for virt, phys in pairs(GEOMETRIES[mode]):
        cases += 1
        problem = None
        try:
            class_holds(write_chains, mode, virt, phys)
        except Wrong as wrong:
            problem = wrong.problem
        expected = virt[0] != phys[0] or virt == phys
        if (problem is None) != expected or (problem and not problem.startswith("V ")):
            return Result(
                answer=Answer.FAILS,
                how=ENUMERATION,
                cases=cases,
                counterexample={"V": "/".join(virt), "P": "/".join(phys)},
                detail=problem or "the tables are right",
            )
        wrong_classes += problem is not None
    return Result(
        answer=Answer.HOLDS,
        how=ENUMERATION,
        cases=cases,
        detail=f"wrong in {wrong_classes} of {cases} classes of V and P",
    )


def _condition_script(mode: Paging) -> Iterator[Script]:
    """The same by paths of the 2.6.20 filler and the walker, as a formula."""
    yield tables_by_z3.condition_script(write_chains, mode)


# ----------------------------------------------------------------------------------- one-table


def one_table_always(mode: Paging, limits: Limits) -> Result:
    """V = X, as numbers."""
    for virt, phys, other in _triples(mode):
        if not _one_table(mode, virt, phys, other):
            geometry = GEOMETRIES[mode]
            upper = range(1, len(virt))
            p, x = (geometry.address([*upper, last]) for last in (1, 2))
            return Result(
                answer=Answer.FAILS,
                how=ENUMERATION,
                cases=None,
                counterexample={"V": f"{x:#x}", "X": f"{x:#x}", "P": f"{p:#x}"},
                detail="V would have to lead to P and to itself",
            )
    return Result(answer=Answer.HOLDS, how=ENUMERATION, cases=None)


def one_table_condition(mode: Paging, limits: Limits) -> Result:
    """Every class of (V, P, X): identity of X and P first, then V, with the shipped builder."""
    started, cases = time.monotonic(), 0
    for virt, phys, other in _triples(mode):
        cases += 1
        if time.monotonic() - started > limits.seconds:
            raise Undecided("the enumeration ran out of time")
        expected = virt != other or other == phys
        if _one_table(mode, virt, phys, other) != expected:
            names = zip("VPX", (virt, phys, other), strict=True)
            return Result(
                answer=Answer.FAILS,
                how=ENUMERATION,
                cases=cases,
                counterexample={name: "/".join(each) for name, each in names},
            )
    return Result(answer=Answer.HOLDS, how=ENUMERATION, cases=cases)


def _triples(mode: Paging) -> Iterator[tuple[Names, Names, Names]]:
    for virt, phys in pairs(GEOMETRIES[mode]):
        for other in others(virt, phys):
            yield virt, phys, other


def _one_table(mode: Paging, virt: Names, phys: Names, other: Names) -> bool:
    """Whether the tables for one class lead V to P, P to P and X to X."""
    geometry = GEOMETRIES[mode]
    tables: Any = TokenTables(geometry, geometry.frame_bits)
    v, p, x = (
        Address(name, geometry, names, geometry.frame_bits)
        for name, names in zip("VPX", (virt, phys, other), strict=True)
    )
    # X and P are one page where all their indices agree.
    places: tuple[tuple[Any, Any], ...] = ((x, p if other == phys else x), (p, p), (v, p))
    for linear, frame in places:
        map_page(
            tables, geometry.format, tables.root, linear, frame, CODE_AND_STACK, tables.new_table
        )
    mmu = geometry.strict(tables.root)
    for linear, frame in places:
        got = walk(tables.read, mmu, linear, Access.WRITE)
        where: Any = None if isinstance(got, Refused) else got.phys
        if not isinstance(where, Located) or where.frame is not frame:
            return False
    return True


# ------------------------------------------------------------------------------------ in-place


def in_place_overwrites(mode: Paging, limits: Limits) -> Result:
    """Every top-level slot that P can use, and two pgds that have nothing in common."""
    geometry = GEOMETRIES[mode]
    shift = geometry.places[0][0]
    cases = 0
    example = ""
    for slot, fill in product(range(1 << geometry.identity_bits - shift), (0x00, 0xA5)):
        phys = slot << shift | 0x5000
        before = bytes([fill]) * PAGE_SIZE
        after = _pgd_after(mode, phys, before)
        cases += 1
        at = slot * geometry.entry_size
        if after[at : at + geometry.entry_size] == before[at : at + geometry.entry_size]:
            return Result(
                answer=Answer.FAILS,
                how=ENUMERATION,
                cases=cases,
                counterexample={"P": f"{phys:#x}"},
            )
        value = int.from_bytes(after[at : at + geometry.entry_size], "little")
        example = example or f"P = {phys:#x}: entry {slot} becomes {value:#x}, step 1"
    return Result(answer=Answer.HOLDS, how=ENUMERATION, cases=cases, detail=example)


def _pgd_after(mode: Paging, phys: int, before: bytes) -> bytes:
    """What the design makes of a current pgd:
    `handover.apart.current` on no more than it looks at.
    """
    pgd = 0x10_0000
    identity = Named(extent=Extent.sized(phys, PAGE_SIZE), what="the control page")
    private = Extent(pgd, pgd + 0x10_0000)
    host = SimpleNamespace(
        paging=mode,
        direct_map=SimpleNamespace(virt=0),
        cpu=SimpleNamespace(gbpages=True, pse=True),
        private=private,
        source="prove",
    )
    plan: Any = SimpleNamespace(
        paging=mode, host=host, control_page=Phys(phys), relocation=0, identity=(identity,)
    )
    world: Any = SimpleNamespace(
        host=host, pgd=Phys(pgd), tables={pgd: memoryview(before)}, pieces=()
    )
    frames = iter(range(0x20_0000, 0x30_0000, PAGE_SIZE))
    return bytes(current(plan, world, frames).table_a.pages[pgd])
