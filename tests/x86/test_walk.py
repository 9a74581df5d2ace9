"""The page walk against expectations written by hand from the SDM's tables, one address per mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.x86.modes import (
    G1,
    K4,
    LA57,
    LMA,
    M2,
    M4,
    MODES,
    NXE,
    PAE,
    PG_PE_WP,
    PGE,
    PS,
    PSE,
    RW,
    SMAP,
    SMEP,
    US,
    WP,
    XD,
    A,
    D,
    Frames,
    G,
    P,
)
from tightrope.x86.walk import Access, Refused, Translated, canonical, walk

READ, WRITE, FETCH = Access.READ, Access.WRITE, Access.FETCH
ROOT = 0x1000
"""The table of level n lies at (n + 1) * 0x1000."""
PAGE = 0x5_0000
ALL = P | RW | US | A | D
MINE = P | RW | A | D

# One linear address per mode, its indices taken out by hand (SDM figures 4-2, 4-5, 4-8).
ADDRESS = {
    "i386": 0xC080_1ABC,
    "pae": 0xC080_1ABC,
    "x86_64": 0xFFFF_FFFF_8100_2ABC,
    "la57": 0xFF10_8100_8100_2ABC,
}
SLOTS = {
    "i386": (0x302, 1),
    "pae": (3, 4, 1),
    "x86_64": (511, 510, 8, 2),
    "la57": (272, 258, 2, 8, 2),
}
NAMES = {
    "i386": ["PD", "PT"],
    "pae": ["PDPT", "PD", "PT"],
    "x86_64": ["PML4", "PDPT", "PD", "PT"],
    "la57": ["PML5", "PML4", "PDPT", "PD", "PT"],
}
EACH = pytest.mark.parametrize("name", MODES)
LONG = ("x86_64", "la57")


def flags(name: str, value: int, *, depth: int | None = None) -> list[int]:
    """The same flags at each level; a PAE PDPTE has P alone (SDM 4.4.1)."""
    levels = len(SLOTS[name]) if depth is None else depth
    return [P if name == "pae" and level == 0 else value for level in range(levels)]


def lay(name: str, entries: Sequence[int], page: int = PAGE) -> Frames:
    """Tables for ADDRESS: each entry leads to the next table, the last one to `page`."""
    memory = Frames()
    for level, (slot, entry) in enumerate(zip(SLOTS[name], entries, strict=False)):
        target = page if level == len(entries) - 1 else ROOT + 0x1000 * (level + 1)
        size = MODES[name].entry_size
        memory.put(ROOT + 0x1000 * level + slot * size, target | entry, size)
    return memory


def ask(name: str, memory: Frames, access: Access = READ, **state: Any) -> Translated | Refused:
    """The walk of ADDRESS."""
    return walk(memory.word, MODES[name].mmu(ROOT, **state), ADDRESS[name], access)


def code(got: Translated | Refused) -> int | None:
    """The error code of a page fault, None for a translation."""
    if isinstance(got, Translated):
        return None
    assert got.vector == 14
    assert got.reason
    return got.error_code


def general_protection(got: Translated | Refused) -> bool:
    """#GP(0)."""
    return isinstance(got, Refused) and (got.vector, got.error_code) == (13, 0)


# ---------------------------------------------------------------------------------- translations


@EACH
def test_a_4k_page_is_found_and_every_level_is_recorded(name: str) -> None:
    entries = flags(name, ALL)
    got = ask(name, lay(name, entries))
    assert isinstance(got, Translated)
    assert (got.phys, got.page_size) == (PAGE + 0xABC, K4)
    assert (got.writable, got.user, got.executable) == (True, True, True)
    assert (got.is_global, got.sets_accessed) == (False, False)
    size = MODES[name].entry_size
    last = len(entries) - 1
    assert [(visit.level, visit.at, visit.entry) for visit in got.visits] == [
        (
            NAMES[name][level],
            ROOT + 0x1000 * level + SLOTS[name][level] * size,
            entry | (PAGE if level == last else ROOT + 0x1000 * (level + 1)),
        )
        for level, entry in enumerate(entries)
    ]


