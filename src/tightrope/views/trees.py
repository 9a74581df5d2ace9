"""The page tables of a handover, each as the ranges that it maps, and what lies in every one.

    V 0xffffffff9ac01000  0x100011000  4 KiB  rwx  the control page
    where its entries lie: PT 2      because of: V, where the relocation code is called

Rules: read from the tables' own bytes, by the sweep that the rules use too; what lies there is said
by the plan, the host and the handover; why it is mapped by the plan, which asks for it.  Linear
addresses are sign-extended; sizes are bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Handover
from tightrope.model.sheet import Column, Line, Section, Sheet, Table, Text
from tightrope.views import words
from tightrope.views.entries import Entries, Lying
from tightrope.views.view import View
from tightrope.x86.ranges import runs
from tightrope.x86.survey import Mappings, survey

MOST = 200
"""Ranges of one tree that are listed before the rest is only counted."""
CALLED = "V, where the relocation code is called"
FEW, REASONS = 3, 12
"""Names of what lies in a range, and reasons for it, before the rest is only counted."""
UNASKED = "nothing that the plan asks for"
_RIGHTS = ("w", "x", "u", "g")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reach:
    """[virt, virt + size) is [phys, phys + size); `rights` as `pgd` writes them."""

    virt: int
    phys: int
    size: int
    rights: str
    holds: str
    """What lies there: a noun phrase for reports."""
    entries: tuple[Lying, ...]
    """In which pages of table its entries lie."""
    because: str
    """What the plan asks to have mapped there; nothing where it does not ask, and in the old
    kernel's own tables, which are as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """One tree of page tables; `made` for the walk, or the old kernel's own."""

    name: str
    made: bool
    root: int
    pages: int
    reaches: tuple[Reach, ...]


def trees(built: Handover) -> tuple[Tree, ...]:
    """The current pgd, page_table_a and page_table_b, as far as they are trees of their own."""
    frames: dict[int, memoryview] = dict(built.world.tables)
    named: list[tuple[str, int, Mapping[int, memoryview]]] = [
        ("the current pgd", built.world.pgd, built.world.tables)
    ]
    for name, tables in (
        ("page_table_a", built.page_table_a),
        ("page_table_b", built.page_table_b),
    ):
        if tables is not None and tables.root not in {root for _, root, _ in named}:
            named.append((name, tables.root, tables.pages))
            frames.update(tables.pages)
    known, asked = Known(_lying(built)), Known(_asked(built))
    return tuple(_tree(built, known, asked, frames, *each) for each in named)


def _tree(
    built: Handover,
    known: Known,
    asked: Known,
    frames: Mapping[int, memoryview],
    name: str,
    root: int,
    pages: Mapping[int, memoryview],
) -> Tree:
    mmu = built.registers.mmu(built.host.cpu, root=root)
    found = survey(frames.get, mmu)
    order = np.argsort(found.virt, kind="stable")
    rights = _bits(found)[order]
    merged = runs(found.virt[order], found.phys[order], found.size[order], rights)
    entries = Entries(found.virt[order], found.size[order], mmu.ladder)
    made = root != built.world.pgd
    v = Extent.sized(built.intent.relocation, PAGE_SIZE)
    reaches = tuple(
        Reach(
            virt=virt,
            phys=phys,
            size=last + 1 - virt,
            rights="r" + "".join(c if bit >> n & 1 else "-" for n, c in enumerate(_RIGHTS)),
            holds=known.within(Extent.sized(phys, last + 1 - virt)),
            entries=entries.within(virt, last + 1 - virt),
            because=_because(asked, Extent(virt, last + 1), phys, v) if made else "",
        )
        for virt, last, phys, bit in zip(
            merged.virt.tolist(),
            merged.last.tolist(),
            merged.phys.tolist(),
            merged.rights.tolist(),
            strict=True,
        )
    )
    return Tree(name=name, made=made, root=root, pages=len(pages), reaches=reaches)


def _bits(found: Mappings) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    columns = (found.writable, found.executable, found.user, found.is_global)
    out = np.zeros(len(found.virt), np.uint8)
    for number, column in enumerate(columns):
        out |= column.astype(np.uint8) << np.uint8(number)
    return out


class Known:
    """What lies where.  Pieces are many, and ranges too: each is asked for in one go."""

    def __init__(self, named: Iterable[tuple[Extent, str]]) -> None:
        """All that has a name, the most telling first."""
        out = list(named)
        self._names = [what for _, what in out]
        self._starts = np.array([each.start for each, _ in out], np.uint64)
        self._ends = np.array([each.end for each, _ in out], np.uint64)

    def within(self, extent: Extent, *, most: int = FEW, comma: str = ", ") -> str:
        """The names of what lies in an extent, `most` of them, and how many more."""
        start, end = np.uint64(extent.start), np.uint64(extent.end)
        there = np.maximum(self._starts, start) < np.minimum(self._ends, end)
        names = dict.fromkeys(self._names[number] for number in np.flatnonzero(there).tolist())
        more = len(names) - most
        return comma.join(list(names)[:most]) + (f" and {more} more" if more > 0 else "")


def _lying(built: Handover) -> Iterator[tuple[Extent, str]]:
    """What lies where: physical addresses."""
    host, intent = built.host, built.intent
    yield Extent.sized(intent.control_page, PAGE_SIZE), "the control page"
    yield from ((each.extent, each.what) for each in built.pieces)
    yield from ((each.destination, each.name) for each in intent.segments)
    yield from ((each.extent, each.what) for each in intent.identity)
    yield Extent.sized(host.text.phys, host.text.size), "the old kernel's image"
    yield from ((each.extent, each.what) for each in (*host.busy, *host.firmware))


def _asked(built: Handover) -> Iterator[tuple[Extent, str]]:
    """What has to be mapped to itself, and why."""
    yield from ((each.extent, each.what) for each in built.needed_b)


def _because(asked: Known, virt: Extent, phys: int, v: Extent) -> str:
    """Why a range is in tables that were made for the walk."""
    itself = asked.within(virt, most=REASONS, comma="; ") if virt.start == phys else ""
    return "; ".join(filter(None, (CALLED if v.overlaps(virt) else "", itself)))


def sections(built: Handover) -> Iterator[Section]:
    """Tables for each tree of a handover: what it maps, then where and why."""
    for tree in trees(built):
        yield _listed(tree, detail=True)
        yield from _provenance(tree)


def _listed(tree: Tree, *, detail: bool) -> Section:
    title = (
        f"{tree.name} at {tree.root:#x}: {words.count(tree.pages, 'page')} of table,"
        f" {words.count(len(tree.reaches), 'range')}"
    )
    rows = tuple(
        (
            f"{each.virt:#x}",
            f"{each.phys:#x}",
            words.size(each.size),
            each.rights,
            each.holds,
        )
        for each in tree.reaches[:MOST]
    )
    more = len(tree.reaches) - len(rows)
    rest = (Line(f"and {more:,} more"),) if more else ()
    return Section(title, (Table(columns=COLUMNS, rows=rows, indent=2), *rest), detail=detail)


def _provenance(tree: Tree) -> Iterator[Section]:
    """Which table a range's entries lie in, and for what reason it is mapped."""
    if not tree.made:
        return
    rows = tuple(
        (
            f"{each.virt:#x}",
            words.size(each.size),
            ", ".join(map(str, each.entries)),
            each.because or UNASKED,
        )
        for each in tree.reaches[:MOST]
    )
    title = f"{tree.name}: in which table a range's entries lie, and why it is mapped"
    yield Section(title, (Table(columns=PROVENANCE, rows=rows, indent=2),), detail=True)


