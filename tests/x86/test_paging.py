"""The builder: what it maps, read back through x86.walk and x86.survey, never through itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.x86.modes import G1, K4, M2, M4, MODES, Mode
from tightrope.memory import Extent
from tightrope.x86.paging import FORMATS, I386, LA57, PAE, X86_64, Format, Rights, map_page
from tightrope.x86.survey import survey
from tightrope.x86.tables import TableStore, tables_bound
from tightrope.x86.walk import Access, Refused, Translated, walk

FIRST_TABLE = 0x40_0000
ALL = pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)


def store_of(fmt: Format, first: int = FIRST_TABLE) -> TableStore:
    """An empty store whose tables lie one behind the other."""
    return TableStore(fmt, count(first, K4).__next__)


def put(store: TableStore, virt: int, phys: int, rights: Rights | None = None) -> None:
    """Map one page."""
    map_page(store, store.format, store.root, virt, phys, rights or Rights(), store.new_table)


def look(
    store: TableStore, virt: int, access: Access = Access.READ, *, user: bool = False
) -> Translated | Refused:
    """What the walker makes of the store's bytes."""
    mode, pages = MODES[store.format.name], store.pages()

    def read(at: int, size: int) -> int | None:
        table = pages.get(at & ~0xFFF)
        return None if table is None else int.from_bytes(table[at & 0xFFF :][:size], "little")

    return walk(read, mode.mmu(store.root, user=user), virt, access)


def leads_to(store: TableStore, virt: int) -> int | None:
    """The physical address behind `virt`, None where it is not mapped."""
    got = look(store, virt)
    if isinstance(got, Translated):
        return got.phys
    assert (got.vector, got.error_code) == (14, 0)
    return None


def mapped(store: TableStore) -> set[tuple[int, int, int]]:
    """(virt, phys, page size) of everything that the store's bytes map."""
    mode, pages = MODES[store.format.name], store.pages()
    found = survey(pages.get, mode.mmu(store.root))
    assert found.lost == ()
    rows = zip(found.virt.tolist(), found.phys.tolist(), found.size.tolist(), strict=True)
    listed = list(rows)
    assert len(listed) == len(set(listed))
    return set(listed)


# ----------------------------------------------------------------- V and P, and nothing else


@dataclass(frozen=True)
class Pair:
    """A page of code at V and at its own address P."""

    virt: int
    phys: int


@st.composite
def pairs(draw: st.DrawFn, mode: Mode) -> Pair:
    """P identity-mappable, V canonical; they share the slots of any subset of the levels."""
    tops = {"x86_64": 1 << 8, "la57": 1 << 4}
    limits = [1 << bits for _, bits in mode.places]
    low = [tops.get(mode.name, limits[0]), *limits[1:]]
    phys = [draw(st.integers(0, limit - 1)) for limit in low]
    shared = draw(st.lists(st.booleans(), min_size=mode.levels, max_size=mode.levels))
    virt = [
        index if same else draw(st.integers(0, limit - 1))
        for index, same, limit in zip(phys, shared, limits, strict=True)
    ]
    return Pair(mode.address(virt), mode.address(phys))


@ALL
@given(data=st.data())
def test_v_and_p_lead_to_p_and_nothing_else_is_mapped(fmt: Format, data: st.DataObject) -> None:
    mode = MODES[fmt.name]
    pair = data.draw(pairs(mode))
    store = store_of(fmt)
    for address in (pair.virt, pair.phys):
        put(store, address, pair.phys)
    assert mapped(store) == {(pair.virt, pair.phys, K4), (pair.phys, pair.phys, K4)}
    for offset in (0, 0x123, 0xFFF):
        assert leads_to(store, pair.virt + offset) == pair.phys + offset
        assert leads_to(store, pair.phys + offset) == pair.phys + offset
    other = data.draw(pairs(mode)).virt
    if other not in (pair.virt, pair.phys):
        assert leads_to(store, other) is None


