"""The sweep against the walk and the survey: what it lists is what they answer."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vmcore.cores import BASE, PGD, SIZE, Crashed, crashed, qemu
from tests.x86.modes import MODES as CPU_MODES
from tightrope import vmcore
from tightrope.errors import CoreError
from tightrope.model import Paging
from tightrope.model.pgd import EXECUTABLE, GLOBAL, USER, WRITABLE, Sweep
from tightrope.vmcore import sweep as module
from tightrope.vmcore.sweep import sweep
from tightrope.x86.survey import survey
from tightrope.x86.walk import Access, Mmu, Refused, Translated, walk

MODES = pytest.mark.parametrize("mode", [each.value for each in Paging])
DEAD = {each.value: crashed(each.value) for each in Paging}


def mmu(mode: str, physical_bits: int = 52) -> Mmu:
    return CPU_MODES[mode].mmu(PGD, physical_bits=physical_bits)


def swept(dead: Crashed, *, skew: int = 0, physical_bits: int = 52) -> Sweep:
    core = vmcore.parse(dead.core(skew=skew), "made")
    return sweep(core, vmcore.find_root(core), physical_bits=physical_bits)


def copy(mode: str) -> Crashed:
    dead = DEAD[mode]
    return Crashed(mode, bytearray(dead.memory), dict(dead.info), dead.tables)


@cache
def swept_whole(mode: str) -> Sweep:
    """What nothing was done to."""
    return swept(DEAD[mode])


@cache
def entries_of(mode: str) -> list[tuple[int, int, int]]:
    """The entries of the same."""
    return entries(DEAD[mode])


def entries(dead: Crashed) -> list[tuple[int, int, int]]:
    """(place, value, bytes) of every present entry of every table."""
    size = 4 if dead.mode == "i386" else 8
    found = []
    for table in dead.tables:
        count = 4 if dead.mode == "pae" and table == PGD else 4096 // size
        for index in range(count):
            at = table + index * size
            value = dead.word(at, size) or 0
            if value & 1:
                found.append((at, value, size))
    return found


@MODES
@pytest.mark.parametrize("skew", [0, 4, 12])
def test_the_sweep_lists_what_the_survey_lists(mode: str, skew: int) -> None:
    found, other = swept(DEAD[mode], skew=skew), survey(DEAD[mode].page, mmu(mode))
    flags = (
        other.writable * WRITABLE
        + other.user * USER
        + other.executable * EXECUTABLE
        + other.is_global * GLOBAL
    )
    columns = (other.virt, other.phys, other.size, flags)
    wanted = sorted(zip(*(each.tolist() for each in columns), strict=True))
    columns = (found.virt, found.phys, found.size, found.rights)
    assert list(zip(*(each.tolist() for each in columns), strict=True)) == wanted
    assert found.tables == len(DEAD[mode].tables)
    assert (found.missing.count, found.reserved.count) == (0, 0)


def look_up(found: Sweep, virt: int) -> tuple[int, int, int] | None:
    """(physical address, page size, rights) of a linear address, by a plain loop."""
    rows = zip(
        *(c.tolist() for c in (found.virt, found.size, found.phys, found.rights)), strict=True
    )
    for start, size, phys, rights in rows:
        if start <= virt < start + size:
            return phys + virt - start, size, rights
    return None


@given(st.data())
def test_after_any_bit_flip_the_sweep_still_says_what_the_cpu_would_do(data: st.DataObject) -> None:
    mode = data.draw(st.sampled_from(sorted(DEAD)))
    dead = copy(mode)
    places = entries_of(mode)
    physical_bits = data.draw(st.sampled_from([36, 40, 52]))
    at, value, size = data.draw(st.sampled_from(places))
    dead.put(at, value ^ 1 << data.draw(st.integers(0, size * 8 - 1)), size)
    found = swept(dead, physical_bits=physical_bits)
    state = mmu(mode, physical_bits)
    whole = swept_whole(mode)
    asked = st.sampled_from([*whole.virt.tolist(), *found.virt.tolist()])
    for virt in data.draw(st.lists(asked, min_size=1, max_size=8)):
        answer = walk(dead.word, state, virt, Access.READ)
        mine = look_up(found, virt)
        if isinstance(answer, Refused):
            assert mine is None
            continue
        assert isinstance(answer, Translated)
        assert mine is not None
        phys, page_size, rights = mine
        assert (phys, page_size) == (answer.phys, answer.page_size)
        assert bool(rights & WRITABLE) == answer.writable
        assert bool(rights & USER) == answer.user
        assert bool(rights & EXECUTABLE) == answer.executable
        assert bool(rights & GLOBAL) == answer.is_global


@MODES
def test_a_table_outside_the_core_is_missing(mode: str) -> None:
    dead = copy(mode)
    size = 4 if mode == "i386" else 8
    at, value, _ = entries(dead)[0]
    away = BASE + SIZE + 0x5000
    dead.put(at, value & 0xFFF | away, size)
    missing = swept(dead).missing
    assert (missing.count, missing.at.tolist()) == (1, [at])
    assert missing.entries.tolist() == [value & 0xFFF | away]
    assert missing.levels == (DEAD_TOP[mode],)


DEAD_TOP = {"i386": "PD", "pae": "PDPT", "x86_64": "PML4", "la57": "PML5"}


@pytest.mark.parametrize(
    ("mode", "bit", "at_leaf"),
    [
        ("i386", 21, True),
        ("pae", 1, False),
        ("pae", 63, False),
        ("pae", 52, True),
        ("x86_64", 7, False),
        ("x86_64", 13, True),
        ("x86_64", 51, True),
        ("la57", 7, False),
    ],
)
def test_a_reserved_bit_is_found_where_it_is(mode: str, bit: int, at_leaf: bool) -> None:
    dead = copy(mode)
    places = entries(dead)
    # A large page's entry, or the first of the pgd.
    at, value, size = next(
        (at, value, size)
        for at, value, size in places
        if not at_leaf or (value & 0x80 and value & 0x1000 == 0 and at >= BASE)
    )
    before = Counter(swept(dead, physical_bits=46).size.tolist())
    dead.put(at, value | 1 << bit, size)
    found = swept(dead, physical_bits=46)
    assert (found.reserved.count, found.reserved.at.tolist()) == (1, [at])
    assert found.reserved.entries.tolist() == [value | 1 << bit]
    assert Counter(found.size.tolist()) != before
    refused = walk(dead.word, mmu(mode, 46), int(found.reserved.virt[0]), Access.READ)
    assert isinstance(refused, Refused)
    assert "reserved" in refused.reason


@pytest.mark.parametrize("notes", [None, qemu(cr3=PGD, cr4=0x20)])
def test_an_accessed_pdpte_is_qemus_doing_and_a_dirty_one_is_reserved(notes: bytes | None) -> None:
    """Whoever wrote the core: one that a guest saved itself has no note of QEMU's."""
    dead = copy("pae")
    at, value, size = entries(dead)[0]
    dead.put(at, value | 0x20, size)
    core = vmcore.parse(dead.core() if notes is None else dead.core(notes=notes), "made")
    found = sweep(core, vmcore.find_root(core))
    assert found.reserved.count == 0
    assert found.virt.tolist() == swept(DEAD["pae"]).virt.tolist()
    dead.put(at, value | 0x40, size)
    core = vmcore.parse(dead.core() if notes is None else dead.core(notes=notes), "made")
    assert sweep(core, vmcore.find_root(core)).reserved.at.tolist() == [at]


