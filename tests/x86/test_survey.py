"""The survey against the walk: what the one lists is what the other answers, address by address."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.x86.modes import (
    G1,
    K4,
    LA57,
    LMA,
    LME,
    M2,
    M4,
    MODES,
    NXE,
    PAE,
    PGE,
    PS,
    PSE,
    RW,
    US,
    XD,
    A,
    D,
    Frames,
    G,
    Mode,
    P,
)
from tightrope.memory import Extent, union
from tightrope.x86 import few
from tightrope.x86.survey import Mappings, many, survey
from tightrope.x86.walk import Access, Translated, walk

ROOT = 0x1000
EACH = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def rows(found: Mappings) -> list[tuple[int, int, int]]:
    """(virt, phys, size), sorted."""
    columns = (found.virt.tolist(), found.phys.tolist(), found.size.tolist())
    return sorted(zip(*columns, strict=True))


class Tree:
    """Random sparse tables: two tables a level, shared freely, two slots each, no reserved bit."""

    def __init__(self, rng: random.Random, mode: Mode) -> None:
        self.rng, self.mode, self.memory = rng, mode, Frames()
        efer = mode.efer & ~rng.choice((0, NXE))
        cr4 = mode.cr4 & ~rng.choice((0, PGE, PSE, PGE | PSE))
        self.mmu = mode.mmu(ROOT, efer=efer, cr4=cr4, physical_bits=52)
        tables = [[ROOT]] + [
            [ROOT + 0x1000 * (2 * level + which + 1) for which in (0, 1)]
            for level in range(mode.levels - 1)
        ]
        self.slots = [rng.sample(range(1 << bits), 2) for _, bits in mode.places]
        for level, (low, _) in enumerate(mode.places):
            below = tables[level + 1] if level + 1 < mode.levels else []
            for table, slot in product(tables[level], self.slots[level]):
                entry = self.entry(level, 1 << low, below)
                self.memory.put(table + slot * mode.entry_size, entry, mode.entry_size)
        self.missing = {table for table in tables[-1] if rng.random() < 0.1}
        for table in self.missing:
            del self.memory.bytes[table]

    def flags(self, level: int) -> int:
        """Flags that are legal at this level, P aside."""
        if self.mode.name == "pae" and level == 0:
            return 0
        bits = [RW, US, A, D, G]
        if self.mmu.efer & NXE and self.mode.entry_size == 8:
            bits.append(XD)
        return sum(bit for bit in bits if self.rng.random() < 0.6)

    def entry(self, level: int, size: int, below: list[int]) -> int:
        """An entry: absent, a page, or the way to one of the tables below."""
        rng, wide = self.rng, self.mode.entry_size == 8
        flags = self.flags(level)
        if rng.random() < 0.15:
            return flags
        large = size in self.mode.page_sizes and (wide or bool(self.mmu.cr4 & PSE))
        if not below or (large and rng.random() < 0.3):
            frame = rng.randrange(0, 1 << (52 if wide else 32), size)
            frame |= rng.getrandbits(8) << 13 if size == M4 else 0
            return flags | P | frame | (PS if below else rng.choice((0, PS)))
        return flags | P | rng.choice(below)


@EACH
@given(seed=st.integers(0, (1 << 32) - 1))
def test_survey_and_walk_tell_the_same_story(mode: Mode, seed: int) -> None:
    tree = Tree(random.Random(seed), mode)
    found = survey(tree.memory.table, tree.mmu)
    pages: dict[int, int] = {}
    for at, (virt, phys, size) in enumerate(
        zip(found.virt.tolist(), found.phys.tolist(), found.size.tolist(), strict=True)
    ):
        for offset in (0, size - 1):
            got = walk(tree.memory.word, tree.mmu, virt + offset, Access.READ)
            assert isinstance(got, Translated)
            assert (got.phys, got.page_size) == (phys + offset, size)
            assert got.writable == found.writable[at]
            assert got.user == found.user[at]
            assert got.executable == found.executable[at]
            assert got.is_global == found.is_global[at]
        assert virt not in pages
        pages[virt] = size
    candidates = [[*slots, slots[0] ^ 1] for slots in tree.slots]
    for indices in product(*candidates):
        for offset in (0, 0xFFF):
            virt = mode.address(indices, offset)
            if isinstance(walk(tree.memory.word, tree.mmu, virt, Access.READ), Translated):
                assert any(pages.get(virt // size * size) == size for size in mode.page_sizes)
    assert set(found.lost) <= tree.missing


@EACH
@given(seed=st.integers(0, (1 << 32) - 1), entries=st.sampled_from([2, few.FEW, 40]))
def test_a_small_tree_is_read_as_a_large_one_is(mode: Mode, seed: int, entries: int) -> None:
    """Table by table and level by level: the same pages in the same order, and all else."""
    rng = random.Random(seed)
    tree = Tree(rng, mode)
    low, bits = mode.places[-1]
    size = 1 << low
    last = ROOT + 0x1000 * (2 * mode.levels - 3)
    if mode.levels > 1 and last not in tree.missing:
        for slot in rng.sample(range(1 << bits), entries):
            # Some of them with reserved bits, or not present.
            entry = (
                rng.randrange(0, 1 << 32, size)
                | tree.flags(mode.levels - 1)
                | rng.choice((P, P, 0))
            )
            entry |= rng.choice((0, 0, 0, 1 << 51)) if mode.entry_size == 8 else 0
            tree.memory.put(last + slot * mode.entry_size, entry, mode.entry_size)
    mmu = replace(tree.mmu, physical_bits=rng.choice((40, 52)))
    ladder = mmu.ladder
    one = few.look(tree.memory.table, ladder, ROOT)
    other = many(tree.memory.table, ladder, ROOT)
    assert one is not None
    for column in ("virt", "phys", "size", "rights", "entry"):
        assert getattr(one, column).tolist() == getattr(other, column).tolist(), column
    assert sorted(one.lost) == sorted(other.lost)
    assert bool(one.reserved) == bool(other.reserved)


def test_a_tree_with_many_tables_is_left_to_the_arrays() -> None:
    memory = Frames()
    for slot in range(few.FEW + 1):
        memory.put(ROOT + 8 * slot, 0x10_0000 + 0x1000 * slot | P | RW | US, 8)
    mmu = MODES["x86_64"].mmu(ROOT)
    assert few.look(memory.table, mmu.ladder, ROOT) is None
    assert survey(memory.table, mmu).lost == tuple(
        0x10_0000 + 0x1000 * n for n in range(few.FEW + 1)
    )


def test_each_column_says_what_the_manual_says() -> None:
    """One table of four pages, by hand (SDM 4.5, 4.6.1)."""
    memory = Frames()
    for level in range(3):
        memory.put(ROOT + 0x1000 * level, ROOT + 0x1000 * (level + 1) | P | RW | US, 8)
    for slot, flags in enumerate((P, P | RW, P | US | G, P | RW | US | XD)):
        memory.put(ROOT + 0x3000 + 8 * slot, 0xA000 + 0x1000 * slot | flags, 8)
    found = survey(memory.table, MODES["x86_64"].mmu(ROOT))
    assert rows(found) == [(0x1000 * n, 0xA000 + 0x1000 * n, K4) for n in range(4)]
    assert found.writable.tolist() == [False, True, False, True]
    assert found.user.tolist() == [False, False, True, True]
    assert found.executable.tolist() == [True, True, True, False]
    assert found.is_global.tolist() == [False, False, True, False]
    assert found.lost == ()


@pytest.mark.parametrize("level", [0, 1, 2])
def test_an_upper_entry_narrows_everything_below_it(level: int) -> None:
    memory = Frames()
    for above in range(3):
        flags = P | XD if above == level else P | RW | US
        memory.put(ROOT + 0x1000 * above, ROOT + 0x1000 * (above + 1) | flags, 8)
    memory.put(ROOT + 0x3000, 0xA000 | P | RW | US, 8)
    found = survey(memory.table, MODES["x86_64"].mmu(ROOT))
    assert (found.writable[0], found.user[0], found.executable[0]) == (False, False, False)


@pytest.mark.parametrize(
    ("name", "indices", "entry", "expected"),
    [
        ("i386", (0x302,), 0x0140_0000 | 0x81 << 13 | P | PS, (0xC080_0000, 0x81_0140_0000, M4)),
        ("pae", (3, 4), 0x8_0020_0000 | P | PS, (0xC080_0000, 0x8_0020_0000, M2)),
        ("x86_64", (511, 510, 8), M2 | P | PS | 1 << 12, (0xFFFF_FFFF_8100_0000, M2, M2)),
        ("x86_64", (256, 0), G1 | P | PS, (0xFFFF_8000_0000_0000, G1, G1)),
        ("x86_64", (255, 511), G1 | P | PS, (0x7FFF_C000_0000, G1, G1)),
        ("la57", (256, 0, 0), G1 | P | PS, (0xFF00_0000_0000_0000, G1, G1)),
        ("la57", (0, 256, 0), G1 | P | PS, (0x0000_8000_0000_0000, G1, G1)),
    ],
)
def test_large_pages_and_signs(
    name: str, indices: tuple[int, ...], entry: int, expected: tuple[int, int, int]
) -> None:
    size = MODES[name].entry_size
    memory = Frames()
    for level, slot in enumerate(indices):
        last = level == len(indices) - 1
        value = entry if last else ROOT + 0x1000 * (level + 1) | P
        memory.put(ROOT + 0x1000 * level + slot * size, value, size)
    assert rows(survey(memory.table, MODES[name].mmu(ROOT))) == [expected]


def test_without_pse_a_pde_leads_to_a_table_whatever_its_ps_says() -> None:
    memory = Frames()
    memory.put(ROOT, 0x2000 | P | PS, 4)
    memory.put(0x2000 + 4 * 7, 0x9000 | P, 4)
    assert rows(survey(memory.table, MODES["i386"].mmu(ROOT, cr4=0))) == [(0x7000, 0x9000, K4)]
    assert rows(survey(memory.table, MODES["i386"].mmu(ROOT))) == [(0, 0x01_0000_0000, M4)]


def test_paes_root_may_lie_inside_a_page_and_has_four_entries() -> None:
    memory = Frames()
    for slot in range(6):
        memory.put(0x1FC0 + 8 * slot, 0x4000 | P, 8)
    memory.put(0x4000, P | PS, 8)
    found = survey(memory.table, MODES["pae"].mmu(0x1FC0 | 0x1F))
    assert rows(found) == [(slot * G1, 0, M2) for slot in range(4)]
    assert found.lost == ()


@EACH
def test_a_table_in_a_hole_is_lost_and_maps_nothing(mode: Mode) -> None:
    found = survey(Frames().table, mode.mmu(ROOT))
    assert (rows(found), found.lost) == ([], (ROOT,))
    memory = Frames()
    memory.put(ROOT, 0x9000 | P, mode.entry_size)
    found = survey(memory.table, mode.mmu(ROOT))
    assert (rows(found), found.lost) == ([], (0x9000,))


@pytest.mark.parametrize(
    ("cr4", "efer", "step"),
    [(0, 0, 2 * K4), (PAE, 0, M2), (PAE, LME, M2), (PAE, LMA, G1), (PAE | LA57, LMA, 1 << 39)],
)
def test_the_paging_mode_follows_from_the_control_registers(cr4: int, efer: int, step: int) -> None:
    """SDM 4.1.1: EFER.LMA, not LME, says that the CPU is in long mode.

    `step` is what lies between two 8-byte slots of the second table in each mode.
    """
    memory = Frames()
    memory.put(ROOT, 0x2000 | P, 8)
    for slot in (0, 1):
        memory.put(0x2000 + 8 * slot, 0x3000 | P, 8)
    memory.put(0x3000, 0x4000 | P, 8)
    memory.put(0x4000, 0x5000 | P, 8)
    memory.put(0x5000, 0x6000 | P, 8)
    found = survey(memory.table, MODES["i386"].mmu(ROOT, cr4=cr4, efer=efer))
    assert found.virt.tolist() == [0, step]


def test_address_bits_above_the_cpus_width_are_no_address() -> None:
    memory = Frames()
    for level in range(3):
        memory.put(ROOT + 0x1000 * level, ROOT + 0x1000 * (level + 1) | P, 8)
    memory.put(ROOT + 0x3000, 0x9000 | 1 << 45 | P, 8)
    mode = MODES["x86_64"]
    assert rows(survey(memory.table, mode.mmu(ROOT, physical_bits=46)))[0][1] == 0x9000 | 1 << 45
    assert rows(survey(memory.table, mode.mmu(ROOT, physical_bits=45)))[0][1] == 0x9000


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from([1, 2, 8])), max_size=12))
def test_what_is_reached_physically_is_the_union_of_the_pages(
    pages: list[tuple[int, int]],
) -> None:
    extents = [Extent.sized(at * K4, size * K4) for at, size in pages]
    none = np.zeros(len(pages), np.uint64)
    found = Mappings(
        virt=none,
        phys=np.array([each.start for each in extents], np.uint64),
        size=np.array([each.size for each in extents], np.uint64),
        rights=none,
        entry=none,
        lost=(),
    )
    assert found.physical() == union(extents)
