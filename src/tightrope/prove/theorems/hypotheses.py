"""What the theorems take for granted, checked on one handover.

    @hypothesis     the theorems that need it, and who sees to it in every run: rules of `check` by
                    their id, rules of `plan` by the dotted name of what keeps them
    goals(built)    each on one concrete handover; docs/proof.md has the same list

Rules: a hypothesis is looked at through another door than the one that made it so: tables are
walked, the list is followed from memory.  Arrays are compared as arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from tightrope.check.page_list import Copies, follow, order
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Handover, Tables
from tightrope.prove.goal import Answer, Goal, Limits, Result
from tightrope.prove.theorems.modes import GEOMETRIES, NXE
from tightrope.x86.cpu import CR0_NW, CR0_PE, CR0_PG, CR4_LASS, RFLAGS_TF
from tightrope.x86.survey import survey
from tightrope.x86.walk import Access, Mmu, Refused, canonical, entries_in, walk

THEOREM = "plan"
Frames = NDArray[np.int64]
Problem = str | None
Asks = Callable[[Handover], Problem]


@dataclass(frozen=True, kw_only=True, slots=True)
class Hypothesis:
    """`kept_by` are ids of check rules,
    or dotted names below tightrope of what keeps it in a plan.
    """

    name: str
    says: str
    theorems: tuple[int, ...]
    kept_by: tuple[str, ...]
    problem: Callable[[Handover], Problem]


HYPOTHESES: list[Hypothesis] = []
"""In the order in which the chain uses them."""


def hypothesis(theorems: tuple[int, ...], *kept_by: str) -> Callable[[Asks], Asks]:
    """What a function asks of a handover is a hypothesis: its name, and its docstring says it."""

    def known(ask: Asks) -> Asks:
        HYPOTHESES.append(
            Hypothesis(
                name=ask.__name__.replace("_", "-"),
                says=" ".join((ask.__doc__ or "").split()),
                theorems=theorems,
                kept_by=kept_by,
                problem=ask,
            )
        )
        return ask

    return known


def goals(built: Handover) -> Iterator[Goal]:
    """Each hypothesis, on one handover."""
    for each in HYPOTHESES:
        yield Goal(
            theorem=THEOREM,
            name=each.name,
            statement=each.says,
            mode=built.host.paging,
            design=built.design,
            decide=partial(_decide, each, built),
        )


def _decide(hypothesis: Hypothesis, built: Handover, limits: Limits) -> Result:
    problem = hypothesis.problem(built)
    return Result(
        answer=Answer.FAILS if problem else Answer.HOLDS,
        how="this plan",
        cases=1,
        counterexample={"plan": problem} if problem else None,
        detail="" if problem else f"in every run: {', '.join(hypothesis.kept_by)}",
    )


# ---------------------------------------------------------------------------------- what is asked


def _mmu(built: Handover, tables: Tables) -> Mmu:
    host = built.host
    mmu = GEOMETRIES[host.paging].strict(int(tables.root))
    # A CPU without NX has it reserved.
    efer = mmu.efer if host.cpu.nx else mmu.efer & ~NXE
    return replace(mmu, efer=efer, physical_bits=host.cpu.physical_bits)


def _list(built: Handover) -> Copies:
    """The list as it lies in memory, followed from its head."""
    pages = {int(p.phys): p.data for p in built.pieces if len(p.data) == PAGE_SIZE}
    word = 8 if built.host.paging.long_mode else 4
    return follow(built.registers.general["rdi"], pages, word=word)


def _trees(built: Handover) -> list[Tables]:
    trees = [built.page_table_a, built.page_table_b]
    return [each for number, each in enumerate(trees) if each and each not in trees[:number]]


def _tables(built: Handover) -> list[int]:
    return [int(frame) for each in _trees(built) for frame in each.pages]


def _first(values: Frames) -> Problem:
    return f"{int(values[0]) << 12:#x}" if len(values) else None


@hypothesis((1, 5), "table-a-maps-v", "host.profile.read")
def v_canonical(built: Handover) -> Problem:
    """V is page aligned, and a linear address of the mode."""
    virt = int(built.intent.relocation)
    good = virt % PAGE_SIZE == 0 and canonical(virt, _mmu(built, built.page_table_a))
    return None if good else f"V = {virt:#x}"


@hypothesis((1, 5), "table-a-maps-p", "plan.prepare.prepare")
def p_identity(built: Handover) -> Problem:
    """P is page aligned, and below the limit of addresses that are linear ones, too."""
    phys = int(built.intent.control_page)
    limit = 1 << GEOMETRIES[built.host.paging].identity_bits
    return None if phys % PAGE_SIZE == 0 and phys < limit else f"P = {phys:#x}"


@hypothesis((1, 5), "reserved-bits", "plan.frames.FramePool", "x86.tables.TableStore.new_table")
def frames_distinct(built: Handover) -> Problem:
    """The frames of the tables are pages below MAXPHYADDR, all different, and P is none of them;
    they are zeroed.
    """
    frames = _tables(built)
    limit = 1 << built.host.cpu.physical_bits
    for frame in frames:
        if frame % PAGE_SIZE or frame >= limit or frame == built.intent.control_page:
            return f"the table at {frame:#x}"
    return None if len(set(frames)) == len(frames) else "a frame is two tables"


@hypothesis((1, 5), "table-a-maps-v", "plan.frames.FramePool")
def root_in_cr3(built: Handover) -> Problem:
    """The root of page_table_a fits into CR3: below 4 GiB outside long mode."""
    root = int(built.page_table_a.root)
    return None if built.host.paging.long_mode or root < 1 << 32 else f"root {root:#x}"


@hypothesis((3, 5), "same-bytes", "handover.build.build")
def same_bytes(built: Handover) -> Problem:
    """The control page is the old kernel's page at V, byte for byte."""
    wanted = Extent.sized(built.world.code_phys, PAGE_SIZE)
    control = next((p.data for p in built.pieces if p.phys == built.intent.control_page), None)
    if control is None:
        return "there is no control page"
    if wanted.start == built.intent.control_page:
        return None  # the old kernel calls the control page itself, through its direct map
    there = next((p for p in built.world.pieces if p.extent.covers(wanted)), None)
    if there is None:
        return f"nothing lies at {wanted.start:#x}, behind V"
    at = wanted.start - there.phys
    same = bytes(there.data[at : at + PAGE_SIZE]) == bytes(control)
    return None if same else f"the page behind V, at {wanted.start:#x}, is another"


