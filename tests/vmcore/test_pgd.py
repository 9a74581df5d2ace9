"""The judgement: whole tables, destroyed ones, and two cores of one kernel compared."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.screens import facts, screen
from tests.vmcore.cores import (
    BASE,
    MIB,
    PGD,
    SIZE,
    Crashed,
    Load,
    crashed,
    elf_core,
    qemu,
    vmcoreinfo,
)
from tightrope import vmcore
from tightrope.errors import CoreError
from tightrope.memory import Extent
from tightrope.model import Paging
from tightrope.model.pgd import Wholeness
from tightrope.views.pgd import VIEW, Looked
from tightrope.vmcore import ranges as ranges_module
from tightrope.x86.paging import X86_64, Rights
from tightrope.x86.tables import TableStore

MODES = pytest.mark.parametrize("mode", [each.value for each in Paging])


def judged(dead: Crashed) -> vmcore.Pgd:
    return vmcore.pgd(vmcore.parse(dead.core(), "made"))


@MODES
def test_a_kernel_that_died_with_whole_tables_is_whole(mode: str) -> None:
    found = judged(crashed(mode))
    assert found.whole
    assert found.faults == ()
    # Text, direct map and one device page; on i386 the direct map is the text's mapping too.
    text = 4 * MIB if crashed(mode).bits == 64 else 0
    assert found.bytes_mapped == SIZE + text + 4096
    assert (found.elsewhere, found.partly) == (1, 0)
    assert found.held == found.mappings - 1
    assert sum(size * count for size, count in found.sizes.items()) == found.bytes_mapped


@MODES
@pytest.mark.parametrize("fill", [0x00, 0xFF, 0x63, 0x25])
def test_a_pgd_page_that_was_destroyed_is_found(mode: str, fill: int) -> None:
    dead = crashed(mode)
    dead.memory[PGD - BASE : PGD - BASE + 4096] = bytes([fill]) * 4096
    found = judged(dead)
    assert not found.whole
    assert any("swapper_pg_dir" in fault or "entry" in fault for fault in found.faults)


@MODES
def test_any_destroyed_table_is_found_or_seen_in_the_difference(mode: str) -> None:
    whole = judged(crashed(mode))
    for table in crashed(mode).tables:
        dead = crashed(mode)
        dead.memory[table - BASE : table - BASE + 4096] = bytes(4096)
        broken = judged(dead)
        changes = vmcore.difference(whole.found, broken.found)
        assert changes
        assert all(each.kind == "removed" for each in changes)


FLIPPABLE = {"p": 0, "rw": 1, "us": 2, "address 12": 12, "address 20": 20, "address 29": 29}


@given(st.sampled_from(list(Paging)), st.sampled_from(sorted(FLIPPABLE)), st.data())
def test_a_bit_flip_in_a_table_is_found_by_the_difference(
    mode: Paging, bit: str, data: st.DataObject
) -> None:
    dead = crashed(mode.value)
    size = 4 if mode is Paging.I386 else 8
    at = data.draw(
        st.sampled_from(
            [
                table + n * size
                for table in dead.tables
                for n in range(4 if mode is Paging.PAE and table == PGD else 4096 // size)
                if (dead.word(table + n * size, size) or 0) & 1
                # A large page has no address bit 12 or 20, and a PDPTE of PAE no rights.
                and not (
                    bit.startswith("address") and (dead.word(table + n * size, size) or 0) & 0x80
                )
                and not (mode is Paging.PAE and table == PGD and bit in ("rw", "us"))
                # Above the text, which is read-only, the R/W bit of an upper table changes nothing.
                and not (
                    bit == "rw"
                    and (dead.word(table + n * size, size) or 0) & 0x000F_FFFF_FFFF_F000
                    in dead.tables
                )
                # Above a supervisor page the U/S bit of an upper table changes nothing.
                and not (bit == "us" and table != dead.tables[-1])
            ]
        )
    )
    value = dead.word(at, size) or 0
    dead.put(at, value ^ 1 << FLIPPABLE[bit], size)
    before, after = judged(crashed(mode.value)), judged(dead)
    if bit == "us":
        # The rights of a page are those of every level: alone, U/S of a leaf changes nothing either.
        assert vmcore.difference(before.found, after.found) == ()
        return
    assert vmcore.difference(before.found, after.found)


def test_the_text_mapped_to_the_wrong_place_is_a_fault() -> None:
    dead = crashed("x86_64")
    dead.info["NUMBER(phys_base)"] = "0"
    dead.info["SYMBOL(_stext)"] = "ffffffff81000800"
    assert judged(dead).whole
    dead.info["SYMBOL(_stext)"] = "ffffffffc1000000"
    (fault,) = judged(dead).faults
    assert "_stext at 0xffffffffc1000000 is not mapped" in fault


def test_faults_of_one_kind_are_named_and_the_rest_counted() -> None:
    dead = crashed("x86_64")
    leaf = dead.tables[-1]
    for n in range(20):
        dead.put(leaf + 8 * n, 1 << 51 | 1, 8)
    found = vmcore.pgd(vmcore.parse(dead.core(), "made"), physical_bits=46)
    assert sum("has reserved bits set" in fault for fault in found.faults) == 9
    assert found.faults[-1].startswith("12 more")


def test_a_root_outside_the_core_cannot_be_told() -> None:
    core = vmcore.parse(crashed("x86_64").core(), "made")
    with pytest.raises(CoreError, match="not in the core's memory"):
        vmcore.pgd(core, cr3=BASE + SIZE)
    # What is given is not replaced by what another teller knows.
    notes = vmcoreinfo(crashed("x86_64").info) + vmcoreinfo({"OSRELEASE": "6.1"})
    two = vmcore.parse(crashed("x86_64").core(notes=notes), "made")
    with pytest.raises(CoreError, match="CR3 as given"):
        vmcore.pgd(two, cr3=BASE + SIZE)
    with pytest.raises(CoreError, match="between 32 and 52"):
        vmcore.pgd(core, physical_bits=64)


def test_given_tables_of_another_process_need_not_map_the_kernel() -> None:
    dead = crashed("x86_64")
    other = PGD + 4096
    dead.put(other, dead.word(PGD + 8 * 511, 8) or 0, 8)
    core = vmcore.parse(dead.core(), "made")
    found = vmcore.pgd(core, cr3=other)
    assert found.whole
    assert found.mappings == 2


def test_a_mapping_that_leads_half_out_of_the_core_is_counted_as_such() -> None:
    dead = crashed("x86_64")
    dead.memory = dead.memory[: SIZE - MIB]
    found = judged(dead)
    assert (found.partly, found.elsewhere) == (1, 1)
    assert found.whole


# --------------------------------------------------------------- whole, not whole, cannot be told


def with_rows(dead: Crashed, *rows: tuple[int, int, int]) -> bytes:
    """The core with memory [start, end) in a row each, and so many bytes left out behind it."""
    loads = [
        Load(start, dead.memory[start - BASE : end - BASE], left_out=left)
        for start, end, left in rows
    ]
    return elf_core(loads, vmcoreinfo(dead.info), bits=dead.bits)


def answer(data: bytes) -> vmcore.Pgd:
    return vmcore.pgd(vmcore.parse(data, "made"))


@MODES
def test_a_table_of_zeros_is_whole_where_it_is_held_and_not_told_where_it_is_left_out(
    mode: str,
) -> None:
    dead = crashed(mode)
    end = BASE + SIZE
    dead.put(PGD + 8 * 2, end | (1 if mode == "pae" else 0x63), 4 if mode == "i386" else 8)
    dead.memory += bytes(4096)
    held = answer(with_rows(dead, (BASE, end + 4096, 0)))
    assert (held.answer, held.faults, held.doubts) == (Wholeness.WHOLE, (), ())
    left = answer(with_rows(dead, (BASE, end, 4096)))
    assert (left.answer, left.whole, left.faults) == (Wholeness.UNTOLD, False, ())
    (doubt,) = left.doubts
    assert f"entry {end | (1 if mode == 'pae' else 0x63):#x}" in doubt
    assert "zeros, or not dumped" in doubt
    outside = answer(with_rows(dead, (BASE, end, 0)))
    assert outside.answer is Wholeness.NOT_WHOLE
    assert "not in the core's memory" in outside.faults[0]


@MODES
def test_what_is_wrong_is_wrong_whatever_else_is_left_out(mode: str) -> None:
    dead = crashed(mode)
    size = 4 if mode == "i386" else 8
    dead.put(PGD + size * 2, (BASE + SIZE) | (1 if mode == "pae" else 0x63), size)
    dead.put(PGD + size, 1 << 30 | (1 if mode == "pae" else 0x63), size)
    found = answer(with_rows(dead, (BASE, BASE + SIZE, 4096)))
    assert found.answer is Wholeness.NOT_WHOLE
    assert (found.found.missing.count, found.found.untold.count) == (1, 1)


@MODES
def test_a_table_in_adjoining_rows_is_joined(mode: str) -> None:
    dead = crashed(mode)
    table = dead.tables[-1]
    cuts = (BASE, PGD + 5, table + 0x1F0, table + 0x220, BASE + SIZE)
    rows = [(a, b, 0) for a, b in pairwise(cuts)]
    found, whole = answer(with_rows(dead, *reversed(rows))), judged(crashed(mode))
    assert found.whole
    assert found.found.virt.tolist() == whole.found.virt.tolist()
    assert found.found.phys.tolist() == whole.found.phys.tolist()


def test_root_and_format_come_from_one_teller() -> None:
    dead = crashed("x86_64")
    notes = vmcoreinfo(dead.info) + qemu(cr3=BASE, cr4=0x16F0)
    found = answer(dead.core(notes=notes))
    assert (found.root.phys, found.root.paging, found.whole) == (PGD, Paging.X86_64, True)
    assert found.root.settled == ("la57 by CR4 in QEMU's note is of other tables",)
    # And the other way: without a pgd in VMCOREINFO the note's root has the note's format.
    del dead.info["SYMBOL(swapper_pg_dir)"]
    notes = vmcoreinfo(dead.info | {"NUMBER(pgtable_l5_enabled)": "1"}) + qemu(cr3=PGD, cr4=0x6F0)
    found = answer(dead.core(notes=notes))
    assert (found.root.paging, found.whole) == (Paging.X86_64, True)
    assert found.root.settled == ("la57 by NUMBER(pgtable_l5_enabled) is of other tables",)


@pytest.mark.parametrize(("mode", "cr4"), [("i386", 0x90), ("pae", 0xB0)])
@pytest.mark.parametrize("bits", [32, 64])
def test_a_32_bit_guests_core_is_read_in_either_class(mode: str, cr4: int, bits: int) -> None:
    """QEMU's dump-guest-memory: ELFCLASS64 with EM_386 where the guest has memory above 4 GiB
    (target/i386/arch_dump.c, cpu_get_dump_info)."""
    dead = crashed(mode)
    high = Load(1 << 32, bytes(4096)) if bits == 64 else Load(BASE + SIZE, bytes(4096))
    loads = [Load(BASE, dead.memory), high]
    for notes in (qemu(cr3=PGD, cr4=cr4), vmcoreinfo(dead.info) + qemu(cr3=PGD, cr4=cr4)):
        found = answer(elf_core(loads, notes, bits=bits, machine=3))
        assert (found.root.phys, found.root.paging.value, found.whole) == (PGD, mode, True)
    # And what is broken in it is found as well.
    dead.memory[PGD - BASE : PGD - BASE + 4096] = b"\x25" * 4096
    broken = elf_core(loads, qemu(cr3=PGD, cr4=cr4), bits=bits, machine=3)
    assert not answer(broken).whole


def test_a_wrong_machine_in_the_header_is_settled_by_the_kernels_own_symbols() -> None:
    dead = crashed("x86_64")
    data = bytearray(dead.core())
    data[18] = 3
    found = answer(bytes(data))
    assert (found.root.paging, found.whole) == (Paging.X86_64, True)
    assert "machine 3" in found.root.settled[0]


def foreign(dead: Crashed, moved: int) -> Crashed:
    """The same memory with VMCOREINFO of a boot in which KASLR put the kernel elsewhere."""
    other = Crashed(dead.mode, dead.memory, dict(dead.info), dead.tables)
    for name in ("SYMBOL(swapper_pg_dir)", "SYMBOL(_stext)"):
        other.info[name] = f"{int(dead.info[name], 16) + moved:x}"
    return other


@pytest.mark.parametrize("mode", ["x86_64", "la57"])
@pytest.mark.parametrize("moved", [4 << 20, 10 << 20])
def test_vmcoreinfo_of_another_boot_is_recognised(mode: str, moved: int) -> None:
    found = judged(foreign(crashed(mode), moved))
    assert found.answer is Wholeness.UNTOLD
    (doubt,) = found.doubts
    assert "another boot" in doubt
    assert f"--cr3 {PGD:#x}" in doubt
    told = vmcore.pgd(found.core, cr3=PGD)
    assert told.whole


@pytest.mark.parametrize("mode", ["x86_64", "la57"])
@pytest.mark.parametrize("moved", [-(2 << 20), 4 << 20, 10 << 20])
def test_where_vmcoreinfo_is_of_another_boot_whoever_else_knows_is_asked(
    mode: str, moved: int
) -> None:
    """Another VMCOREINFO, before or behind it, or QEMU; what two of them say is never mixed."""
    dead = crashed(mode)
    other = foreign(dead, moved)
    del other.info["NUMBER(pgtable_l5_enabled)"]
    mine, theirs = vmcoreinfo(dead.info), vmcoreinfo(other.info)
    cr4 = 0x16F0 if mode == "la57" else 0x6F0
    note = qemu(cr3=PGD, cr4=cr4)
    for notes, settled in (
        (mine + theirs, ()),
        (mine + mine, ()),
        (theirs + mine, ("another VMCOREINFO is of another boot",)),
        (theirs + note, ("VMCOREINFO is of another boot",)),
        (note + theirs, ("VMCOREINFO is of another boot",)),
    ):
        found = answer(dead.core(notes=notes))
        assert (found.root.phys, found.root.paging.value, found.whole) == (PGD, mode, True)
        assert found.root.settled == settled
    # Nobody else knows: a note of QEMU's that leads to no tables settles nothing.
    lost = theirs + qemu(cr3=BASE + SIZE - 4096, cr4=cr4)
    if moved > 0:
        assert answer(dead.core(notes=lost)).answer is Wholeness.UNTOLD
    else:
        with pytest.raises(CoreError, match="another boot"):
            answer(dead.core(notes=lost))


@pytest.mark.parametrize("mode", ["x86_64", "la57"])
def test_where_nobody_says_how_many_levels_there_are_the_symbols_do(mode: str) -> None:
    """VMCOREINFO that was cut short."""
    dead = crashed(mode)
    del dead.info["NUMBER(pgtable_l5_enabled)"]
    found = judged(dead)
    assert (found.root.phys, found.root.paging.value, found.whole) == (PGD, mode, True)
    settled = ("under 4 levels no symbol is where VMCOREINFO says",) if mode == "la57" else ()
    assert found.root.settled == settled
    other = judged(foreign(dead, 4 << 20))
    assert other.answer is Wholeness.UNTOLD
    assert f"--cr3 {PGD:#x}" in other.doubts[0]
    dead.memory[PGD - BASE : PGD - BASE + 4096] = bytes(4096)
    assert judged(dead).answer is Wholeness.NOT_WHOLE


@pytest.mark.parametrize("notes", [b"", qemu(cr3=PGD, cr4=0xB0)], ids=["alone", "with QEMU's"])
def test_where_nobody_says_that_a_32_bit_kernel_has_pae_the_symbols_do(notes: bytes) -> None:
    """VMCOREINFO that was cut short; what is merely not said is not that it is not so."""
    dead = crashed("pae")
    del dead.info["CONFIG_X86_PAE"]
    found = answer(dead.core(notes=notes + vmcoreinfo(dead.info)))
    assert (found.root.phys, found.root.paging, found.whole) == (PGD, Paging.PAE, True)
    assert found.root.settled == ("as i386 tables no symbol is where VMCOREINFO says",)
    table = dead.tables[1]
    cut = ((BASE, table, 4096), (table + 4096, BASE + SIZE, 0))
    left = answer(with_rows(dead, *cut))
    assert (left.answer, left.root.paging) == (Wholeness.UNTOLD, Paging.PAE)
    dead.memory[PGD - BASE : PGD - BASE + 4096] = b"\x25" * 4096
    assert answer(dead.core(notes=notes + vmcoreinfo(dead.info))).answer is Wholeness.NOT_WHOLE
    # The right twin: a kernel without PAE is read as it says, and a destroyed one is destroyed.
    plain = crashed("i386")
    assert (judged(plain).root.paging, judged(plain).root.settled) == (Paging.I386, ())
    plain.memory[PGD - BASE : PGD - BASE + 4096] = bytes(4096)
    assert judged(plain).answer is Wholeness.NOT_WHOLE


@pytest.mark.parametrize("mode", ["x86_64", "la57"])
@pytest.mark.parametrize("base", ["-1", "1", "0x1000010"])
def test_a_pgd_that_would_not_fill_a_page_was_never_a_kernels(mode: str, base: str) -> None:
    """A phys_base that somebody spoilt: where the tables are is not told, and they are not bad."""
    dead = crashed(mode)
    right = dead.info["NUMBER(phys_base)"]
    dead.info["NUMBER(phys_base)"] = base
    with pytest.raises(CoreError, match="give their CR3"):
        judged(dead)
    cr4 = 0x16F0 if mode == "la57" else 0x6F0
    assert answer(dead.core(notes=vmcoreinfo(dead.info) + qemu(cr3=PGD, cr4=cr4))).whole
    dead.info["NUMBER(phys_base)"] = right
    assert judged(dead).whole


def test_a_symbol_at_0_says_nothing_of_a_kernel() -> None:
    dead = crashed("x86_64")
    named = vmcoreinfo({"SYMBOL(init_top_pgt)": "0"} | dead.info)
    assert answer(dead.core(notes=named)).whole
    alone = vmcoreinfo({"SYMBOL(init_top_pgt)": "0"}) + qemu(cr3=PGD, cr4=0x6F0)
    assert answer(dead.core(notes=alone)).root.paging is Paging.X86_64


def test_a_destroyed_pgd_is_not_excused_by_a_second_vmcoreinfo() -> None:
    dead = crashed("x86_64")
    notes = vmcoreinfo(dead.info) + vmcoreinfo(foreign(dead, 4 << 20).info)
    dead.memory[PGD - BASE : PGD - BASE + 4096] = bytes(4096)
    assert answer(dead.core(notes=notes)).answer is Wholeness.NOT_WHOLE


def test_a_cpu_without_paging_has_no_root() -> None:
    """One that was never started, or is in firmware, has a CR3 that means nothing."""
    dead = crashed("x86_64")
    idle = qemu(cr3=BASE + 0x3000, cr4=0, cr0=0x6000_0010)
    found = answer(dead.core(notes=idle + qemu(cr3=PGD, cr4=0x6F0)))
    assert (found.root.phys, found.whole) == (PGD, True)
    with pytest.raises(CoreError, match="give their CR3"):
        answer(dead.core(notes=idle))


ROWS = {
    "four pieces of a frame, in another order": ((0x100, 0x200, 0x900), (2, 0, 3, 1)),
    "pieces that cut an entry": ((4, 12, 13), (1, 3, 0, 2)),
    "a piece of one byte": ((0xFFF, 0x1000, 0x1001), (3, 2, 1, 0)),
}


@pytest.mark.parametrize("name", ROWS)
@MODES
def test_pieces_of_a_table_are_joined_in_whatever_order_they_are(mode: str, name: str) -> None:
    inside, order = ROWS[name]
    for table in (crashed(mode).tables[0], crashed(mode).tables[-1]):
        dead = crashed(mode)
        cuts = (BASE, *(table + each for each in inside), BASE + SIZE)
        rows = [(a, b, 0) for a, b in pairwise(cuts)]
        found = answer(with_rows(dead, *(rows[each] for each in order)))
        assert (found.answer, found.faults, found.doubts) == (Wholeness.WHOLE, (), ())


@MODES
def test_a_piece_of_a_table_that_is_left_out_is_not_told_and_one_that_no_row_has_is_missing(
    mode: str,
) -> None:
    dead = crashed(mode)
    table, end = dead.tables[-1], BASE + SIZE
    before, behind = (BASE, table + 0x100, 0), (table + 0x200, end, 0)
    left = answer(with_rows(dead, behind, before, (table + 0x100, table + 0x100, 0x100)))
    assert (left.answer, left.faults) == (Wholeness.UNTOLD, ())
    assert answer(with_rows(dead, before, behind)).answer is Wholeness.NOT_WHOLE
    # A row without bytes over what another row has takes nothing away.
    for rows in (((BASE, end, 0), (table, table, 4096)), ((table, table, 4096), (BASE, end, 0))):
        assert answer(with_rows(dead, *rows)).whole


@pytest.mark.parametrize("mode", ["x86_64", "la57"])
@pytest.mark.parametrize("moved", [0x1000, 0x2_3000, 1 << 20])
def test_vmcoreinfo_of_another_build_is_recognised_though_every_symbol_fits(
    mode: str, moved: int
) -> None:
    dead = crashed(mode)
    dead.info["SYMBOL(swapper_pg_dir)"] = (
        f"{int(dead.info['SYMBOL(swapper_pg_dir)'], 16) + moved:x}"
    )
    found = judged(dead)
    assert found.answer is Wholeness.UNTOLD
    (doubt,) = found.doubts
    assert "another boot" in doubt
    assert f"--cr3 {PGD:#x}" in doubt
    assert vmcore.pgd(found.core, cr3=PGD).whole


def test_vmcoreinfo_of_another_boot_may_name_a_pgd_outside_the_core() -> None:
    with pytest.raises(CoreError, match="another boot") as caught:
        judged(foreign(crashed("x86_64"), -(2 << 20)))
    assert f"--cr3 {PGD:#x}" in str(caught.value)


def test_a_note_that_names_a_table_in_use_as_the_pgd_is_of_another_boot() -> None:
    dead = crashed("x86_64")
    text = int(dead.info["SYMBOL(_stext)"], 16)
    dead.info["SYMBOL(swapper_pg_dir)"] = f"{text + 4096:x}"
    dead.memory[0x1000:0x2000] = dead.memory[PGD - BASE : PGD - BASE + 4096]
    used = dead.word(BASE + 0x1000 + 8 * 511, 8) or 0
    dead.memory[0x1000:0x2000] = dead.page(used & 0x000F_FFFF_FFFF_F000) or b""
    dead.put(PGD + 8 * 511, BASE + 0x1000 | used & 0xFFF, 8)
    found = judged(dead)
    assert found.answer is Wholeness.UNTOLD
    assert f"--cr3 {PGD:#x}" in found.doubts[0]


@pytest.mark.parametrize("fill", [0x00, 0xFF, 0x63, 0x25])
@pytest.mark.parametrize("mode", ["x86_64", "la57"])
def test_a_destroyed_pgd_is_a_fault_also_where_processes_have_their_own(
    mode: str, fill: int
) -> None:
    dead = crashed(mode)
    process = BASE + SIZE - 4096
    dead.memory[process - BASE :] = dead.page(PGD) or b""
    assert judged(dead).whole
    dead.memory[PGD - BASE : PGD - BASE + 4096] = bytes([fill]) * 4096
    found = judged(dead)
    assert found.answer is Wholeness.NOT_WHOLE
    assert any("swapper_pg_dir" in fault for fault in found.faults)


def test_ranges_beyond_what_can_be_listed_are_refused_before_they_are_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, two = judged(crashed("i386")), judged(crashed("x86_64"))
    assert vmcore.merged(one.found)
    monkeypatch.setattr(ranges_module, "RANGES_LIMIT", 1)
    with pytest.raises(CoreError, match="more than can be listed") as caught:
        vmcore.merged(one.found)
    assert caught.value.limit == 1
    with pytest.raises(CoreError, match="changes: more than"):
        vmcore.difference(one.found, two.found)


def headers_of(size: int) -> bytes:
    """The first 4096 bytes of a core whose memory [0, size) lies behind them."""
    data = bytearray(elf_core([Load(0, b"\0")], qemu(cr3=BASE, cr4=0x6F0))[:4096])
    # p_filesz and p_memsz of the second program header.
    data[64 + 56 + 32 : 64 + 56 + 48] = size.to_bytes(8, "little") * 2
    return bytes(data)


def test_a_core_of_400_mb_is_read_where_it_lies(tmp_path: Path) -> None:
    # Sparse: 400 MB of zeros and the tables of a direct map in 4 KiB pages.
    size = 400 * 1000 * 1000 // 4096 * 4096
    store = TableStore(X86_64, iter(range(BASE, BASE + SIZE, 4096)).__next__)
    direct = 0xFFFF_8880_0000_0000
    store.map_extent(direct, Extent(0, size), Rights(), page_sizes=(4096,))
    path = tmp_path / "vmcore"
    with path.open("wb") as out:
        out.write(headers_of(size))
        out.truncate(4096 + size)
        for frame, page in store.pages().items():
            out.seek(4096 + frame)
            out.write(page)
    found = vmcore.pgd(vmcore.read(str(path)))
    assert found.whole
    assert found.mappings == size // 4096 == found.held
    assert [(r.virt, r.phys, r.size) for r in vmcore.merged(found.found)] == [(direct, 0, size)]
    assert path.stat().st_blocks * 512 < 16 * MIB


# ------------------------------------------------------------------------------------- the report


@MODES
def test_the_report_says_what_was_found(mode: str) -> None:
    found = judged(crashed(mode))
    ranges = vmcore.merged(found.found)
    text = screen(VIEW, Looked(pgd=found, ranges=ranges))
    for words in (
        "6.1.0-56-amd64",
        f"{PGD:#x}: swapper_pg_dir",
        f"{found.mappings:,} in",
        "all tables are whole",
        f"{ranges[0].virt:#x}",
    ):
        assert words in text
    document = facts(VIEW, Looked(pgd=found, ranges=ranges))
    assert json.loads(json.dumps(document)) == document
    assert document["whole"] is True
    assert document["changes"] is None


def test_the_report_names_faults_and_changes() -> None:
    dead = crashed("x86_64")
    at = dead.tables[-1]
    dead.put(at, (dead.word(at, 8) or 0) ^ 0x2, 8)
    dead.put(PGD + 8 * 100, BASE + 2 * SIZE | 1, 8)
    before, after = judged(crashed("x86_64")), judged(dead)
    changes = vmcore.difference(before.found, after.found)
    text = screen(VIEW, Looked(pgd=after, changes=changes, other="later"))
    assert "not whole, 1 missing table" in text
    assert "from made to later: 1 change" in text
    assert text.startswith("made: not whole, 1 missing table: ")
    listed = text.split("1 change\n")[1].split("\n\n")[0]
    assert [line.split()[0] for line in listed.splitlines()] == ["-", "+"]
    document = facts(VIEW, Looked(pgd=after, changes=changes, other="later"))
    assert json.loads(json.dumps(document)) == document
    assert document["missing_tables"] == 1
    assert document["whole"] is False


def test_a_release_with_an_escape_in_it_does_not_reach_the_terminal() -> None:
    dead = crashed("x86_64")
    dead.info["OSRELEASE"] = "6.1\x1b[2J"
    assert "\x1b" not in screen(VIEW, Looked(pgd=judged(dead)))


def test_a_pdpte_that_an_emulated_cpu_marked_is_no_damage() -> None:
    """QEMU 7.2 sets A in the PDPTEs that a guest uses; the dump that the guest saves has no note of QEMU's."""
    for bit, whole in ((0x20, True), (0x40, False)):
        dead = crashed("pae")
        at = PGD - BASE
        for number in range(4):
            entry = int.from_bytes(dead.memory[at + 8 * number : at + 8 * number + 8], "little")
            if entry & 1:
                dead.memory[at + 8 * number : at + 8 * number + 8] = (entry | bit).to_bytes(
                    8, "little"
                )
        assert judged(dead).whole is whole