@ALL
def test_addresses_that_share_upper_slots_keep_each_others_mapping(fmt: Format) -> None:
    mode = MODES[fmt.name]
    base = [1] * mode.levels
    for level in range(mode.levels):
        store = store_of(fmt)
        other = mode.address([*base[:level], 2, *base[level + 1 :]])
        put(store, mode.address(base), 0x7000)
        put(store, other, 0x9000)
        assert mapped(store) == {(mode.address(base), 0x7000, K4), (other, 0x9000, K4)}
        # Each level above the differing one is one table for both; below it there are two.
        assert len(store.pages()) == mode.levels + (mode.levels - 1 - level)


@ALL
@given(data=st.data())
def test_many_pages_are_all_there_whatever_they_share(fmt: Format, data: st.DataObject) -> None:
    mode = MODES[fmt.name]
    wanted: dict[int, int] = {}
    store = store_of(fmt)
    slots = st.sampled_from([0, 1, 3])
    for _ in range(data.draw(st.integers(1, 8))):
        virt = mode.address([data.draw(slots) for _ in mode.places])
        wanted[virt] = data.draw(st.integers(0, 0xFFFFF)) << 12
        put(store, virt, wanted[virt])
    # A page mapped again is replaced.
    assert mapped(store) == {(virt, phys, K4) for virt, phys in wanted.items()}


# ----------------------------------------------------------- indices by equality, and only so


class Index:
    """The slot of an opaque address at one level: it can be compared with its like, no more."""

    def __init__(self, level: int, name: str) -> None:
        self.level, self.name = level, name

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Index) or other.level != self.level:
            raise TypeError("an index was compared with something else than an index of its level")
        return self.name == other.name

    def __hash__(self) -> int:
        return hash((self.level, self.name))

    def __bool__(self) -> bool:
        raise TypeError("an index was asked whether it is zero")


class Shifted:
    """An address after the shift of `Field.get`, waiting for its mask."""

    def __init__(self, address: Address, low: int) -> None:
        self.address, self.low = address, low

    def __and__(self, mask: int) -> Index:
        level = self.address.mode.places.index((self.low, mask.bit_length()))
        assert mask + 1 == 1 << mask.bit_length()
        return Index(level, self.address.names[level])


class Frame:
    """An opaque frame address: flags can be put to it, and it is equal to itself."""

    def __or__(self, flags: int) -> Entry:
        return Entry(self, flags)


class Address(Frame):
    """An opaque page-aligned address, known by the names of its indices alone."""

    def __init__(self, mode: Mode, names: tuple[str, ...]) -> None:
        self.mode, self.names = mode, names

    def __rshift__(self, low: int) -> Shifted:
        return Shifted(self, low)


class Entry:
    """A frame and flags: flags are read by masks of flag bits, the frame by the address mask."""

    def __init__(self, frame: Frame, flags: int) -> None:
        self.frame, self.flags = frame, flags

    def __and__(self, mask: int) -> int | Frame:
        if mask & ~(0xFFF | 1 << 63) == 0:
            return self.flags & mask
        assert mask in (0xFFFF_F000, 0x000F_FFFF_FFFF_F000)
        return self.frame


class OpaqueTables:
    """A `TableMemory` whose tables and indices are tokens."""

    def __init__(self) -> None:
        self.entries: dict[tuple[Frame, Index], Entry] = {}

    def entry(self, table: Frame, index: Index) -> Entry | int:
        return self.entries.get((table, index), 0)

    def set_entry(self, table: Frame, index: Index, value: Entry) -> None:
        self.entries[table, index] = value

    def walk(self, root: Frame, address: Address) -> Frame | None:
        """Where an address leads by the manual: present bits, no PS bit on the way (SDM 4.5)."""
        table = root
        for level in range(address.mode.levels):
            entry = self.entries.get((table, Index(level, address.names[level])))
            if entry is None or not entry.flags & 1:
                return None
            assert level == address.mode.levels - 1 or not entry.flags & 0x80
            table = entry.frame
        return table