def test_the_encryption_bit_belongs_to_no_address() -> None:
    dead, plain = copy("x86_64"), swept(DEAD["x86_64"])
    for at, value, size in entries(dead):
        dead.put(at, value | 1 << 47, size)
    dead.info["NUMBER(sme_mask)"] = str(1 << 47)
    found = swept(dead, physical_bits=43)
    assert found.phys.tolist() == plain.phys.tolist()
    assert found.reserved.count == 0


def test_a_table_that_is_shared_is_read_once_and_listed_as_often_as_it_maps() -> None:
    dead = copy("x86_64")
    used = next(value for at, value, _ in entries(dead) if at < PGD + 4096)
    dead.put(PGD, used, 8)
    dead.put(PGD + 8, used, 8)
    once, found = swept(DEAD["x86_64"]), swept(dead)
    other = survey(dead.page, mmu("x86_64"))
    assert found.virt.tolist() == sorted(other.virt.tolist())
    assert len(found.virt) > len(once.virt)
    assert found.tables == once.tables


@pytest.mark.parametrize("mode", ["x86_64", "la57"])
def test_tables_that_lead_to_themselves_are_refused_before_they_fill_memory(mode: str) -> None:
    dead = copy(mode)
    for index in range(512):
        dead.put(PGD + 8 * index, PGD | 0x63, 8)
    with pytest.raises(CoreError, match="lead to themselves") as caught:
        swept(dead)
    assert caught.value.limit == module.MAPPINGS_LIMIT


def test_a_self_map_as_some_kernels_have_it_is_listed() -> None:
    dead = copy("i386")
    dead.put(PGD + 4 * 1023, PGD | 0x63, 4)
    found = swept(dead)
    answer = walk(dead.word, mmu("i386"), 0xFFFF_F000, Access.READ)
    assert isinstance(answer, Translated)
    assert answer.phys == PGD
    assert look_up(found, 0xFFFF_F000) == (PGD, 4096, WRITABLE | EXECUTABLE)


def test_damage_without_end_is_counted_and_kept_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DAMAGE_LIMIT", 10)
    dead = copy("x86_64")
    for table in dead.tables[1:]:
        dead.memory[table - BASE : table - BASE + 4096] = b"\xff" * 4096
    found = swept(dead, physical_bits=46)
    assert found.reserved.count > 10
    assert len(found.reserved.at) == len(found.reserved.levels) == 10