@pytest.mark.parametrize(
    ("name", "depth", "page", "size", "phys"),
    [
        ("i386", 1, 0x0140_0000, M4, 0x0140_1ABC),
        ("i386", 1, 0xFFC0_0000, M4, 0xFFC0_1ABC),
        # PSE-36: entry bits 20:13 are address bits 39:32 (SDM table 4-4).
        ("i386", 1, 0x0140_0000 | 0x81 << 13, M4, 0x81_0140_1ABC),
        ("pae", 2, 0x20_0000, M2, 0x20_1ABC),
        ("pae", 2, 0x8_0020_0000, M2, 0x8_0020_1ABC),
        ("x86_64", 3, 0x20_0000, M2, 0x20_2ABC),
        ("x86_64", 2, 0x4000_0000, G1, 0x4100_2ABC),
        ("la57", 4, 0x20_0000, M2, 0x20_2ABC),
        ("la57", 3, 0x8_0000_0000, G1, 0x8_0100_2ABC),
    ],
)
def test_large_pages_take_the_lower_bits_from_the_address(
    name: str, depth: int, page: int, size: int, phys: int
) -> None:
    entries = flags(name, MINE, depth=depth)
    # Bit 12 of a large page's entry is PAT, not address.
    for pat in (0, 1 << 12):
        got = ask(name, lay(name, [*entries[:-1], entries[-1] | PS | pat], page))
        assert isinstance(got, Translated)
        assert (got.phys, got.page_size, len(got.visits)) == (phys, size, depth)


def test_bit_7_of_a_pte_is_pat_and_not_a_page_size() -> None:
    for name in MODES:
        got = ask(name, lay(name, [*flags(name, MINE)[:-1], MINE | 1 << 7]))
        assert isinstance(got, Translated)
        assert (got.phys, got.page_size) == (PAGE + 0xABC, K4)


def test_without_pse_32_bit_paging_ignores_ps() -> None:
    """SDM 4.3: with CR4.PSE = 0 every PDE leads to a page table."""
    memory = lay("i386", [MINE | PS, MINE])
    without = ask("i386", memory, cr4=0)
    assert isinstance(without, Translated)
    assert (without.phys, without.page_size) == (PAGE + 0xABC, K4)
    with_pse = ask("i386", memory, cr4=PSE)
    assert code(with_pse) is None
    assert isinstance(with_pse, Translated)
    assert with_pse.page_size == M4


@pytest.mark.parametrize("name", ["pae", *LONG])
def test_ps_is_honoured_without_pse_outside_32_bit_paging(name: str) -> None:
    depth = len(SLOTS[name]) - 1
    entries = flags(name, MINE, depth=depth)
    got = ask(name, lay(name, [*entries[:-1], MINE | PS], M2))
    assert isinstance(got, Translated)
    assert got.page_size == M2
    assert not MODES[name].cr4 & PSE


@pytest.mark.parametrize("name", LONG)
def test_one_gigabyte_pages_are_reserved_where_the_cpu_has_none(name: str) -> None:
    depth = len(SLOTS[name]) - 2
    memory = lay(name, [MINE] * (depth - 1) + [MINE | PS], G1)
    assert code(ask(name, memory, gbpages=True)) is None
    assert code(ask(name, memory, gbpages=False)) == 9
    # The lack of 1 GiB pages takes nothing from 2 MiB pages.
    memory = lay(name, [MINE] * depth + [MINE | PS], M2)
    assert code(ask(name, memory, gbpages=False)) is None


def test_with_paging_off_an_address_is_its_own_translation() -> None:
    for name in MODES:
        mmu = MODES[name].mmu(ROOT, cr0=PG_PE_WP & ~(1 << 31), user=True)
        for access in Access:
            got = walk(Frames().word, mmu, 0xC080_1ABC, access)
            assert isinstance(got, Translated)
            assert (got.phys, got.visits) == (0xC080_1ABC, ())
            assert (got.writable, got.user, got.executable) == (True, True, True)
            assert not got.sets_accessed
            assert not got.is_global
        # Paging off means not in 64-bit mode: a linear address has 32 bits (SDM 3.3.1, 4.1.1).
        wrapped = walk(Frames().word, mmu, 0x1_C080_1ABC, READ)
        assert isinstance(wrapped, Translated)
        assert wrapped.phys == 0xC080_1ABC


@pytest.mark.parametrize(
    ("name", "cr3"),
    [
        ("i386", ROOT | 0x18),
        ("i386", ROOT | 0xFFF),
        ("pae", ROOT | 0x1F),
        ("x86_64", ROOT | 0xFFF),
        ("la57", ROOT | 0x18),
    ],
)
def test_cr3s_low_bits_are_flags_and_no_address(name: str, cr3: int) -> None:
    """SDM tables 4-3, 4-7, 4-12: PWT, PCD, PCID, or ignored."""
    assert code(ask(name, lay(name, flags(name, MINE)), cr3=cr3)) is None


