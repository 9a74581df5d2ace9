"""Theorem 1: page_table_a is right for all V and P, and where P cannot be at all.

    only-v-and-p            by enumeration of index-coincidence classes, on tokens    no solver
    only-v-and-p-symbolic   by z3, on symbolic addresses and frames
    bits                    what the tokens take for granted about bits
    identity-limit          below which limit a physical address is a linear address, too
    identity-for-all        that every physical address is one: false for PAE and 4 levels

Rules: `handover.designs.map_twice`, the function that ships, is what runs; `x86.walk` reads it
back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from tightrope.handover.designs import map_twice
from tightrope.memory import PAGE_SIZE
from tightrope.model import Paging
from tightrope.prove.goal import Answer, Goal, Limits, Result, Script, Undecided
from tightrope.prove.theorems import tables_by_z3
from tightrope.prove.theorems.enumerate import Filler, Wrong, counterexample, every_class
from tightrope.prove.theorems.modes import GEOMETRIES, Geometry
from tightrope.x86.paging import OFFSET, Format, Rights, leaf_bits, table_bits
from tightrope.x86.walk import canonical

THEOREM = "tables"
ENUMERATION = "enumeration"
ONLY_V_AND_P = (
    "V and P lead to P, supervisor, writable, executable, accessed and dirty preset;"
    " no other address is mapped."
)


def goals() -> Iterator[Goal]:
    """Theorem 1 for every mode, and without each of its hypotheses."""
    for mode in Paging:
        yield Goal(
            theorem=THEOREM,
            name="only-v-and-p",
            statement=ONLY_V_AND_P,
            mode=mode,
            design="two-tables",
            decide=partial(by_enumeration, map_twice, mode),
        )
    for mode in Paging:
        yield Goal(
            theorem=THEOREM,
            name="only-v-and-p-symbolic",
            statement="The same, with every address and every frame left open.",
            mode=mode,
            design="two-tables",
            decide=partial(by_z3, map_twice, mode),
            smt=partial(scripts, map_twice, mode),
        )
    for mode in Paging:
        yield Goal(
            theorem=THEOREM,
            name="bits",
            statement="Indices determine the page, slots do not overlap, flags and frame do not mix.",
            mode=mode,
            decide=partial(bits, mode),
        )
    yield from _identities()
    yield from _necessities()


def _identities() -> Iterator[Goal]:
    """Which physical addresses are linear ones, too."""
    for mode in Paging:
        limit = GEOMETRIES[mode].identity_bits
        yield Goal(
            theorem=THEOREM,
            name="identity-limit",
            statement="P has a linear address equal to itself if and only if it is below the mode's"
            " limit (2^32, 2^32, 2^47, 2^52).",
            mode=mode,
            decide=partial(identity, mode, limit),
        )
    for mode in Paging:
        limit, held = GEOMETRIES[mode].identity_bits, GEOMETRIES[mode].frame_bits
        yield Goal(
            theorem=THEOREM,
            name="identity-for-all",
            statement="Every P that an entry can hold has an identity address.",
            mode=mode,
            expected=Answer.HOLDS if limit == held else Answer.FAILS,
            decide=partial(identity, mode, held),
        )


def _necessities() -> Iterator[Goal]:
    """Each hypothesis dropped: the theorem must fail without it."""
    for name, (mode, goal, says) in tables_by_z3.DROPPED.items():
        yield Goal(
            theorem=THEOREM,
            name=f"without-{name}",
            statement=f"{goal if goal != 'other' else 'Any other address'} is as it should be even if"
            f" it is not so that {says}.",
            mode=mode,
            design="two-tables",
            expected=Answer.FAILS,
            decide=partial(needed, name),
        )


def needed(name: str, limits: Limits) -> Result:
    """Theorem 1 without one of its hypotheses."""
    mode, goal, _ = tables_by_z3.DROPPED[name]
    refuted, _ = tables_by_z3.refute(map_twice, mode, goal, limits, without=name)
    return Result(
        answer=Answer.FAILS if refuted else Answer.HOLDS,
        how="z3",
        cases=None,
        counterexample=refuted,
    )


def by_enumeration(filler: Filler, mode: Paging, limits: Limits) -> Result:
    """Every class of (V, P, X).  Raises Undecided when time runs out."""
    started, cases = time.monotonic(), 0
    try:
        for more in every_class(filler, mode):
            cases += more
            limits.progress(f"tables, {mode.value}", cases, 0)
            if time.monotonic() - started > limits.seconds:
                raise Undecided("the enumeration ran out of time")
    except Wrong as wrong:
        concrete = counterexample(filler, mode, wrong)
        if concrete is None:
            raise Undecided(f"no example on numbers: {wrong.problem}") from wrong
        return Result(
            answer=Answer.FAILS,
            how=ENUMERATION,
            cases=cases,
            counterexample=concrete,
            detail=wrong.problem,
        )
    return Result(answer=Answer.HOLDS, how=ENUMERATION, cases=cases)


def by_z3(filler: Filler, mode: Paging, limits: Limits) -> Result:
    """All goals, symbolically.  Raises Undecided and MissingPart."""
    paths = 0
    end = time.monotonic() + limits.seconds
    for goal in _parts(mode):
        left = replace(limits, seconds=end - time.monotonic())
        refuted, walked = tables_by_z3.refute(filler, mode, goal, left)
        paths += len(walked)
        if refuted:
            return Result(
                answer=Answer.FAILS,
                how="z3",
                cases=None,
                counterexample=refuted,
                detail=f"goal {goal}",
            )
    return Result(
        answer=Answer.HOLDS, how="z3", cases=None, detail=f"{paths} paths of builder and walker"
    )


def scripts(filler: Filler, mode: Paging) -> Iterator[Script]:
    """Each goal as a formula for any other solver."""
    for goal in _parts(mode):
        refuted, walked = tables_by_z3.refute(filler, mode, goal, Limits())
        yield tables_by_z3.script(mode, goal, walked, expected="sat" if refuted else "unsat")


def _parts(mode: Paging) -> tuple[str, ...]:
    return tuple(g for g in tables_by_z3.GOALS if g != "load" or mode is Paging.PAE)


# ---------------------------------------------------------------------------------------- bits


def bits(mode: Paging, limits: Limits) -> Result:
    """What `opaque` takes for granted, bit by bit.

    A field is read by shift and mask, so each bit of it is one bit of the word: looking at the
    words with a single bit set is looking at all.  Above the indices a canonical address has copies
    of one bit.
    """
    geometry = GEOMETRIES[mode]
    proved = list(lemmas(geometry, geometry.format))
    problem = next((what for found, what in proved if not found), None)
    return Result(
        answer=Answer.FAILS if problem else Answer.HOLDS,
        how=ENUMERATION,
        cases=len(proved),
        counterexample={"bits": problem} if problem else None,
    )


def lemmas(geometry: Geometry, fmt: Format) -> Iterator[tuple[bool, str]]:
    """(whether it is so, what is wrong if not), for each bit and each constant of a format."""
    levels = range(len(geometry.places))
    if len(fmt.levels) != len(levels):
        yield False, f"{len(fmt.levels)} levels"
        return
    for number in range(12, geometry.linear_bits):
        read = [fmt.index(1 << number, level) for level in levels]
        mine = [(1 << number >> low) & ((1 << width) - 1) for low, width in geometry.places]
        yield read == mine, f"bit {number} is read differently by builder and manual"
        yield sum(map(int.bit_count, read)) == 1, f"bit {number} is in no index, or in two"
    for number in range(geometry.linear_bits, 64 if geometry.linear_bits > 32 else 32):
        read = [fmt.index(1 << number, level) for level in levels]
        yield not any(read), f"bit {number}, a copy of the sign, is in an index"
    for number in range(12):
        yield OFFSET.get(1 << number) == 1 << number, f"bit {number} is not in the offset"
    most = max((1 << width for _, width in geometry.places), default=0)
    yield most * geometry.entry_size <= PAGE_SIZE, "a slot lies beyond its table"
    yield fmt.entry_size == geometry.entry_size, "entries of another size"
    field = (1 << geometry.frame_bits) - PAGE_SIZE
    yield fmt.address.mask == field, "the address field is another"
    yield fmt.virtual_bits == geometry.linear_bits, "linear addresses of another width"
    yield fmt.identity_bits == geometry.identity_bits, "another limit of identity addresses"
    yield fmt.has_nx == (geometry.mode is not Paging.I386), "NX where there is none, or none"
    for choice in product((False, True), repeat=5):
        names = ("writable", "executable", "user", "is_global", "accessed")
        rights = Rights(**dict(zip(names, choice, strict=True)))
        for level in levels:
            flags = leaf_bits(fmt, level, rights) | table_bits(fmt, level, rights)
            yield not flags & field, f"flags {flags:#x} reach into the address"


# ------------------------------------------------------------------------------------ identity


class _Above:
    """A physical address below 2**52 of which is known whether a bit from `shift` up is set."""

    def __init__(self, shift: int, zero: bool) -> None:
        self.shift, self.zero = shift, zero

    def __rshift__(self, bits: int) -> _Above:
        if bits != self.shift:
            raise TypeError(f"an address was shifted by {bits}")
        return self

    def __eq__(self, other: object) -> bool:
        if other not in (0, (1 << 64 - self.shift) - 1):
            raise TypeError("the upper bits were compared with a number")
        return self.zero and other == 0

    def __lt__(self, limit: int) -> bool:
        if limit != 1 << self.shift:
            raise TypeError("an address was compared with a number")
        return self.zero

    __hash__ = None  # type: ignore[assignment]


def identity(mode: Paging, bits: int, limits: Limits) -> Result:
    """Whether the addresses below 2**`bits` are exactly those, of all that fit, that are canonical.

    With `bits` what an entry can hold, that is: whether all are.
    """
    geometry = GEOMETRIES[mode]
    mmu = geometry.strict(0)
    shift = geometry.canonical_shift
    cases = 0
    for zero in (True, False):
        if not zero and shift >= geometry.frame_bits:
            continue  # no frame has a bit there
        cases += 1
        token: Any = _Above(shift, zero)
        # Below the shift nothing is looked at; from it up, `zero` says whether P is below 2**shift.
        wanted = True if bits == geometry.frame_bits else zero == (bits == shift)
        if canonical(token, mmu) != wanted:
            example = 1 << shift
            assert canonical(example, mmu) != wanted
            return Result(
                answer=Answer.FAILS,
                how=ENUMERATION,
                cases=cases,
                counterexample={"P": f"{example:#x}"},
                detail=f"the linear address {example:#x} does not exist",
            )
    return Result(answer=Answer.HOLDS, how=ENUMERATION, cases=cases)