@hypothesis((3, 5), "code-stays", "tlb-agreement", "world.lay")
def v_mapped(built: Handover) -> Problem:
    """The old kernel's tables, and so every old translation of V, lead V to that page."""
    registers, world = built.registers, built.world
    mmu = registers.mmu(built.host.cpu)
    got = walk(entries_in(world.tables), mmu, built.intent.relocation, Access.FETCH)
    if isinstance(got, Refused):
        return got.reason
    return None if got.phys == world.code_phys else f"V leads to {got.phys:#x}"


@hypothesis((4, 5), "list-ends", "plan.page_list.chained")
def list_ends(built: Handover) -> Problem:
    """The page list can be followed to IND_DONE."""
    return _list(built).problem


@hypothesis((4,), "list-covers", "source-intact")
def unique(built: Handover) -> Problem:
    """No page is a destination twice."""
    found = _list(built)
    again = order(found.destinations, found.sources).twice
    return _first(found.destinations[again])


@hypothesis((4,), "source-intact", "plan.frames.FramePool")
def source_rule(built: Handover) -> Problem:
    """A page that is a source is its own destination or nobody's."""
    found = _list(built)
    late = order(found.destinations, found.sources).strict
    return _first(found.sources[late])


@hypothesis((4, 5), "control-page-kept", "plan.frames.FramePool")
def control_page_kept(built: Handover) -> Problem:
    """The control page is nobody's destination."""
    return _among(built, [int(built.intent.control_page)])


@hypothesis((4, 5), "tables-kept", "plan.frames.FramePool")
def tables_kept(built: Handover) -> Problem:
    """No page table is a destination."""
    return _among(built, _tables(built))


@hypothesis((4, 5), "list-kept", "plan.frames.FramePool")
def list_kept(built: Handover) -> Problem:
    """No page of the page list is a destination."""
    return _among(built, [int(each) for each in built.page_list])


def _among(built: Handover, addresses: list[int]) -> Problem:
    frames = np.asarray(addresses, np.int64) >> 12
    return _first(frames[np.isin(frames, _list(built).destinations)])


@hypothesis((5,), "table-b-covers", "table-b-identity", "plan.prepare.prepare")
def reachable(built: Handover) -> Problem:
    """After step 5 the control page, the list, every source and destination and the entry are
    reached at their own addresses.
    """
    found = _list(built)
    moved = found.sources != found.destinations
    plan = built.intent
    single = [int(plan.control_page), int(plan.entry), *(int(each) for each in built.page_list)]
    frames = np.concatenate(
        [found.destinations[moved], found.sources[moved], np.asarray(single, np.int64) >> 12]
    )
    table_b = built.page_table_b
    if table_b is None:
        return _first(frames[frames >= 1 << 20])
    mapped = survey(table_b.pages.get, _mmu(built, table_b))
    same = mapped.virt.astype(np.int64) == mapped.phys.astype(np.int64)
    start = mapped.virt.astype(np.int64)[same] >> 12
    end = start + (mapped.size.astype(np.int64)[same] >> 12)
    by_start = np.argsort(start)
    start, end = start[by_start], end[by_start]
    if not len(start):
        return "page_table_b maps nothing to itself"
    at = np.searchsorted(start, frames, side="right") - 1
    inside = (at >= 0) & (frames < end[np.maximum(at, 0)])
    return _first(frames[~inside])


@hypothesis((5,), "legal-writes", "host.consistency.check")
def old_state(built: Handover) -> Problem:
    """The old kernel runs with paging and protection on, in a state that the CPU allows, and
    does not single-step.
    """
    registers = built.registers
    if registers.cr0 & (CR0_PG | CR0_PE) != CR0_PG | CR0_PE or registers.cr0 & CR0_NW:
        return f"CR0 = {registers.cr0:#x}"
    if registers.cr4 & CR4_LASS and not int(built.intent.relocation) >> 63:
        return f"CR4.LASS is set, and V = {int(built.intent.relocation):#x} is in the lower half"
    return "RFLAGS.TF is set" if registers.rflags & RFLAGS_TF else None


@hypothesis((4,), "current-pgd-kept", "crash-region-only")
def pgd_kept(built: Handover) -> Problem:
    """In a crash nothing that is written is a page table of the old kernel's."""
    if not built.intent.crash:
        return None
    written = {int(piece.phys) for piece in built.pieces} | set(_tables(built))
    hit = written & {int(frame) for frame in built.world.tables}
    return f"{min(hit):#x}" if hit else None
