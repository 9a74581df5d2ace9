"""A filler of page_table_a, run on every way in which the indices of V, P and a third address
coincide.

    filler(V, P)  --2**levels classes-->  walk V, walk P     every access, every set of protections
                  --5**levels classes-->  walk X                  an address in neither page

Rules: the filler and `x86.walk` run unchanged, on tokens.  A failing class is made concrete, and
run once more on numbers through `TableStore` and the walker: a counterexample is addresses that
really fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

from tightrope.memory import PAGE_SIZE
from tightrope.model import Paging
from tightrope.prove.theorems.modes import GEOMETRIES, Geometry
from tightrope.prove.theorems.opaque import Address, Located, TokenTables, others, pairs
from tightrope.x86.paging import Format, TableMemory
from tightrope.x86.survey import survey
from tightrope.x86.tables import TableStore
from tightrope.x86.walk import Access, Mmu, Refused, Translated, entries_in, walk

Filler = Callable[[TableMemory, Format, int, int, int, Callable[[], int]], None]
"""(tables, format, root, V, P, new_table): what `handover.designs.map_twice` is."""
Names = tuple[str, ...]
UNCACHED, LEAF_PAT, USER = 0x18, 0x80, 0x4
"""PCD and PWT, and PAT in the entry of a 4 KiB page (SDM 4.9.2), and U/S."""
BREAKS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a filler may raise that is not fit to run; none of them is an answer."""


class Wrong(Exception):
    """A class of addresses for which a filler does not do what the theorem says."""

    def __init__(self, virt: Names, phys: Names, problem: str) -> None:
        super().__init__(problem)
        self.virt, self.phys, self.problem = virt, phys, problem


def filled(
    filler: Filler, geometry: Geometry, fmt: Format, virt: Names, phys: Names, bits: int
) -> tuple[TokenTables, Address, Address]:
    """The entries that a filler writes for one class; tables, V and P.
    Raises what the filler does.
    """
    tables: Any = TokenTables(geometry, bits)
    v: Any = Address("V", geometry, virt, bits)
    p: Any = Address("P", geometry, phys, bits)
    filler(tables, fmt, tables.root, v, p, tables.new_table)
    return tables, v, p


def every_class(filler: Filler, mode: Paging, fmt: Format | None = None) -> Iterator[int]:
    """Yields the cases of one class of (V, P) after the other.
    Raises Wrong at the first that fails.
    """
    for virt, phys in pairs(GEOMETRIES[mode]):
        yield class_holds(filler, mode, virt, phys, fmt)


def class_holds(
    filler: Filler, mode: Paging, virt: Names, phys: Names, fmt: Format | None = None
) -> int:
    """How many cases of one class of (V, P) hold.  Raises Wrong where one does not."""
    geometry = GEOMETRIES[mode]
    try:
        tables, v, p = filled(
            filler, geometry, fmt or geometry.format, virt, phys, geometry.frame_bits
        )
        return (
            _leads(tables, geometry, v, p, v)
            + _leads(tables, geometry, p, p, p)
            + _nothing_else(tables, geometry, v, p)
        )
    except BREAKS as err:
        raise Wrong(virt, phys, f"{type(err).__name__}: {err}") from err


def _leads(tables: Any, geometry: Geometry, v: Address, p: Address, start: Any) -> int:
    cases = 0
    for mmu in geometry.states(tables.root):
        for access in Access:
            cases += 1
            problem = _unlike(walk(tables.read, mmu, start, access), p, start)
            if problem:
                raise Wrong(v.names, p.names, f"{start} ({access.value}): {problem}")
    return cases


def _unlike(got: Translated | Refused, p: Any, start: Any) -> str:
    """What a walk of `start` lacks of the theorem; empty where it is all there."""
    if isinstance(got, Refused):
        return got.reason
    where: Any = got.phys
    if isinstance(where, Located):
        if where.frame is not p or where.offset.of is not start:
            return f"leads to {where.frame}"
    elif where != p | start & 0xFFF:
        return f"leads to {where:#x}"
    wrong = (
        (got.page_size != PAGE_SIZE, f"a page of {got.page_size:#x} bytes"),
        (not got.writable, "not writable"),
        (not got.executable, "not executable"),
        (got.user, "open to user mode"),
        (got.is_global, "global"),
        (got.sets_accessed, "accessed or dirty is not preset"),
        (any(bool(each.entry & UNCACHED) for each in got.visits), "not of PAT's first memory type"),
        (bool(got.visits[-1].entry & LEAF_PAT), "not of PAT's first memory type"),
        (any(bool(each.entry & USER) for each in got.visits), "an entry on the way is user's"),
    )
    return next((text for bad, text in wrong if bad), "")