# Which of V, P and a third address X share a slot at one level: the five partitions of three.
PARTITIONS = ("aaa", "aab", "aba", "abb", "abc")


def opaque_triples(mode: Mode) -> Iterator[tuple[Address, Address, Address]]:
    """(V, P, X) for every way in which their indices can coincide."""
    for pattern in product(PARTITIONS, repeat=mode.levels):
        virt, phys, other = (Address(mode, names) for names in zip(*pattern, strict=True))
        yield virt, phys, other


@ALL
def test_the_builder_is_right_for_every_way_in_which_indices_coincide(fmt: Format) -> None:
    """Complete by symmetry: only equality is used, so one case of each class stands for all."""
    mode = MODES[fmt.name]
    classes = 0
    for virt, phys, other in opaque_triples(mode):
        tables, root = OpaqueTables(), Frame()
        for address in (virt, phys):
            map_page(tables, fmt, root, address, phys, Rights(), Frame)  # type: ignore[arg-type]
        assert tables.walk(root, virt) is phys
        assert tables.walk(root, phys) is phys
        inside = other.names in (virt.names, phys.names)
        assert tables.walk(root, other) is (phys if inside else None)
        classes += 1
    assert classes == 5**mode.levels


def test_a_builder_that_writes_each_chain_anew_is_caught() -> None:
    """What 2.6.20 did: where V and P share an upper slot, the second chain loses the first."""

    class Forgetful(OpaqueTables):
        def entry(self, table: Frame, index: Index) -> Entry | int:
            return 0

    fmt, lost = X86_64, 0
    for virt, phys, _ in opaque_triples(MODES[fmt.name]):
        tables, root = Forgetful(), Frame()
        for address in (virt, phys):
            map_page(tables, fmt, root, address, phys, Rights(), Frame)  # type: ignore[arg-type]
        lost += tables.walk(root, virt) is not phys
        assert (tables.walk(root, virt) is phys) == (
            virt.names == phys.names or virt.names[0] != phys.names[0]
        )
    assert lost


def test_an_opaque_index_allows_nothing_but_equality() -> None:
    virt: Any = Address(MODES["x86_64"], ("a", "b", "c", "d"))
    index: Any = virt >> 39 & 0x1FF
    assert index == Index(0, "a")
    assert index != Index(0, "b")
    for wrong in (
        lambda: index == 3,
        lambda: index == Index(1, "a"),
        lambda: index < index,
        lambda: index + 1,
        lambda: bool(index),
        lambda: int(index),
        lambda: [0, 1][index],
        lambda: virt < virt,
        lambda: virt & 0xFFF,
    ):
        with pytest.raises(TypeError):
            wrong()
    for low, mask in ((39, 0xFF), (38, 0x1FF)):
        with pytest.raises(ValueError, match="not in tuple"):
            virt >> low & mask


# --------------------------------------------------------------------------------------- rights


@ALL
@pytest.mark.parametrize("large", [False, True], ids=["4 KiB", "2 or 4 MiB"])
@pytest.mark.parametrize("flags", list(product((False, True), repeat=5)))
def test_rights_come_back_as_they_were_asked(
    fmt: Format, large: bool, flags: tuple[bool, ...]
) -> None:
    writable, executable, user, is_global, accessed = flags
    mode = MODES[fmt.name]
    size = mode.page_sizes[-2] if large else K4
    rights = Rights(
        writable=writable,
        executable=executable,
        user=user,
        is_global=is_global,
        accessed=accessed,
    )
    store = store_of(fmt)
    virt = mode.address([1] * mode.levels) // size * size
    store.map_extent(virt, Extent.sized(0, size), rights, page_sizes=(size,))
    got = look(store, virt)
    assert isinstance(got, Translated)
    assert got.page_size == size
    assert (got.writable, got.user, got.is_global) == (writable, user, is_global)
    assert got.executable == (executable or fmt is I386)
    assert got.sets_accessed == (not accessed)
    write = look(store, virt, Access.WRITE)
    assert isinstance(write, Translated if writable else Refused)
    if isinstance(write, Translated):
        assert write.sets_accessed == (not accessed)
    found = survey(store.pages().get, mode.mmu(store.root))
    row = (found.writable, found.user, found.is_global, found.executable)
    assert [each.tolist() for each in row] == [
        [writable],
        [user],
        [is_global],
        [executable or fmt is I386],
    ]