def test_paes_pdpt_may_lie_at_any_multiple_of_32_bytes() -> None:
    memory = lay("pae", flags("pae", MINE))
    entry = memory.word(ROOT + 3 * 8, 8)
    assert entry is not None
    memory.put(0x8_0FE0 + 3 * 8, entry, 8)
    got = ask("pae", memory, cr3=0x8_0FE0)
    assert isinstance(got, Translated)
    assert got.visits[0].at == 0x8_0FE0 + 24


def test_paes_pdptes_are_those_that_the_cpu_keeps_each_for_a_gibibyte() -> None:
    """SDM 4.4.1: bits 31:30 choose one of four, whatever lies in memory by now."""
    memory = lay("pae", flags("pae", MINE))
    kept = memory.word(ROOT + 3 * 8, 8)
    assert kept is not None
    memory.put(ROOT + 3 * 8, 0, 8)
    assert code(ask("pae", memory)) == 0
    assert code(ask("pae", memory, pdptes=(0, 0, 0, kept))) is None
    for three in ((kept, 0, 0, 0), (0, kept, 0, 0), (0, 0, kept, 0)):
        assert code(ask("pae", memory, pdptes=three)) == 0


# ---------------------------------------------------------- page faults (SDM 4.7), not present


@EACH
@pytest.mark.parametrize("user", [False, True])
def test_an_entry_that_is_not_present_stops_the_walk_at_its_level(name: str, user: bool) -> None:
    for level in range(len(SLOTS[name])):
        # Everything but P is set: without P nothing else is looked at.
        hole = (1 << 32) - 2 if name == "i386" else (1 << 64) - 2
        entries = [*flags(name, ALL)[:level], hole]
        memory = lay(name, entries)
        expected = {READ: 0, WRITE: 2, FETCH: 0 if name == "i386" else 0x10}
        for access, bits in expected.items():
            got = ask(name, memory, access, user=user)
            assert isinstance(got, Refused)
            assert got.visits[-1].level == NAMES[name][level]
            assert len(got.visits) == level + 1
            assert "not present" in got.reason
            assert code(got) == bits | (4 if user else 0)


@pytest.mark.parametrize(
    ("name", "nxe", "smep", "bits"),
    [
        ("i386", False, False, 0),
        ("i386", True, False, 0),
        ("i386", False, True, 0x10),
        ("pae", False, False, 0),
        ("pae", True, False, 0x10),
        ("pae", False, True, 0x10),
        ("x86_64", False, False, 0),
        ("x86_64", True, False, 0x10),
        ("x86_64", False, True, 0x10),
        ("la57", True, True, 0x10),
    ],
)
def test_the_fetch_bit_needs_smep_or_nxe_in_an_entry_that_has_bit_63(
    name: str, nxe: bool, smep: bool, bits: int
) -> None:
    mode = MODES[name]
    state = {
        "efer": mode.efer & ~NXE | (NXE if nxe else 0),
        "cr4": mode.cr4 | (SMEP if smep else 0),
    }
    memory = lay(name, [0])
    assert code(ask(name, memory, FETCH, **state)) == bits
    assert code(ask(name, memory, READ, **state)) == 0
    assert code(ask(name, memory, WRITE, **state)) == 2


@EACH
def test_a_table_in_a_hole_is_refused_with_that_reason(name: str) -> None:
    got = ask(name, Frames())
    assert isinstance(got, Refused)
    assert (code(got), got.visits) == (0, ())
    assert "not in memory" in got.reason
    for level in range(1, len(SLOTS[name])):
        memory = lay(name, flags(name, MINE))
        del memory.bytes[ROOT + 0x1000 * level]
        got = ask(name, memory, WRITE)
        assert isinstance(got, Refused)
        assert (code(got), len(got.visits)) == (2, level)
        assert f"the {NAMES[name][level]} at " in got.reason


# --------------------------------------------------------------------- access rights (SDM 4.6.1)

# (CPL 3, CR0.WP) -> page -> error codes of a read and of a write.
RIGHTS: dict[tuple[bool, bool], dict[int, tuple[int | None, int | None]]] = {
    (False, True): {0: (None, 3), RW: (None, None), US: (None, 3), US | RW: (None, None)},
    (False, False): {0: (None, None), RW: (None, None), US: (None, None), US | RW: (None, None)},
    (True, True): {0: (5, 7), RW: (5, 7), US: (None, 7), US | RW: (None, None)},
    (True, False): {0: (5, 7), RW: (5, 7), US: (None, 7), US | RW: (None, None)},
}


