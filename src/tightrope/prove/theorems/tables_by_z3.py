"""Theorem 1 once more, by a solver: symbolic V, P, frames and offset through builder and walker.

    given:  V canonical and aligned, P aligned and below 2**identity_bits, frames aligned,
            distinct and zeroed, all below 2**MAXPHYADDR, the root of 32-bit modes below 4 GiB
    goals:  "V", "P"    walk(V + o), walk(P + o) = P + o, with the rights of the theorem
            "other"     walk(X) is refused as not present, for X in neither page
            "load"      PAE: the four entries that MOV to CR3 loads have no reserved bit

Rules: nothing of the builder or the walker is written again here; they run on `symbolic.Word`s.
The conditions of all paths and their goals are one formula for any other solver (`script`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tightrope.model import Paging
from tightrope.prove.goal import Limits, Script
from tightrope.prove.solver import solver_library, written
from tightrope.prove.theorems.enumerate import LEAF_PAT, UNCACHED, USER, Filler
from tightrope.prove.theorems.modes import GEOMETRIES, Geometry
from tightrope.prove.theorems.symbolic import Fork, Path, Word, WordTables, values
from tightrope.x86.walk import Access, Refused, load_pdptes, walk

FEWER_BITS = 36
DROPPED = {
    "canonical": (Paging.X86_64, "V", "V is canonical"),
    "identity": (Paging.PAE, "P", "P is below the limit of identity addresses"),
    "distinct": (Paging.I386, "V", "the frames of the tables are distinct"),
    "zeroed": (Paging.I386, "other", "the frames of the tables are zeroed"),
    "root": (Paging.PAE, "V", "the root of a 32-bit mode lies below 4 GiB"),
    "physical": (Paging.PAE, "V", "frames and P are below 2^MAXPHYADDR"),
}
"""Each hypothesis of the theorem, with the mode and the goal that need it."""
GOALS = ("V", "P", "other", "load")
PAGE = (1 << 64) - 4096


class Unknowns:
    """The theorem's variables as z3 terms, and what is given of them.

    Alignment and limits are in the terms' shape: a frame is Concat(0, number, 0).
    """

    def __init__(self, geometry: Geometry, without: str = "") -> None:
        z3 = solver_library()
        self.without = without

        def page(name: str, bits: int) -> Any:
            low = z3.Concat(z3.BitVec(name, bits - 12), z3.BitVecVal(0, 12))
            return z3.simplify(z3.ZeroExt(64 - bits, low))

        small = geometry.linear_bits == 32 and without != "root"
        self.virt = _linear(geometry, "V", aligned=True)
        if without == "canonical":
            self.virt = z3.Concat(z3.BitVec("V", 52), z3.BitVecVal(0, 12))
        self.other = _linear(geometry, "X", aligned=False)
        self.phys_bits = geometry.identity_bits if without != "identity" else geometry.frame_bits
        self.phys = page("P", self.phys_bits)
        self.offset = z3.ZeroExt(52, z3.BitVec("offset", 12))
        numbers = range(2 * len(geometry.places) - 1)
        self.frames = tuple(page(f"frame{number}", geometry.frame_bits) for number in numbers)
        every = [z3.BitVec(f"frame{n}", geometry.frame_bits - 12) for n in numbers]
        self.distinct = [] if without == "distinct" else every
        self.frame_mask = (1 << geometry.frame_bits) - 4096
        page_of_x = self.other & z3.BitVecVal(PAGE, 64)
        self.given = [
            *([z3.ULT(self.frames[0], z3.BitVecVal(1 << 32, 64))] if small else []),
            page_of_x != self.virt,
            page_of_x != self.phys,
        ]


def _linear(geometry: Geometry, name: str, *, aligned: bool) -> Any:
    """A canonical linear address of this mode (SDM vol. 1, 3.3.7.1)."""
    z3 = solver_library()
    bits = geometry.linear_bits
    term = z3.BitVec(name, bits - 12 if aligned else bits)
    if aligned:
        term = z3.Concat(term, z3.BitVecVal(0, 12))
    return z3.simplify((z3.ZeroExt if bits == 32 else z3.SignExt)(64 - bits, term))


def program(filler: Filler, geometry: Geometry, unknowns: Unknowns, goal: str) -> Any:
    """What runs on each path: fill, then walk from where `goal` says;
    its value is the goal's term.
    """

    def run(fork: Fork) -> Any:
        z3 = fork.z3
        frames = [Word(fork, term, unknowns.frame_mask) for term in unknowns.frames]
        zeroed = unknowns.without != "zeroed"
        tables: Any = WordTables(fork, frames if zeroed else [], geometry.entry_size, frames)
        virt: Any = Word(fork, unknowns.virt)
        phys: Any = Word(fork, unknowns.phys, (1 << unknowns.phys_bits) - 4096)
        filler(tables, geometry.format, tables.root, virt, phys, tables.new_table)
        mmu = geometry.strict(tables.root)
        if unknowns.without == "physical":
            mmu = replace(mmu, physical_bits=FEWER_BITS)
        if goal == "other":
            got = walk(tables.read, mmu, Word(fork, unknowns.other), Access.READ)  # type: ignore[arg-type]
            return z3.BoolVal(isinstance(got, Refused) and (got.vector, got.error_code) == (14, 0))
        if goal == "load":
            return z3.BoolVal(not isinstance(load_pdptes(tables.read, mmu), Refused))
        start: Any = (virt if goal == "V" else phys) | Word(fork, unknowns.offset, 0xFFF)
        got = walk(tables.read, mmu, start, Access.WRITE)
        if isinstance(got, Refused):
            return z3.BoolVal(False)
        where: Any = got.phys
        flags = [bool(each.entry & (UNCACHED | USER)) for each in got.visits]
        flags += [bool(got.visits[-1].entry & LEAF_PAT), got.user, got.sets_accessed]
        right = got.writable and got.executable and not any(flags)
        return z3.And(
            right and got.page_size == 4096 and not got.is_global,
            where.term == unknowns.phys + unknowns.offset,
        )

    return run


def refute(
    filler: Filler, mode: Paging, goal: str, limits: Limits, *, without: str = ""
) -> tuple[dict[str, str] | None, list[Path]]:
    """A counterexample or None, and the paths that were walked.  Raises Undecided and MissingPart.

    `without` leaves out one of DROPPED's hypotheses.
    """
    geometry = GEOMETRIES[mode]
    unknowns = Unknowns(geometry, without)
    fork = Fork(unknowns.given, limits.seconds, unknowns.distinct)
    walked: list[Path] = []
    for path, model in fork.paths(program(filler, geometry, unknowns, goal)):
        limits.progress(f"tables, {mode.value}, goal {goal}", len(walked), 0)
        walked.append(path)
        if model is not None:
            named: Mapping[str, Any] = {"V": unknowns.virt, "P": unknowns.phys}
            if without in ("distinct", "root", "physical"):
                named = {**named, **{f"frame {n}": f for n, f in enumerate(unknowns.frames)}}
            if goal == "other":
                named = {**named, "X": unknowns.other}
            return values(model, named), walked
    return None, walked


def script(mode: Paging, goal: str, paths: Sequence[Path], *, expected: str = "unsat") -> Script:
    """All paths of a goal as one formula: some path fails its goal, or no path is taken."""
    unknowns = Unknowns(GEOMETRIES[mode])
    return _script(f"tables-{mode.value}-{goal.lower()}", unknowns, paths, expected)


def _script(name: str, unknowns: Unknowns, paths: Sequence[Path], expected: str) -> Script:
    z3 = solver_library()
    taken = [z3.And(*path.conditions) if path.conditions else z3.BoolVal(True) for path in paths]
    broken = [z3.And(on, z3.Not(path.goal)) for on, path in zip(taken, paths, strict=True)]
    formula = z3.Or(*broken, z3.Not(z3.Or(*taken)))
    return written(name, [*unknowns.given, z3.Distinct(*unknowns.distinct), formula], expected)


def condition_script(filler: Filler, mode: Paging) -> Script:
    """That a filler leads V to P exactly where top-level indices differ or all agree,
    as a formula.
    """
    z3 = solver_library()
    geometry = GEOMETRIES[mode]
    unknowns = Unknowns(geometry)
    fork = Fork(unknowns.given, Limits().seconds, unknowns.distinct)
    right = program(filler, geometry, unknowns, "V")
    same = [
        z3.Extract(low + width - 1, low, unknowns.virt)
        == z3.Extract(low + width - 1, low, unknowns.phys)
        for low, width in geometry.places
    ]
    condition = z3.Or(z3.Not(same[0]), z3.And(*same))
    paths = [Path(path.conditions, path.goal == condition) for path, _ in fork.paths(right)]
    return _script(f"designs-damm-v4-{mode.value}", unknowns, paths, "unsat")