@ALL
def test_entries_have_the_bits_asked_for_and_no_other(fmt: Format) -> None:
    """By hand: P, R/W, A, D are 0x63, PS 0x80; bit 7 of a PTE would be PAT (SDM 4.5, 4.9)."""
    mode = MODES[fmt.name]
    for size in mode.page_sizes:
        store = store_of(fmt)
        store.map_extent(0, Extent.sized(0, size), Rights(), page_sizes=(size,))
        got = look(store, 0)
        assert isinstance(got, Translated)
        assert got.visits[-1].entry == 0x63 | (0x80 if size != K4 else 0)
        upper = [visit.entry & 0xFFF for visit in got.visits[:-1]]
        assert upper == [1 if fmt is PAE and not level else 0x23 for level in range(len(upper))]


@ALL
def test_rights_that_an_upper_entry_withholds_are_refused_not_lost(fmt: Format) -> None:
    mode = MODES[fmt.name]
    virt = mode.address([1] * mode.levels)
    store = store_of(fmt)
    put(store, virt, 0x7000)
    put(store, virt + K4, 0x8000, Rights(writable=False, executable=False))
    with pytest.raises(ValueError, match="has less than"):
        put(store, virt + 2 * K4, 0x9000, Rights(user=True))
    assert leads_to(store, virt + 2 * K4) is None

    store = store_of(fmt)
    put(store, virt, 0x7000, Rights(user=True))
    put(store, virt + K4, 0x8000)
    mine, kernels = (look(store, at, user=True) for at in (virt, virt + K4))
    assert isinstance(mine, Translated)
    assert isinstance(kernels, Refused)


# -------------------------------------------------------------------------------- whole extents


@pytest.mark.parametrize(
    ("fmt", "sizes", "virt", "physical", "pages"),
    [
        (X86_64, (G1, M2, K4), M2, Extent(M2, 2 * M2), [(M2, M2, M2)]),
        (X86_64, (M2, K4), 0, Extent(0, M2 + K4), [(0, 0, M2), (M2, M2, K4)]),
        (
            X86_64,
            (M2, K4),
            M2 - K4,
            Extent(M2 - K4, 2 * M2 + K4),
            [(M2 - K4, M2 - K4, K4), (M2, M2, M2), (2 * M2, 2 * M2, K4)],
        ),
        # Physically aligned is not enough: both addresses have to be.
        (
            X86_64,
            (M2, K4),
            K4,
            Extent(M2, M2 + 2 * K4),
            [(K4, M2, K4), (2 * K4, M2 + K4, K4)],
        ),
        (
            X86_64,
            (M2, K4),
            K4,
            Extent(M2, 2 * M2),
            [(K4 + at, M2 + at, K4) for at in range(0, M2, K4)],
        ),
        (X86_64, (G1, M2, K4), G1, Extent(2 * G1, 3 * G1), [(G1, 2 * G1, G1)]),
        (X86_64, (M2, K4), G1, Extent(2 * G1, 2 * G1 + M2), [(G1, 2 * G1, M2)]),
        (
            X86_64,
            (G1, M2, K4),
            G1 - M2,
            Extent(G1 - M2, 2 * G1 + K4),
            [(G1 - M2, G1 - M2, M2), (G1, G1, G1), (2 * G1, 2 * G1, K4)],
        ),
        (
            X86_64,
            (M2, K4),
            0xFFFF_FFFF_FFE0_0000,
            Extent(M2, 2 * M2),
            [(0xFFFF_FFFF_FFE0_0000, M2, M2)],
        ),
        (LA57, (G1, M2, K4), 1 << 50, Extent(1 << 50, (1 << 50) + G1), [(1 << 50, 1 << 50, G1)]),
        (PAE, (M2, K4), 0xC000_0000, Extent(1 << 34, (1 << 34) + M2), [(3 << 30, 1 << 34, M2)]),
        (I386, (M4, K4), 0xC000_0000, Extent(M4, 2 * M4), [(0xC000_0000, M4, M4)]),
        (I386, (M4, K4), M2, Extent(M2, M2 + K4), [(M2, M2, K4)]),
        (I386, (K4,), 0xFFFF_F000, Extent(0xFFFF_F000, 1 << 32), [(0xFFFF_F000, 0xFFFF_F000, K4)]),
        (X86_64, (K4,), 0, Extent(0, 0), []),
    ],
)
def test_pages_are_as_large_as_fits_wholly_inside(
    fmt: Format,
    sizes: tuple[int, ...],
    virt: int,
    physical: Extent,
    pages: list[tuple[int, int, int]],
) -> None:
    store = store_of(fmt)
    store.map_extent(virt, physical, Rights(), page_sizes=sizes)
    assert mapped(store) == set(pages)