@EACH
@pytest.mark.parametrize(("user", "wp"), RIGHTS)
def test_reads_and_writes_by_page_privilege_and_write_protection(
    name: str, user: bool, wp: bool
) -> None:
    state = {"user": user, "cr0": PG_PE_WP if wp else PG_PE_WP & ~WP}
    for page, (read, write) in RIGHTS[user, wp].items():
        lacking = (RW | US) & ~page
        # The least of all levels counts: take the rights away at any one of them.
        for level in range(1 if name == "pae" else 0, len(SLOTS[name])):
            entries = flags(name, ALL)
            entries[level] &= ~lacking
            memory = lay(name, entries)
            assert code(ask(name, memory, READ, **state)) == read
            assert code(ask(name, memory, WRITE, **state)) == write
            got = ask(name, memory, READ, cr0=PG_PE_WP)
            assert isinstance(got, Translated)
            assert (got.writable, got.user) == (bool(page & RW), bool(page & US))


@EACH
@pytest.mark.parametrize(
    ("cr4", "ac", "user", "page", "read", "write", "fetch"),
    [
        (0, False, False, US, None, None, None),
        (SMEP, False, False, US, None, None, 0x11),
        (SMEP, False, False, 0, None, None, None),
        (SMEP, False, True, US, None, None, None),
        (SMEP, False, True, 0, 5, 7, 0x15),
        (SMAP, False, False, US, 1, 3, None),
        (SMAP, True, False, US, None, None, None),
        (SMAP, False, False, 0, None, None, None),
        (SMAP, False, True, US, None, None, None),
        (SMAP, True, True, 0, 5, 7, 0x15),
        (SMAP | SMEP, False, False, US, 1, 3, 0x11),
        (SMAP | SMEP, True, False, US, None, None, 0x11),
    ],
)
def test_smep_and_smap_keep_a_supervisor_from_user_pages(
    name: str,
    cr4: int,
    ac: bool,
    user: bool,
    page: int,
    read: int | None,
    write: int | None,
    fetch: int | None,
) -> None:
    memory = lay(name, flags(name, MINE | page))
    state: dict[str, Any] = {"cr4": MODES[name].cr4 | cr4, "ac": ac, "user": user}
    assert code(ask(name, memory, READ, **state)) == read
    assert code(ask(name, memory, WRITE, **state)) == write
    if fetch is not None and name == "i386" and not cr4 & SMEP:
        fetch &= ~0x10  # no NXE and no SMEP: the error code has no I bit
    assert code(ask(name, memory, FETCH, **state)) == fetch


@EACH
def test_smap_with_ac_still_honours_write_protection(name: str) -> None:
    memory = lay(name, flags(name, P | US | A | D))
    state: dict[str, Any] = {"cr4": MODES[name].cr4 | SMAP, "ac": True}
    assert code(ask(name, memory, WRITE, **state)) == 3
    assert code(ask(name, memory, WRITE, cr0=PG_PE_WP & ~WP, **state)) is None
    # Without AC, SMAP refuses even where write protection is off.
    assert code(ask(name, memory, WRITE, cr0=PG_PE_WP & ~WP, cr4=MODES[name].cr4 | SMAP)) == 3


@pytest.mark.parametrize("name", ["pae", *LONG])
def test_no_execute_at_any_level_keeps_fetches_out(name: str) -> None:
    for level in range(1 if name == "pae" else 0, len(SLOTS[name])):
        entries = flags(name, ALL)
        entries[level] |= XD
        memory = lay(name, entries)
        assert code(ask(name, memory, FETCH)) == 0x11
        assert code(ask(name, memory, FETCH, user=True)) == 0x15
        assert code(ask(name, memory, WRITE)) is None
        got = ask(name, memory, READ)
        assert isinstance(got, Translated)
        assert (got.executable, got.phys) == (False, PAGE + 0xABC)