COLUMNS = (
    Column(heads=("linear",), width=18, right=True),
    Column(heads=("physical",), width=14, right=True),
    Column(heads=("size",), width=10, right=True, gap=2),
    Column(heads=("rights",), width=6, gap=2),
    Column(heads=("what lies there",), width=15, gap=2),
)


PROVENANCE = (
    Column(heads=("linear",), width=18, right=True),
    Column(heads=("size",), width=10, right=True, gap=2),
    Column(heads=("entries in",), width=12, gap=2),
    Column(heads=("because of",), width=15, gap=2),
)


def sheet(built: Handover) -> Sheet:
    """All of them; where each range comes from is for who asks for it."""
    found = trees(built)
    shown = [each for tree in found for each in (_listed(tree, detail=False), *_provenance(tree))]
    return Sheet(tuple(shown), headline=headline(built, found))


def headline(built: Handover, found: tuple[Tree, ...]) -> Text:
    """How many trees, and how much they take."""
    pages = sum(each.pages for each in found[1:])
    return (
        f"{words.count(len(found), 'tree')} for {built.intent.image.source} on {built.host.source}:"
        f" {words.count(pages, 'page')} of table made for the walk"
    )


class LyingFacts(TypedDict):
    level: str
    first: int
    last: int


class ReachFacts(TypedDict):
    virt: int
    phys: int
    size: int
    rights: str
    holds: str
    entries: list[LyingFacts]
    because: str


class TreeFacts(TypedDict):
    name: str
    root: int
    pages: int
    ranges: list[ReachFacts]


class TablesFacts(TypedDict):
    """Everything that `tightrope tables --json` prints."""

    image: str
    host: str
    trees: list[TreeFacts]


def facts(built: Handover) -> TablesFacts:
    """The same for programs; all ranges, however many."""
    return {
        "image": built.intent.image.source,
        "host": built.host.source,
        "trees": [
            {
                "name": tree.name,
                "root": tree.root,
                "pages": tree.pages,
                "ranges": [
                    {
                        "virt": each.virt,
                        "phys": each.phys,
                        "size": each.size,
                        "rights": each.rights,
                        "holds": each.holds,
                        "entries": [
                            {"level": lying.level, "first": lying.first, "last": lying.last}
                            for lying in each.entries
                        ],
                        "because": each.because,
                    }
                    for each in tree.reaches
                ],
            }
            for tree in trees(built)
        ],
    }


VIEW = View(name="tables", version=1, shape=TablesFacts, sheet=sheet, facts=facts)