@pytest.mark.parametrize(
    ("fmt", "gbpages", "sizes"),
    [
        (I386, True, (M4, K4)),
        (PAE, True, (M2, K4)),
        (X86_64, True, (G1, M2, K4)),
        (X86_64, False, (M2, K4)),
        (LA57, True, (G1, M2, K4)),
        (LA57, False, (M2, K4)),
    ],
)
def test_a_format_knows_its_page_sizes(fmt: Format, gbpages: bool, sizes: tuple[int, ...]) -> None:
    assert fmt.page_sizes(gbpages=gbpages) == sizes
    for missing in {K4, M2, M4, G1, 1 << 39} - set(fmt.page_sizes(gbpages=True)):
        with pytest.raises(ValueError, match="has no pages of"):
            fmt.level_of(missing)


@ALL
@given(data=st.data())
def test_an_extent_is_mapped_wholly_in_order_and_nothing_more(
    fmt: Format, data: st.DataObject
) -> None:
    mode = MODES[fmt.name]
    offered = data.draw(st.sampled_from([(K4,), mode.page_sizes[-2:], mode.page_sizes]))
    start = data.draw(st.integers(0, 3 * G1 // K4)) * K4
    unit = data.draw(st.sampled_from([K4, offered[0]]))
    # At most 3 MiB in small pages, so that the survey's list stays short; 1 GiB pages in their own.
    size = data.draw(st.integers(1, 700)) * K4 if unit == K4 else unit
    start = start if unit == K4 else start // unit * unit
    top = mode.address([0 if mode.levels == 2 else 1] + [0] * (mode.levels - 1))
    virt = data.draw(st.sampled_from([start, top, (top + start) % (1 << 32)]))
    virt = min(virt, (1 << 32) - size) if mode.linear_bits == 32 else virt
    store = store_of(fmt, first=1 << 31)
    store.map_extent(virt, Extent.sized(start, size), Rights(), page_sizes=offered)
    at = virt
    for page_virt, page_phys, page_size in sorted(mapped(store)):
        assert page_virt == at
        assert page_phys - start == at - virt
        assert page_phys % page_size == page_virt % page_size == 0
        assert page_size in offered
        larger = [each for each in offered if each > page_size]
        for each in larger:
            fits = at % each == page_phys % each == 0 and virt + size - at >= each
            assert not fits
        at += page_size
    assert at == virt + size


ONE = Extent(0x7000, 0x8000)


@pytest.mark.parametrize(
    ("first", "second", "accepted"),
    [
        ((0x7000, ONE, (K4,)), (0x7000, ONE, (K4,)), True),
        ((0x7000, ONE, (K4,)), (0x6000, Extent(0x6000, 0x9000), (K4,)), True),
        ((0x6000, Extent(0x6000, 0x9000), (K4,)), (0x7000, ONE, (K4,)), True),
        ((0x7000, ONE, (K4,)), (0x7000, Extent(0x9000, 0xA000), (K4,)), False),
        ((0x7000, ONE, (K4,)), (0x6000, Extent(0x7000, 0x9000), (K4,)), False),
        ((0, Extent(0, M2), (M2,)), (0x7000, ONE, (K4,)), False),
        ((0x7000, ONE, (K4,)), (0, Extent(0, M2), (M2,)), False),
        ((0, Extent(0, M2), (M2,)), (0, Extent(M2, 2 * M2), (M2,)), False),
        ((0, Extent(0, M2), (M2,)), (0, Extent(0, 2 * M2), (M2,)), True),
        ((0, Extent(0, G1), (G1,)), (M2, Extent(M2, 2 * M2), (M2,)), False),
    ],
)
def test_a_mapping_that_contradicts_an_older_one_is_refused(
    first: tuple[int, Extent, tuple[int, ...]],
    second: tuple[int, Extent, tuple[int, ...]],
    accepted: bool,
) -> None:
    store = store_of(X86_64)
    store.map_extent(first[0], first[1], Rights(), page_sizes=first[2])
    before = mapped(store)
    if accepted:
        store.map_extent(second[0], second[1], Rights(), page_sizes=second[2])
        assert before <= mapped(store)
        assert leads_to(store, second[0]) == second[1].start
        assert leads_to(store, second[0] + second[1].size - 1) == second[1].end - 1
    else:
        with pytest.raises(ValueError, match=r"mapped otherwise already|is a large page"):
            store.map_extent(second[0], second[1], Rights(), page_sizes=second[2])
        assert mapped(store) == before


def test_the_same_page_with_other_rights_is_a_contradiction() -> None:
    store = store_of(X86_64)
    store.map_extent(0x7000, ONE, Rights(), page_sizes=(K4,))
    with pytest.raises(ValueError, match="0x7000 is mapped otherwise already"):
        store.map_extent(0x7000, ONE, Rights(writable=False), page_sizes=(K4,))


@pytest.mark.parametrize(
    ("fmt", "virt", "physical", "problem"),
    [
        (I386, 0xFFFF_F000, Extent.sized(0xFFFF_F000, K4), None),
        (I386, 0, Extent.sized(1 << 32, K4), "does not fit"),
        (I386, 0, Extent.sized(0xFFFF_F000, 2 * K4), "does not fit"),
        (I386, 0xFFFF_F000, Extent.sized(0, 2 * K4), "half"),
        (PAE, 1 << 32, Extent.sized(0, K4), "half"),
        (PAE, 0, Extent.sized((1 << 52) - K4, K4), None),
        (PAE, 0, Extent.sized(1 << 52, K4), "does not fit"),
        (X86_64, (1 << 47) - K4, Extent.sized(0, K4), None),
        (X86_64, (1 << 47) - K4, Extent.sized(0, 2 * K4), "half"),
        (X86_64, 1 << 47, Extent.sized(0, K4), "half"),
        (X86_64, (1 << 64) - (1 << 47), Extent.sized(0, K4), None),
        (X86_64, (1 << 64) - (1 << 47) - K4, Extent.sized(0, K4), "half"),
        (X86_64, (1 << 64) - K4, Extent.sized(0, 2 * K4), "half"),
        (LA57, 1 << 47, Extent.sized(0, K4), None),
        (LA57, 1 << 56, Extent.sized(0, K4), "half"),
        (X86_64, 0x800, Extent.sized(0, K4), "aligned"),
        (X86_64, 0, Extent.sized(0x800, K4), "aligned"),
        (X86_64, 0, Extent(0, 0x800), "aligned"),
    ],
)
def test_what_does_not_fit_a_format_is_refused_not_truncated(
    fmt: Format, virt: int, physical: Extent, problem: str | None
) -> None:
    store = store_of(fmt)
    if problem is None:
        store.map_extent(virt, physical, Rights(), page_sizes=(K4,))
        assert mapped(store) == {(virt, physical.start, K4)}
    else:
        with pytest.raises(ValueError, match=problem):
            store.map_extent(virt, physical, Rights(), page_sizes=(K4,))
        assert mapped(store) == set()


def test_map_page_does_not_map_below_a_large_page() -> None:
    for fmt, size in ((I386, M4), (PAE, M2), (X86_64, M2), (X86_64, G1), (LA57, G1)):
        store = store_of(fmt)
        store.map_extent(0, Extent(0, size), Rights(), page_sizes=(size,))
        with pytest.raises(ValueError, match="is a large page"):
            put(store, 0x3000, 0x7000)
        assert mapped(store) == {(0, 0, size)}


# -------------------------------------------------------------------------- tables and their number


@ALL
def test_tables_come_from_the_frames_given_in_order(fmt: Format) -> None:
    frames = iter([0x9000, 0x3000, 0x5000, 0xB000, 0x1000, 0xD000])
    store = TableStore(fmt, frames.__next__)
    put(store, 0, 0)
    assert store.root == 0x9000
    made = list(store.pages())
    assert made == [0x9000, 0x3000, 0x5000, 0xB000, 0x1000][: MODES[fmt.name].levels]
    assert all(len(page) == 4096 and page.readonly for page in store.pages().values())
    with pytest.raises(KeyError):
        store.entry(0x7000, 0)


@ALL
def test_pages_are_mapped_to_frames_in_any_order(fmt: Format) -> None:
    frames = iter(range(0x9000, 0x2_0000, 0x1000))
    store = TableStore(fmt, frames.__next__)
    store.map_frames(0x3000, np.array([7, 5, 6]), Rights())
    assert mapped(store) == {(0x3000, 0x7000, K4), (0x4000, 0x5000, K4), (0x5000, 0x6000, K4)}


@st.composite
def identities(draw: st.DrawFn, fmt: Format) -> list[Extent]:
    """A few page-aligned extents that fit the format's identity map."""
    limit = (1 << fmt.identity_bits) // K4
    spots = st.one_of(
        st.integers(0, limit - 1),
        st.integers(0, 0x1000),
        st.sampled_from([M2, M4, G1]).map(lambda size: size // K4 - 2),
    )
    return [
        Extent.sized(at * K4, min(draw(st.integers(1, 600)), limit - at) * K4)
        for at in draw(st.lists(spots, min_size=1, max_size=5))
    ]


@ALL
@given(data=st.data())
def test_tables_bound_is_never_exceeded_and_is_met_by_small_pages(
    fmt: Format, data: st.DataObject
) -> None:
    extents = data.draw(identities(fmt))
    bound = tables_bound(fmt, extents)
    sizes = MODES[fmt.name].page_sizes
    small = store_of(fmt)
    for extent in extents:
        small.map_extent(extent.start, extent, Rights(), page_sizes=(K4,))
    assert len(small.pages()) == bound
    for extent in extents:
        large = store_of(fmt)
        large.map_extent(extent.start, extent, Rights(), page_sizes=sizes)
        assert len(large.pages()) <= tables_bound(fmt, [extent]) <= bound


@pytest.mark.parametrize(
    ("fmt", "extents", "tables"),
    [
        (X86_64, [], 1),
        (X86_64, [Extent(0, K4)], 4),
        (LA57, [Extent(0, K4)], 5),
        (PAE, [Extent(0, K4)], 3),
        (I386, [Extent(0, K4)], 2),
        (X86_64, [Extent(M2 - K4, M2 + K4)], 5),
        (X86_64, [Extent(0, G1)], 1 + 1 + 1 + 512),
        (X86_64, [Extent(0, 2 * G1), Extent(M2, 2 * M2)], 1 + 1 + 2 + 1024),
        (I386, [Extent(0, 1 << 32)], 1 + 1024),
        (X86_64, [Extent(0, 0)], 1),
    ],
)
def test_the_bound_counted_by_hand(fmt: Format, extents: list[Extent], tables: int) -> None:
    assert tables_bound(fmt, extents) == tables