@pytest.mark.parametrize("name", ["pae", *LONG])
def test_without_nxe_bit_63_is_reserved(name: str) -> None:
    efer = MODES[name].efer & ~NXE
    for level in range(1 if name == "pae" else 0, len(SLOTS[name])):
        entries = flags(name, ALL)
        entries[level] |= XD
        memory = lay(name, entries)
        assert code(ask(name, memory, READ, efer=efer)) == 9
        assert code(ask(name, memory, WRITE, efer=efer)) == 0xB
        assert code(ask(name, memory, FETCH, efer=efer)) == 9
        smep = MODES[name].cr4 | SMEP
        assert code(ask(name, memory, FETCH, efer=efer, cr4=smep)) == 0x19
        assert code(ask(name, memory, READ, efer=efer, user=True)) == 0xD


# ------------------------------------------------------------------ reserved bits (SDM 4.3 - 4.5)


def reserved_rows() -> list[tuple[str, int, bool, int, int, bool]]:
    """(mode, level, large page, bit, MAXPHYADDR, reserved), with the legal neighbour beside it."""
    rows = []
    for name, tops in (("x86_64", [0]), ("la57", [0, 1])):
        for top in tops:
            rows += [
                (name, top, False, bit, 46, bit in (7, 46, 51))
                for bit in (7, 8, 45, 46, 51, 52, 62)
            ]
        pdpt, pd, pt = range(len(tops), len(tops) + 3)
        rows += [(name, pdpt, True, bit, 46, bit != 12) for bit in (12, 13, 21, 29, 46, 51)]
        rows += [(name, pd, True, bit, 46, bit not in (12, 21)) for bit in (12, 13, 20, 21, 46)]
        for level in (pdpt, pd, pt):
            rows += [(name, level, False, bit, 46, bit in (46, 51)) for bit in (6, 46, 51, 52, 62)]
        rows += [(name, pt, False, bit, 52, False) for bit in (13, 51)]
        rows += [(name, pt, False, bit, 36, bit == 36) for bit in (35, 36)]
    rows += [("pae", 1, True, bit, 46, bit not in (12, 21)) for bit in (12, 13, 20, 21, 46, 52, 62)]
    for level in (1, 2):
        rows += [("pae", level, False, bit, 46, bit >= 46) for bit in (6, 45, 46, 51, 52, 57, 62)]
    rows += [("i386", 0, True, bit, 40, bit == 21) for bit in (12, 13, 20, 21)]
    rows += [("i386", 0, True, bit, 36, bit > 16) for bit in (13, 16, 17, 20, 21)]
    rows += [("i386", 0, True, bit, 32, bit > 12) for bit in (12, 13, 20, 21)]
    rows += [("i386", 0, True, bit, 52, bit == 21) for bit in (13, 20, 21)]
    rows += [("i386", 1, False, bit, 32, False) for bit in (7, 9, 13, 21)]
    return rows


@pytest.mark.parametrize(("name", "level", "large", "bit", "width", "reserved"), reserved_rows())
def test_reserved_bits_of_each_level(
    name: str, level: int, large: bool, bit: int, width: int, reserved: bool
) -> None:
    entries = flags(name, MINE, depth=level + 1 if large else None)
    entries[level] |= 1 << bit | (PS if large else 0)
    memory = lay(name, entries, 0 if large else PAGE)
    got = ask(name, memory, physical_bits=width)
    if reserved:
        assert code(got) == 9
        assert code(ask(name, memory, WRITE, physical_bits=width, user=True)) == 0xF
        assert isinstance(got, Refused)
        assert got.visits[-1].level == NAMES[name][level]
        assert f"{1 << bit:#x}" in got.reason
    else:
        # Legal, though an address bit of an entry on the way leads into a hole.
        on_the_way = not large and level < len(entries) - 1
        assert code(got) == (0 if on_the_way and 12 <= bit < width else None)


def test_reserved_bits_come_before_access_rights() -> None:
    memory = lay("x86_64", [*[MINE] * 3, P | A | 1 << 51])
    assert code(ask("x86_64", memory, WRITE, physical_bits=46, user=True)) == 0xF


@pytest.mark.parametrize(
    ("bit", "reserved"),
    [
        *((bit, True) for bit in (1, 2, 5, 6, 7, 8, 46, 51, 52, 62, 63)),
        *((bit, False) for bit in (3, 4, 9, 10, 11)),
    ],
)
def test_reserved_bits_of_a_pdpte_are_a_general_protection_fault(bit: int, reserved: bool) -> None:
    """SDM 4.4.1: they are checked by the MOV to CR3 that loads them, NXE or not."""
    memory = lay("pae", [P | 1 << bit, MINE, MINE])
    for efer in (0, NXE):
        got = ask("pae", memory, physical_bits=46, efer=efer)
        assert general_protection(got) == reserved
        assert isinstance(got, Refused if reserved else Translated)


