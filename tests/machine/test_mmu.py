"""The watched MMU: what it records, and which older translations the worst-case TLB may still use.

The rules are SDM 4.10.4.1 (operations that invalidate), told for one address that two tables map to
different frames: `STALE` is what the older one says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine import walks
from tests.machine.tables import (
    CPU,
    CR0,
    EFER,
    M2,
    NO_FLUSH,
    OPEN,
    PAE,
    PCIDE,
    PGE,
    PSE,
    RW,
    SMEP,
    XD,
    A,
    D,
    G,
    Trees,
    registers,
)
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import Stale, Step
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.physical import Ram
from tightrope.x86.walk import Access, Refused, walk

PAGE = 4096
HERE = 0x7F_1234_5000
OLD, NEW, THIRD = 0x40_0000, 0x50_0000, 0x60_0000


def ask(mmu: WatchedMmu, virt: int = HERE, access: Access = Access.READ) -> int:
    got = mmu.translate(virt, access, instruction=0, step=Step.CALL)
    assert not isinstance(got, Refused), got
    return got


def stale(mmu: WatchedMmu, virt: int = HERE, access: Access = Access.READ) -> tuple[Stale, ...]:
    ask(mmu, virt, access)
    return mmu.log[-1].stale


def two_trees(
    old: int = OPEN, new: int = OPEN, *, cr4: int = PAE | PGE
) -> tuple[WatchedMmu, int, int]:
    """HERE is OLD under the first root and NEW under the second, which is not yet loaded."""
    trees = Trees()
    first, second = trees.table(), trees.table()
    trees.map(first, HERE, OLD, old)
    trees.map(second, HERE, NEW, new)
    return trees.mmu(first, cr4=cr4), first, second


# ------------------------------------------------------------------------------ what is recorded


def test_the_first_question_of_a_page_is_recorded_with_its_walk() -> None:
    mmu, first, _ = two_trees()
    assert ask(mmu, HERE + 0x123) == OLD + 0x123
    (entry,) = mmu.log
    assert (entry.virt, entry.phys, entry.cr3) == (HERE + 0x123, OLD + 0x123, first)
    assert [visit.level for visit in entry.visits] == ["PML4", "PDPT", "PD", "PT"]
    assert entry.access is Access.READ


def test_a_page_is_asked_for_once_per_kind_of_access() -> None:
    mmu, _, _ = two_trees()
    for access in (Access.READ, Access.WRITE, Access.FETCH):
        ask(mmu, HERE, access)
        ask(mmu, HERE + 8, access)
    assert [each.access for each in mmu.log] == [Access.READ, Access.WRITE, Access.FETCH]


def test_a_large_page_is_asked_for_once() -> None:
    trees = Trees()
    root = trees.table()
    trees.map(root, M2, M2, large=True)
    mmu = trees.mmu(root)
    assert ask(mmu, M2 + 5) == M2 + 5
    assert ask(mmu, 2 * M2 - 1) == 2 * M2 - 1
    assert len(mmu.log) == 1


def test_with_a_stale_context_each_4k_of_a_large_page_is_a_question() -> None:
    trees = Trees()
    first, second = trees.table(), trees.table()
    trees.map(first, M2 + PAGE, OLD, OPEN | G)
    trees.map(second, M2, M2, large=True)
    mmu = trees.mmu(first)
    mmu.write_cr3(second)
    assert stale(mmu, M2) == ()
    assert [each.phys for each in stale(mmu, M2 + PAGE)] == [OLD]


def test_a_refusal_is_no_translation() -> None:
    mmu, _, _ = two_trees()
    got = mmu.translate(HERE + PAGE, Access.READ, instruction=0, step=Step.CALL)
    assert isinstance(got, Refused)
    assert mmu.log == []


def test_clear_accessed_bits_are_told() -> None:
    mmu, _, _ = two_trees(old=OPEN & ~A)
    ask(mmu)
    assert mmu.log[0].sets_accessed
    mmu, _, _ = two_trees(old=OPEN & ~D)
    ask(mmu)
    ask(mmu, HERE, Access.WRITE)
    assert [each.sets_accessed for each in mmu.log] == [False, True]


# ----------------------------------------------------------------------------- the worst-case TLB


def test_a_cr3_write_drops_what_is_not_global() -> None:
    mmu, _, second = two_trees()
    mmu.write_cr3(second)
    assert ask(mmu) == NEW
    assert mmu.log[-1].stale == ()
    assert mmu.log[-1].cr3 == second


def test_a_global_translation_survives_a_cr3_write() -> None:
    mmu, first, second = two_trees(old=OPEN | G)
    mmu.write_cr3(second)
    assert stale(mmu) == (Stale(phys=OLD, cr3=first, is_global=True, harmless=False),)  # type: ignore[arg-type]
    assert mmu.log[-1].phys == NEW


def test_it_survives_any_number_of_them() -> None:
    mmu, _, second = two_trees(old=OPEN | G)
    for _ in range(3):
        mmu.write_cr3(second)
    assert [each.phys for each in stale(mmu)] == [OLD]


def test_without_pge_the_global_bit_means_nothing() -> None:
    mmu, _, second = two_trees(old=OPEN | G, cr4=PAE)
    mmu.write_cr3(second)
    assert stale(mmu) == ()
    assert mmu.contexts == []


def test_an_address_that_the_old_tables_did_not_map_cannot_be_stale() -> None:
    trees = Trees()
    first, second = trees.table(), trees.table()
    trees.map(second, HERE, NEW)
    mmu = trees.mmu(first)
    mmu.write_cr3(second)
    assert stale(mmu) == ()


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("PGE cleared", PAE | PGE, PAE),
        ("PAE toggled", PAE | PGE, PGE),
        ("PSE set", PAE | PGE, PAE | PGE | PSE),
        ("PSE cleared", PAE | PGE | PSE, PAE | PGE),
        ("SMEP set", PAE | PGE, PAE | PGE | SMEP),
        ("PCIDE cleared", PAE | PGE | PCIDE, PAE | PGE),
    ],
)
def test_these_cr4_writes_drop_everything(name: str, before: int, after: int) -> None:
    mmu, _, second = two_trees(old=OPEN | G, cr4=before)
    mmu.write_cr3(second)
    assert mmu.contexts, name
    mmu.write_cr4(after)
    assert mmu.contexts == []
    assert mmu.mmu.cr4 == after


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("nothing changed", PAE | PGE, PAE | PGE),
        ("SMEP cleared", PAE | PGE | SMEP, PAE | PGE),
        ("PCIDE set", PAE | PGE, PAE | PGE | PCIDE),
        ("OSFXSR set", PAE | PGE, PAE | PGE | 1 << 9),
    ],
)
def test_these_cr4_writes_keep_global_translations(name: str, before: int, after: int) -> None:
    mmu, _, second = two_trees(old=OPEN | G, cr4=before)
    mmu.write_cr3(second)
    mmu.write_cr4(after)
    assert [each.phys for each in stale(mmu)] == [OLD], name


def test_pge_set_again_does_not_bring_them_back() -> None:
    mmu, _, second = two_trees(old=OPEN | G)
    mmu.write_cr3(second)
    mmu.write_cr4(PAE)
    mmu.write_cr4(PAE | PGE)
    assert stale(mmu) == ()


def test_turning_paging_off_drops_everything() -> None:
    mmu, _, second = two_trees(old=OPEN | G)
    mmu.write_cr3(second)
    mmu.write_cr0(CR0 & ~(1 << 31))
    assert mmu.contexts == []
    assert ask(mmu, 0x1234) == 0x1234


def test_a_cr0_write_that_leaves_paging_on_drops_nothing() -> None:
    mmu, _, second = two_trees(old=OPEN | G)
    mmu.write_cr3(second)
    mmu.write_cr0(CR0 & ~(1 << 16))
    assert [each.phys for each in stale(mmu)] == [OLD]


def test_a_right_that_only_wp_withholds_is_asked_again_when_wp_is_set() -> None:
    mmu, _, _ = two_trees(old=OPEN & ~RW)
    mmu.write_cr0(CR0 & ~(1 << 16))
    assert ask(mmu, HERE, Access.WRITE) == OLD
    mmu.write_cr0(CR0)
    got = mmu.translate(HERE, Access.WRITE, instruction=0, step=Step.CALL)
    assert isinstance(got, Refused)


def test_with_pcid_and_the_no_flush_bit_everything_is_kept() -> None:
    mmu, first, second = two_trees(cr4=PAE | PGE | PCIDE)
    mmu.write_cr3(second | NO_FLUSH)
    assert mmu.mmu.cr3 == second
    assert stale(mmu) == (Stale(phys=OLD, cr3=first, is_global=False, harmless=False),)  # type: ignore[arg-type]


def test_with_pcid_and_no_such_bit_only_global_ones_are_kept() -> None:
    mmu, _, second = two_trees(cr4=PAE | PGE | PCIDE)
    mmu.write_cr3(second)
    assert stale(mmu) == ()


def test_without_pge_the_next_write_drops_what_a_no_flush_write_kept() -> None:
    mmu, _, second = two_trees(old=OPEN | G, cr4=PAE | PCIDE)
    mmu.write_cr3(second | NO_FLUSH)
    assert [each.phys for each in stale(mmu)] == [OLD]
    mmu.write_cr3(second)
    assert stale(mmu) == ()


def test_what_a_no_flush_write_kept_keeps_its_global_ones_through_the_next_write() -> None:
    trees = Trees()
    first, second, third = (trees.table() for _ in range(3))
    trees.map(first, HERE, OLD, OPEN | G)
    trees.map(first, HERE + PAGE, OLD, OPEN)
    for root in (second, third):
        trees.map(root, HERE, NEW)
        trees.map(root, HERE + PAGE, NEW)
    mmu = trees.mmu(first, cr4=PAE | PGE | PCIDE)
    mmu.write_cr3(second | NO_FLUSH)
    mmu.write_cr3(third)
    assert [each.phys for each in stale(mmu)] == [OLD]
    assert stale(mmu, HERE + PAGE) == ()


def test_invlpg_drops_its_page_also_where_it_is_global_and_no_other() -> None:
    trees = Trees()
    first, second = trees.table(), trees.table()
    for at in (HERE, HERE + PAGE):
        trees.map(first, at, OLD, OPEN | G)
        trees.map(second, at, NEW)
    mmu = trees.mmu(first)
    mmu.write_cr3(second)
    ask(mmu)
    mmu.invlpg(HERE + 0x321)
    assert stale(mmu) == ()
    assert [each.phys for each in stale(mmu, HERE + PAGE)] == [OLD]


def test_invlpg_drops_the_current_translation_too() -> None:
    trees = Trees()
    root = trees.table()
    leaf = trees.map(root, HERE, OLD)
    mmu = trees.mmu(root)
    assert ask(mmu) == OLD
    trees.ram.write(leaf, (NEW | OPEN).to_bytes(8, "little"))
    assert ask(mmu) == OLD  # what the CPU has cached
    mmu.invlpg(HERE)
    assert ask(mmu) == NEW


def test_a_stale_translation_is_what_the_tables_said_before_they_were_overwritten() -> None:
    trees = Trees()
    first, second = trees.table(), trees.table()
    leaf = trees.map(first, HERE, OLD, OPEN | G)
    trees.map(second, HERE, NEW)
    mmu = trees.mmu(first)
    trees.ram.write(leaf, (THIRD | OPEN | G).to_bytes(8, "little"))
    mmu.write_cr3(second)
    assert [each.phys for each in stale(mmu)] == [OLD]


def test_tables_that_nobody_froze_are_read_as_they_are() -> None:
    trees = Trees()
    first = trees.table()
    trees.map(first, HERE, OLD)
    mmu = trees.mmu(first)
    second, third = trees.table(), trees.table()
    trees.map(second, HERE, NEW, OPEN | G)
    trees.map(third, HERE, THIRD)
    mmu.write_cr3(second)
    mmu.write_cr3(third)
    assert [each.phys for each in stale(mmu)] == [NEW]


# -------------------------------------------------------------------------------- what is harmless


def same_bytes(mmu: WatchedMmu, trees_at: tuple[int, int] = (OLD, NEW)) -> None:
    for frame in trees_at:
        mmu._ram.write(frame, b"\x90" * PAGE)


def test_the_same_frame_in_both_tables_is_not_stale() -> None:
    trees = Trees()
    first, second = trees.table(), trees.table()
    trees.map(first, HERE, OLD, OPEN | G)
    trees.map(second, HERE, OLD)
    mmu = trees.mmu(first)
    mmu.write_cr3(second)
    for access in Access:
        assert stale(mmu, HERE, access) == ()


def test_the_same_frame_with_fewer_rights_is() -> None:
    trees = Trees()
    first, second = trees.table(), trees.table()
    trees.map(first, HERE, OLD, (OPEN & ~RW) | G | XD)
    trees.map(second, HERE, OLD)
    mmu = trees.mmu(first)
    mmu.write_cr3(second)
    assert stale(mmu, HERE, Access.READ) == ()
    assert [each.harmless for each in stale(mmu, HERE, Access.WRITE)] == [False]
    assert [each.harmless for each in stale(mmu, HERE, Access.FETCH)] == [False]


def test_a_fetch_of_the_same_bytes_is_harmless_and_a_read_or_write_is_not() -> None:
    mmu, _, second = two_trees(old=OPEN | G)
    same_bytes(mmu)
    mmu.write_cr3(second)
    got = {access: [each.harmless for each in stale(mmu, HERE, access)] for access in Access}
    assert got == {Access.FETCH: [True], Access.READ: [False], Access.WRITE: [False]}


def test_a_fetch_of_one_other_byte_in_the_page_is_not_harmless() -> None:
    mmu, _, second = two_trees(old=OPEN | G)
    same_bytes(mmu)
    mmu._ram.write(OLD + PAGE - 1, b"\xcc")
    mmu.write_cr3(second)
    assert [each.harmless for each in stale(mmu, HERE, Access.FETCH)] == [False]


def test_a_fetch_of_the_same_bytes_that_may_not_be_executed_is_not_harmless() -> None:
    mmu, _, second = two_trees(old=OPEN | G | XD)
    same_bytes(mmu)
    mmu.write_cr3(second)
    assert [each.harmless for each in stale(mmu, HERE, Access.FETCH)] == [False]


# --------------------------------------------------------------------------------------- looking


def test_looking_leaves_no_trace_and_crosses_pages() -> None:
    trees = Trees()
    root = trees.table()
    trees.map(root, HERE, OLD)
    trees.map(root, HERE + PAGE, NEW)
    trees.ram.write(OLD + PAGE - 2, b"ab")
    trees.ram.write(NEW, b"cd")
    mmu = trees.mmu(root)
    assert mmu.look(HERE + PAGE - 2, 4) == b"abcd"
    assert mmu.log == []


def test_looking_at_what_is_not_mapped_or_not_memory_is_refused() -> None:
    trees = Trees()
    root = trees.table()
    trees.map(root, HERE, OLD)
    trees.map(root, HERE + PAGE, 1 << 33)
    mmu = trees.mmu(root)
    gone = mmu.look(HERE + 2 * PAGE, 1)
    assert isinstance(gone, Refused)
    assert gone.vector == 14
    hole = mmu.look(HERE + PAGE - 4, 8)
    assert isinstance(hole, Refused)
    assert "no memory answers at 0x200000000" in hole.reason


def test_looking_asks_for_the_right_that_is_wanted() -> None:
    mmu, _, _ = two_trees(old=(OPEN & ~RW) | XD)
    assert mmu.look(HERE, 1) == b"\0"
    assert isinstance(mmu.look(HERE, 1, Access.WRITE), Refused)
    assert isinstance(mmu.look(HERE, 1, Access.FETCH), Refused)


def test_what_was_looked_at_is_looked_at_again_after_a_store_or_other_tables() -> None:
    trees = Trees()
    one, other = trees.table(), trees.table()
    leaf = trees.map(one, HERE, OLD)
    trees.map(other, HERE, THIRD)
    for number, frame in enumerate((OLD, NEW, THIRD)):
        trees.ram.write(frame, bytes([number]))
    mmu = trees.mmu(one)
    assert mmu.look(HERE, 1) == b"\0"
    trees.ram.write(leaf, (NEW | OPEN).to_bytes(8, "little"))
    mmu.written()
    assert mmu.look(HERE, 1) == b"\1"
    mmu.write_cr3(other)
    assert mmu.look(HERE, 1) == b"\2"


def test_the_mmu_is_told_of_every_store_and_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    told = 0

    def written(_mmu: WatchedMmu) -> None:
        nonlocal told
        told += 1

    monkeypatch.setattr(WatchedMmu, "written", written)
    run = Emulator(in_bulk=False).run(walks.sound(walks.moving()))
    assert len(run.copies)
    assert len(run.stores)
    assert told >= len(run.copies) + len(run.stores)


def test_the_state_for_the_rules_is_the_one_that_was_written() -> None:
    mmu, _, second = two_trees()
    mmu.write_cr3(second)
    mmu.write_cr4(PAE | PSE)
    mmu.write_cr0(CR0 | 2)
    mmu.write_efer(0x901)
    state = mmu.state(code64=True)
    assert (state.cr0, state.cr3, state.cr4) == (CR0 | 2, second, PAE | PSE)
    assert state.efer == 0x901 | 0x400, "LMA is the CPU's own"
    assert (state.code64, state.physical_bits, state.la57) == (True, 46, False)


# -------------------------------------------------------------------------------- the property

SPOTS = (HERE, HERE + PAGE, HERE + 2 * PAGE, M2 * 2, M2 * 2 + 5 * PAGE, M2 * 4)


# ------------------------------------------------------------------------------- PAE's four entries

SLOT = 0x4000_0000
"""A linear address of the second PDPTE."""
CR0_CD, CR4_MCE = 1 << 30, 1 << 6


def pae() -> tuple[Ram, WatchedMmu]:
    """PAE paging whose second PDPTE is empty: the tables below it are there (SDM 4.4.2)."""
    ram = Ram((Extent(0, 8 << 20),))
    for at, entry in ((0x2000, 0x3000 | OPEN), (0x3000, NEW | OPEN)):
        ram.write(at, entry.to_bytes(8, "little"))
    legacy = replace(registers(cr3=0x1000, cr4=PAE | PGE), efer=0)
    return ram, WatchedMmu(ram, CPU, legacy, {})


def fill(ram: Ram) -> None:
    """The second PDPTE, in memory."""
    ram.write(0x1008, (0x2000 | 1).to_bytes(8, "little"))


WRITTEN: dict[str, tuple[Callable[[WatchedMmu], None], bool]] = {
    "nothing": (lambda mmu: None, False),
    "CR3, the same value": (lambda mmu: mmu.write_cr3(0x1000), True),
    "CR4, the same value": (lambda mmu: mmu.write_cr4(PAE | PGE), False),
    "CR4.MCE": (lambda mmu: mmu.write_cr4(PAE | PGE | CR4_MCE), False),
    "CR4.PGE": (lambda mmu: mmu.write_cr4(PAE), True),
    "CR4.PSE": (lambda mmu: mmu.write_cr4(PAE | PGE | PSE), True),
    "CR4.SMEP": (lambda mmu: mmu.write_cr4(PAE | PGE | SMEP), True),
    "CR0.WP": (lambda mmu: mmu.write_cr0(CR0 & ~(1 << 16)), False),
    "CR0.CD": (lambda mmu: mmu.write_cr0(CR0 | CR0_CD), True),
    "INVLPG": (lambda mmu: mmu.invlpg(SLOT), False),
}
"""What is written after the edit, and whether it makes the CPU read the PDPTEs (SDM 4.4.1)."""


@pytest.mark.parametrize("name", WRITTEN)
def test_a_pdpte_that_is_edited_counts_from_the_next_load_on(name: str) -> None:
    ram, mmu = pae()
    write, loads = WRITTEN[name]
    assert isinstance(mmu.translate(SLOT, Access.READ, instruction=0, step=Step.CALL), Refused)
    fill(ram)
    write(mmu)
    got = mmu.translate(SLOT, Access.READ, instruction=0, step=Step.CALL)
    if loads:
        assert got == NEW
    else:
        assert isinstance(got, Refused)
        assert got.reason == "the PDPT entry is not present"


@pytest.mark.parametrize("name", WRITTEN)
def test_a_pdpte_that_is_taken_away_is_used_until_then(name: str) -> None:
    ram, mmu = pae()
    write, loads = WRITTEN[name]
    fill(ram)
    mmu.write_cr3(0x1000)
    ram.write(0x1008, bytes(8))
    write(mmu)
    got = mmu.translate(SLOT, Access.READ, instruction=0, step=Step.CALL)
    assert isinstance(got, Refused) if loads else got == NEW


def test_only_a_write_that_loads_the_pdptes_is_refused_for_their_reserved_bits() -> None:
    ram, mmu = pae()
    ram.write(0x1008, (0x2000 | 3).to_bytes(8, "little"))
    assert mmu.pdpte_refusal(cr4=PAE | PGE | CR4_MCE) is None
    assert mmu.pdpte_refusal(cr0=CR0 & ~(1 << 16)) is None
    for refused in (mmu.pdpte_refusal(cr3=0x1000), mmu.pdpte_refusal(cr4=PAE)):
        assert refused is not None
        assert "reserved bits 0x2" in refused


def world() -> tuple[Trees, list[int]]:
    """Three roots that differ in frames, rights, page sizes and what they map at all."""
    trees = Trees()
    roots = [trees.table() for _ in range(3)]
    for number, root in enumerate(roots):
        base = OLD + number * 0x10_0000
        trees.map(root, HERE, base, OPEN | (G if number == 0 else 0))
        trees.map(root, HERE + PAGE, base + PAGE, OPEN & ~RW if number == 1 else OPEN | XD)
        if number != 1:
            trees.map(root, HERE + 2 * PAGE, base + 2 * PAGE, OPEN | G)
        if number == 2:
            trees.map(root, M2 * 2, M2, OPEN | G, large=True)
        else:
            for page in range(6):
                trees.map(root, M2 * 2 + page * PAGE, base + page * PAGE)
    return trees, roots


def write_efer(mmu: WatchedMmu, value: int) -> None:
    mmu.write_efer(value)


WRITES: dict[str, Callable[[WatchedMmu, int], None]] = {
    "cr0": WatchedMmu.write_cr0,
    "cr3": WatchedMmu.write_cr3,
    "cr4": WatchedMmu.write_cr4,
    "efer": WatchedMmu.write_efer,
    "invlpg": WatchedMmu.invlpg,
}
operations = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from(SPOTS), st.sampled_from(list(Access))),
        st.tuples(st.just("cr3"), st.sampled_from([0, 1, 2]), st.booleans()),
        st.tuples(
            st.just("cr4"),
            st.sampled_from([PAE, PAE | PGE, PAE | PGE | PCIDE, PAE | SMEP]),
            st.none(),
        ),
        st.tuples(st.just("cr0"), st.sampled_from([CR0, CR0 & ~(1 << 16)]), st.none()),
        st.tuples(st.just("efer"), st.sampled_from([EFER, EFER & ~0x800]), st.none()),
        st.tuples(st.just("invlpg"), st.sampled_from(SPOTS), st.none()),
    ),
    max_size=25,
)


@settings(max_examples=80)
@given(operations)
def test_an_answer_is_always_that_of_the_tables_and_rights_in_force(
    sequence: list[tuple[str, int, object]],
) -> None:
    trees, roots = world()
    mmu = trees.mmu(roots[0])
    for what, value, more in sequence:
        if what != "ask":
            if what == "cr3":
                value = roots[value] | (NO_FLUSH if more and mmu.mmu.cr4 & PCIDE else 0)
            WRITES[what](mmu, value)
        for spot in SPOTS:
            for access in Access:
                if what == "ask" and (spot, access) != (value, more):
                    continue
                fresh = walk(trees.ram.word, mmu.mmu, spot + 7, access)
                got = mmu.translate(spot + 7, access, instruction=0, step=Step.CALL)
                if isinstance(fresh, Refused):
                    assert isinstance(got, Refused)
                    assert got == fresh
                    assert mmu.cached(spot + 7, access) is None
                else:
                    assert got == fresh.phys
                    assert mmu.cached(spot + 7, access) == fresh.phys