def _nothing_else(tables: Any, geometry: Geometry, v: Address, p: Address) -> int:
    cases = 0
    mmus = (geometry.strict(tables.root), next(geometry.states(tables.root)))
    for names in others(v.names, p.names):
        if names in (v.names, p.names):
            continue
        x: Any = Address("X", geometry, names, geometry.frame_bits)
        for mmu in mmus:
            cases += 1
            got = walk(tables.read, mmu, x, Access.READ)
            if not isinstance(got, Refused):
                raise Wrong(v.names, p.names, "a third address is mapped")
            if got.vector != 14 or got.error_code:
                raise Wrong(v.names, p.names, f"a third address: {got.reason}")
    return cases


# ------------------------------------------------------------------------------------- numbers


def examples(geometry: Geometry, virt: Names, phys: Names) -> Iterator[tuple[int, int]]:
    """Concrete (V, P) of a class: small indices, large ones, and some with one bit apart."""
    top_bits = geometry.identity_bits - geometry.places[0][0]
    for low, apart in ((1, 1), (0, 2), (3, 8), (2, 0x100)):
        p_index, v_index = [], []
        for level, (p_name, v_name) in enumerate(zip(phys, virt, strict=True)):
            width = geometry.places[level][1] if level else min(geometry.places[0][1], top_bits)
            size = 1 << geometry.places[level][1]
            p_index.append((low + level) % (1 << width))
            same = p_name == v_name
            v_index.append(p_index[-1] if same else (p_index[-1] ^ (apart % size or 1)))
        yield geometry.address(v_index), geometry.address(p_index)
    # V in the upper half, and P as high as it can be.
    high = [(1 << bits) - 1 for _, bits in geometry.places]
    p_index = [min(high[0], (1 << top_bits) - 1), *high[1:]]
    v_index = [
        p if p_name == v_name else (h if p != h else h ^ 1)
        for p, h, p_name, v_name in zip(p_index, high, phys, virt, strict=True)
    ]
    yield geometry.address(v_index), geometry.address(p_index)


def fails(
    filler: Filler, mode: Paging, virt: int, phys: int, fmt: Format | None = None
) -> str | None:
    """What is wrong with a filler for two numbers, None where nothing is;
    through bytes and walker.
    """
    for high in (False, True):
        problem = _fails(filler, mode, virt, phys, fmt, high=high)
        if problem:
            return problem
    return None


def _frames(geometry: Geometry, phys: int, *, high: bool) -> Iterator[int]:
    """Frames for tables: the root low, the others low or as high as an entry can hold."""
    first = next(at for at in (0x10_0000, 0x20_0000) if not at <= phys < at + 0x10_0000)
    yield first
    top = (1 << geometry.frame_bits) - PAGE_SIZE
    for number in count(1):
        frame = top - number * PAGE_SIZE if high else first + number * PAGE_SIZE
        if frame != phys:
            yield frame


def _fails(
    filler: Filler, mode: Paging, virt: int, phys: int, fmt: Format | None, *, high: bool
) -> str | None:
    geometry = GEOMETRIES[mode]
    try:
        store = TableStore(fmt or geometry.format, _frames(geometry, phys, high=high).__next__)
        filler(store, fmt or geometry.format, store.root, virt, phys, store.new_table)
    except BREAKS as err:
        return f"{type(err).__name__}: {err}"
    pages = store.pages()

    read = entries_in(pages)
    mmus = (geometry.strict(store.root), next(geometry.states(store.root)))
    for name, start in (("V", virt), ("P", phys)):
        for mmu in mmus:
            for access in Access:
                problem = _unlike(walk(read, mmu, start + 0x123, access), phys, start + 0x123)
                if problem:
                    return f"{name} ({access.value}): {problem}"
    return _too_much(pages, mmus[0], virt, phys)


def _too_much(pages: Mapping[int, memoryview], mmu: Mmu, virt: int, phys: int) -> str | None:
    mapped = set(survey(pages.get, mmu).virt.tolist())
    extra = {at & (1 << 64) - 1 for at in mapped} - {virt, phys}
    return f"{min(extra):#x} is mapped, too" if extra else None


def counterexample(
    filler: Filler, mode: Paging, wrong: Wrong, fmt: Format | None = None
) -> dict[str, str] | None:
    """Addresses of the failing class, or of another, for which the filler fails on numbers, too."""
    geometry = GEOMETRIES[mode]
    for names in ((wrong.virt, wrong.phys), *pairs(geometry)):
        for virt, phys in examples(geometry, *names):
            problem = fails(filler, mode, virt, phys, fmt)
            if problem:
                return {"V": f"{virt:#x}", "P": f"{phys:#x}", "problem": problem}
    return None