# ------------------------------------------------------- accessed, dirty, global (SDM 4.8, 4.10.2.4)


@EACH
def test_a_clear_accessed_bit_on_the_way_has_to_be_set(name: str) -> None:
    for level in range(1 if name == "pae" else 0, len(SLOTS[name])):
        entries = flags(name, ALL)
        entries[level] &= ~A
        for access in Access:
            got = ask(name, lay(name, entries), access)
            assert isinstance(got, Translated)
            assert got.sets_accessed


@EACH
def test_a_clear_dirty_bit_matters_to_a_write_and_in_the_leaf_only(name: str) -> None:
    above = [entry & ~D for entry in flags(name, ALL)[:-1]]
    for leaf, access, sets in (
        (ALL, WRITE, False),
        (ALL & ~D, READ, False),
        (ALL & ~D, FETCH, False),
        (ALL & ~D, WRITE, True),
    ):
        got = ask(name, lay(name, [*above, leaf]), access)
        assert isinstance(got, Translated)
        assert got.sets_accessed == sets


@EACH
def test_global_is_the_leafs_bit_and_needs_pge(name: str) -> None:
    above = flags(name, ALL)[:-1]
    for cr4, leaf, is_global in (
        (PGE, ALL | G, True),
        (0, ALL | G, False),
        (PGE, ALL, False),
    ):
        got = ask(name, lay(name, [*above, leaf]), cr4=MODES[name].cr4 & ~PGE | cr4)
        assert isinstance(got, Translated)
        assert got.is_global == is_global
    upper = [
        entry if name == "pae" and not level else entry | G for level, entry in enumerate(above)
    ]
    got = ask(name, lay(name, [*upper, ALL]))
    assert isinstance(got, Translated)
    assert not got.is_global


# -------------------------------------------------------------- canonical addresses (SDM 1, 3.3.7.1)


@pytest.mark.parametrize(
    ("name", "virt", "good"),
    [
        ("x86_64", 0, True),
        ("x86_64", (1 << 47) - 1, True),
        ("x86_64", 1 << 47, False),
        ("x86_64", (1 << 64) - (1 << 47) - 1, False),
        ("x86_64", (1 << 64) - (1 << 47), True),
        ("x86_64", (1 << 64) - 1, True),
        ("x86_64", 1 << 63, False),
        ("la57", 1 << 47, True),
        ("la57", (1 << 56) - 1, True),
        ("la57", 1 << 56, False),
        ("la57", (1 << 64) - (1 << 56) - 1, False),
        ("la57", (1 << 64) - (1 << 56), True),
        ("i386", (1 << 32) - 1, True),
        ("i386", 1 << 32, False),
        ("pae", (1 << 32) - 1, True),
        ("pae", 1 << 32, False),
    ],
)
def test_only_canonical_addresses_are_walked(name: str, virt: int, good: bool) -> None:
    mmu = MODES[name].mmu(ROOT)
    assert canonical(virt, mmu) == good
    got = walk(Frames().word, mmu, virt, READ)
    assert general_protection(got) != good
    if not good:
        assert isinstance(got, Refused)
        assert got.visits == ()
        assert "not canonical" in got.reason


@pytest.mark.parametrize(
    ("cr4", "efer", "first"),
    [
        (0, 0, "PD"),
        (PAE, 0, "PDPT"),
        (PAE, LMA, "PML4"),
        (PAE | LA57, LMA, "PML5"),
        (LA57, 0, "PD"),
    ],
)
def test_the_paging_mode_follows_from_the_control_registers(
    cr4: int, efer: int, first: str
) -> None:
    """SDM 4.1.1: CR4.LA57 counts in long mode only."""
    memory = Frames()
    memory.put(ROOT, 0, 8)
    got = walk(memory.word, MODES["i386"].mmu(ROOT, cr4=cr4, efer=efer), 0, READ)
    assert isinstance(got, Refused)
    assert [visit.level for visit in got.visits] == [first]


def test_the_indices_above_are_those_of_the_addresses() -> None:
    """The hand-made slots against division, so that a slip in this file shows as one."""
    for name, mode in MODES.items():
        assert mode.indices(ADDRESS[name]) == SLOTS[name]
        assert mode.address(SLOTS[name], 0xABC) == ADDRESS[name]
