"""Theorem 2 on the map: for which memory splits and Xen layouts each condition is always met.

    layout   where V can lie, where P can lie, up to where the copy reaches (M)
             0                 PAGE_OFFSET                     4 GiB
             |  P, sources ... |  V: kernel, direct map ... FIX|

    damm-v4        missed where some V and P differ and share a top-level slot
    one-table      missed where some V lies below M
    one-more-slot  missed where some V shares a top-level slot with something below M: the identity
                   map
                   of [0, M) cannot be had whole and finished, with V in an entry of its own

Rules: V, P and M are whole pages; a layout is two extents, so a slot at a time decides it, exactly.
The same is written as a formula.  A miss is reported with a V and a P, the lowest V first, that
miss.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Paging
from tightrope.prove.goal import Answer, Goal, Limits, Result, Script
from tightrope.prove.solver import solver_library, written
from tightrope.prove.theorems.modes import GEOMETRIES

THEOREM = "split"
GIB = 1 << 30
TOP = 4 * GIB
SPLITS = {
    "3G/1G": 0xC000_0000,
    "3G/1G-opt": 0xB000_0000,
    "2G/2G": 0x8000_0000,
    "2G/2G-opt": 0x7800_0000,
    "1G/3G": 0x4000_0000,
    "4G/4G": 0x0200_0000,
}
"""PAGE_OFFSET of each split that arch/x86/Kconfig offers, and of the 4G/4G patch of 2003."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """`virt` and `phys` hold every page that can be V and P; `reach` is M, bytes from 0."""

    name: str
    mode: Paging
    says: str
    virt: Extent
    phys: Extent
    reach: int


def layouts() -> Iterator[Layout]:
    """Linux in 32 bits with each split, in 64 bits, and under Xen."""
    legacy = (Paging.I386, Paging.PAE)
    for name, offset in SPLITS.items():
        for mode in legacy:
            yield Layout(
                name=f"{name}, P below PAGE_OFFSET",
                mode=mode,
                says=f"PAGE_OFFSET is {offset:#x}, V above it, P and the copy below it"
                " (KEXEC_CONTROL_MEMORY_LIMIT = TASK_SIZE)",
                virt=Extent(offset, TOP),
                phys=Extent(0, offset),
                reach=offset,
            )
        for mode in legacy:
            yield Layout(
                name=f"{name}, P anywhere",
                mode=mode,
                says=f"PAGE_OFFSET is {offset:#x}, V above it, P and the copy below 4 GiB",
                virt=Extent(offset, TOP),
                phys=Extent(0, TOP),
                reach=TOP,
            )
    for mode, bits, half in ((Paging.X86_64, 47, 1 << 47), (Paging.LA57, 52, 1 << 56)):
        yield Layout(
            name="negative V",
            mode=mode,
            says=f"V is in the upper half, as all of Linux is; P and the copy are below 2^{bits}",
            virt=Extent((1 << 64) - half, 1 << 64),
            phys=Extent(0, 1 << bits),
            reach=1 << bits,
        )
        yield Layout(
            name="V in the lower half",
            mode=mode,
            says=f"V is where a user process would be; P and the copy are below 2^{bits}",
            virt=Extent(0, half),
            phys=Extent(0, 1 << bits),
            reach=1 << bits,
        )
    for mode in legacy:
        yield Layout(
            name="Xen, fixmap at the top",
            mode=mode,
            says="V is a fixmap in the top 16 MiB, P any machine page below 4 GiB",
            virt=Extent(0xFF00_0000, TOP),
            phys=Extent(0, TOP),
            reach=TOP,
        )
    yield Layout(
        name="Xen, the hypervisor's half",
        mode=Paging.X86_64,
        says="V is in slots 256 to 271, which a guest leaves to Xen; P is any page below 2^47",
        virt=Extent(0xFFFF_8000_0000_0000, 0xFFFF_8800_0000_0000),
        phys=Extent(0, 1 << 47),
        reach=1 << 47,
    )


CONDITIONS = {
    "damm-v4": "damm-v4 leads V to P.",
    "one-table": "one table can lead V to P and all below M to itself.",
    "one-more-slot": "V has a top-level slot that the identity map of all below M leaves free.",
}


def goals() -> Iterator[Goal]:
    """Each condition on each layout; what is expected is written down in EXPECTED."""
    for condition, says in CONDITIONS.items():
        for layout in layouts():
            met = layout.name in MET[condition].get(layout.mode, ())
            yield Goal(
                theorem=THEOREM,
                name=f"{condition}: {layout.name}",
                statement=f"{layout.says}: {says}",
                mode=layout.mode,
                design="damm-v4" if condition == "damm-v4" else "one-table",
                expected=Answer.HOLDS if met else Answer.FAILS,
                decide=partial(decide, condition, layout),
                smt=partial(scripts, condition, layout),
            )


_BELOW = tuple(f"{name}, P below PAGE_OFFSET" for name in SPLITS)
_WHOLE_GIB = tuple(
    f"{name}, P below PAGE_OFFSET" for name, offset in SPLITS.items() if offset % GIB == 0
)
_UPPER = ("negative V", "Xen, the hypervisor's half")
MET: dict[str, dict[Paging, tuple[str, ...]]] = {
    "damm-v4": {
        # Every split is a multiple of 4 MiB, what a PD entry spans; not of 1 GiB, what a PDPTE
        # does.
        Paging.I386: _BELOW,
        Paging.PAE: _WHOLE_GIB,
        Paging.X86_64: _UPPER,
        Paging.LA57: _UPPER,
    },
    "one-table": {
        Paging.I386: _BELOW,
        Paging.PAE: _BELOW,
        Paging.X86_64: _UPPER,
        Paging.LA57: _UPPER,
    },
    "one-more-slot": {
        Paging.I386: _BELOW,
        Paging.PAE: _WHOLE_GIB,
        Paging.X86_64: _UPPER,
        Paging.LA57: _UPPER,
    },
}
"""Where each condition is always met; on every other layout it can be missed."""


def decide(condition: str, layout: Layout, limits: Limits) -> Result:
    """Slot by slot: the lowest V and P that miss the condition, or that there are none."""
    miss, cases = missed(condition, layout)
    if miss is None:
        return Result(
            answer=Answer.HOLDS,
            how="enumeration",
            cases=cases,
            detail="the lowest V" if condition == "one-table" else "no top-level slot in common",
        )
    virt, phys = miss
    other = "P" if condition == "damm-v4" else "x"
    return Result(
        answer=Answer.FAILS,
        how="enumeration",
        cases=cases,
        counterexample={"V": f"{virt:#x}", other: f"{phys:#x}"},
        detail="V is lost at step 2"
        if condition == "damm-v4"
        else "the table cannot be filled, step 0",
    )


def missed(condition: str, layout: Layout) -> tuple[tuple[int, int] | None, int]:
    """(V, P) or (V, an address below M) that miss a condition,
    and how many slots were looked at.
    """
    if condition == "one-table":
        # V = P is no conflict, but there are other P.
        hit = layout.virt.start
        return ((hit, hit) if hit < layout.reach else None), 1
    span = 1 << GEOMETRIES[layout.mode].places[0][0]
    other = layout.phys if condition == "damm-v4" else Extent(0, layout.reach)
    cases = 0
    first = max(layout.virt.start, other.start) // span
    last = min(layout.virt.end - 1, other.end - 1) // span
    for slot in range(first, last + 1):
        cases += 1
        inside = Extent(slot * span, (slot + 1) * span)
        virt, phys = _cut(layout.virt, inside), _cut(other, inside)
        if condition != "damm-v4":
            return (virt.start, phys.start), cases
        for v in (virt.start, virt.end - PAGE_SIZE):
            for p in (phys.end - PAGE_SIZE, phys.start):
                if v != p:
                    return (v, p), cases
    return None, max(cases, 1)


def _cut(one: Extent, other: Extent) -> Extent:
    return Extent(max(one.start, other.start), min(one.end, other.end))


def scripts(condition: str, layout: Layout) -> Iterator[Script]:
    """ "Some V and P of the layout miss it" as a formula; the top-level indices by Extract."""
    z3 = solver_library()

    virt, other = z3.BitVecs("V other", 64)
    low, width = GEOMETRIES[layout.mode].places[0]

    def inside(term: object, extent: Extent) -> object:
        last = z3.BitVecVal(extent.end - 1, 64)
        return z3.And(z3.UGE(term, z3.BitVecVal(extent.start, 64)), z3.ULE(term, last))

    def slot(term: object) -> object:
        return z3.Extract(low + width - 1, low, term)

    reach = layout.phys if condition == "damm-v4" else Extent(0, layout.reach)
    given = [inside(virt, layout.virt), inside(other, reach)]
    given += [z3.Extract(11, 0, term) == 0 for term in (virt, other)]
    if condition == "one-table":
        given.append(virt == other)
    else:
        given.append(slot(virt) == slot(other))
    if condition == "damm-v4":
        given.append(virt != other)
    miss, _ = missed(condition, layout)
    words = "".join(c if c.isalnum() else "-" for c in layout.name.lower())
    name = f"split-{condition}-{layout.mode.value}-{words}"
    while "--" in name:
        name = name.replace("--", "-")
    yield written(name, given, "unsat" if miss is None else "sat")
