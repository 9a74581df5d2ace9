"""The survey against the walk: what the one lists is what the other answers, address by address."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.x86.modes import (
    G1,
    K4,
    M2,
    M4,
    MODES,
    NXE,
    PGE,
    PS,
    PSE,
    US,
    XD,
    A,
    D,
    Frames,
    G,
    Mode,
    P,
    RW,
)
from tightrope.memory import Extent, union
from tightrope.x86.survey import Mappings, survey
from tightrope.x86.walk import Access, Mmu, Translated, walk

ROOT = 0x1000
EACH = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)


def rows(found: Mappings) -> list[tuple[int, int, int]]:
    """(virt, phys, size), sorted."""
    columns = (found.virt.tolist(), found.phys.tolist(), found.size.tolist())
    return sorted(zip(*columns, strict=True))


def entry_flags(mode: Mode, level: int, mmu: Mmu) -> st.SearchStrategy[int]:
    """Flags without a reserved bit among them, P aside."""
    if mode.name == "pae" and level == 0:
        return st.just(0)
    bits = [RW, US, A, D, G] + ([XD] if mmu.efer & NXE and mode.entry_size == 8 else [])
    return st.lists(st.sampled_from(bits), max_size=6, unique=True).map(sum)


class Tree:
    """Random sparse tables: two tables a level, shared freely, two slots each."""

    def __init__(self, draw: st.DrawFn, mode: Mode) -> None:
        self.mode, self.memory = mode, Frames()
        efer = mode.efer & ~draw(st.sampled_from([0, NXE]))
        cr4 = mode.cr4 & ~draw(st.sampled_from([0, PGE, PSE, PGE | PSE]))
        self.mmu = mode.mmu(ROOT, efer=efer, cr4=cr4, physical_bits=52)
        tables = [[ROOT]] + [
            [ROOT + 0x1000 * (2 * level + which + 1) for which in (0, 1)]
            for level in range(mode.levels - 1)
        ]
        self.missing = set(draw(st.lists(st.sampled_from(tables[-1]), max_size=1)))
        self.slots: list[list[int]] = []
        for level, (low, bits) in enumerate(mode.places):
            index = st.integers(0, (1 << bits) - 1)
            slots = draw(st.lists(index, min_size=1, max_size=2, unique=True))
            self.slots.append(slots)
            below = tables[level + 1] if level + 1 < mode.levels else []
            for table, slot in product(tables[level], slots):
                self.memory.put(
                    table + slot * mode.entry_size,
                    self.entry(draw, level, 1 << low, below),
                    mode.entry_size,
                )
        for table in self.missing - {ROOT}:
            self.memory.bytes.pop(table, None)

    def entry(self, draw: st.DrawFn, level: int, size: int, below: list[int]) -> int:
        """An entry: absent, a page, or the way to one of the tables below."""
        mode = self.mode
        flags = draw(entry_flags(mode, level, self.mmu))
        kind = draw(st.sampled_from(["absent", "page", "table", "table"]))
        if kind == "absent":
            return flags
        large = size in mode.page_sizes and (mode.entry_size == 8 or bool(self.mmu.cr4 & PSE))
        if not below or (large and kind == "page"):
            limit = 1 << (52 if mode.entry_size == 8 else 32)
            frame = draw(st.integers(0, limit // size - 1)) * size
            if size == M4:
                frame |= draw(st.integers(0, 255)) << 13
            return flags | P | frame | (PS if below else draw(st.sampled_from([0, PS])))
        return flags | P | draw(st.sampled_from(below))


@EACH
@given(data=st.data())
def test_survey_and_walk_tell_the_same_story(mode: Mode, data: st.DataObject) -> None:
    draw = data.draw
    tree = Tree(draw, mode)
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
    assert rows(found) == []  # bit 5..0 of CR3 are not zero: 0x1FC0 | 0x1F is 0x1FC0 + flags
    assert found.lost == ()


@EACH
def test_a_table_in_a_hole_is_lost_and_maps_nothing(mode: Mode) -> None:
    found = survey(Frames().table, mode.mmu(ROOT))
    assert (rows(found), found.lost) == ([], (ROOT,))
    memory = Frames()
    memory.put(ROOT, 0x9000 | P, mode.entry_size)
    found = survey(memory.table, mode.mmu(ROOT))
    assert (rows(found), found.lost) == ([], (0x9000,))


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
    never = np.zeros(len(pages), np.bool_)
    found = Mappings(
        virt=np.zeros(len(pages), np.uint64),
        phys=np.array([each.start for each in extents], np.uint64),
        size=np.array([each.size for each in extents], np.uint64),
        writable=never,
        user=never,
        executable=never,
        is_global=never,
        lost=(),
    )
    assert found.physical() == union(extents)
