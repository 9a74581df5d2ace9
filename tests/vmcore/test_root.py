"""Where the pgd is found, in which format, and whom that is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.vmcore.cores import BASE, PGD, Load, crashed, elf_core, qemu, vmcoreinfo, xen
from tightrope import vmcore
from tightrope.errors import CoreError
from tightrope.model import Paging
from tightrope.model.root import Root

MODES = pytest.mark.parametrize("mode", [each.value for each in Paging])
CR4 = {"i386": 0x90, "pae": 0xB0, "x86_64": 0x6F0, "la57": 0x16F0}


def found(notes: bytes, *, bits: int = 64, virt: int = 0, cr3: int | None = None) -> Root:
    """The root of a core with these notes."""
    core = vmcore.parse(elf_core([Load(BASE, bytes(8192), virt)], notes, bits=bits), "made")
    return vmcore.find_root(core, cr3=cr3)


@MODES
def test_vmcoreinfo_names_the_pgd(mode: str) -> None:
    root = vmcore.find_root(vmcore.parse(crashed(mode).core(), "made"))
    assert (root.phys, root.paging) == (PGD, mode)
    assert "swapper_pg_dir in VMCOREINFO" in root.how


@MODES
def test_qemus_note_gives_cr3_and_the_format(mode: str) -> None:
    bits = crashed(mode).bits
    root = found(qemu(cr3=0x1B_4000, cr4=CR4[mode]), bits=bits)
    assert (root.phys, root.paging, root.anchors) == (0x1B_4000, mode, ())
    assert "QEMU" in root.how


def test_vmcoreinfo_is_believed_before_qemus_cr3_which_may_be_a_processes() -> None:
    info = crashed("x86_64").info
    assert found(vmcoreinfo(info) + qemu(cr3=0x1B_4000, cr4=0x6F0)).phys == PGD


def test_xens_note_is_believed_before_dom0s_pseudo_physical_addresses() -> None:
    root = found(vmcoreinfo(crashed("x86_64").info) + xen(cr3=0x1B_4000, cr4=0x6F0))
    assert (root.phys, root.anchors) == (0x1B_4000, ())


def test_what_is_given_is_taken() -> None:
    core = vmcore.parse(crashed("x86_64").core(), "made")
    root = vmcore.find_root(core, cr3=0x1234_5678, paging=Paging.PAE)
    assert (root.phys, root.paging, root.anchors) == (0x1234_5660, Paging.PAE, ())
    assert "as given" in root.how


def test_the_pcid_and_the_cache_bits_of_cr3_are_no_address() -> None:
    assert found(qemu(cr3=0x1B_4FFF, cr4=0x6F0)).phys == 0x1B_4000


@pytest.mark.parametrize("name", ["swapper_pg_dir", "init_top_pgt", "init_level4_pgt"])
def test_the_pgd_has_had_three_names(name: str) -> None:
    info = {f"SYMBOL({name})": "ffffffff81010000", "NUMBER(phys_base)": "0"}
    assert found(vmcoreinfo(info)).phys == PGD


def test_a_kernel_that_kaslr_moved_is_found() -> None:
    moved = crashed("x86_64", text_virt=0xFFFF_FFFF_9A20_0000)
    assert int(moved.info["NUMBER(phys_base)"]) < 0
    assert vmcore.find_root(vmcore.parse(moved.core(), "made")).phys == PGD


def test_without_phys_base_the_program_header_of_the_text_serves() -> None:
    info = {"SYMBOL(swapper_pg_dir)": "ffffffff81010000"}
    assert found(vmcoreinfo(info), virt=0xFFFF_FFFF_8100_F000).phys == BASE + 0x1000


@pytest.mark.parametrize("split", [0xC000_0000, 0xB000_0000, 0x8000_0000, 0x7800_0000, 0x4000_0000])
def test_every_memory_split_is_known(split: int) -> None:
    info = {"SYMBOL(swapper_pg_dir)": f"{split + PGD:x}"}
    assert found(vmcoreinfo(info), bits=32).phys == PGD


def test_the_encryption_bit_is_no_address() -> None:
    info = crashed("x86_64").info | {"NUMBER(sme_mask)": str(1 << 47)}
    root = found(vmcoreinfo(info), cr3=PGD | 1 << 47)
    assert (root.phys, root.encryption_mask) == (PGD, 1 << 47)


def test_a_core_that_names_no_root_asks_for_cr3() -> None:
    with pytest.raises(CoreError, match="give their CR3"):
        found(b"")
    with pytest.raises(CoreError, match="i386 or pae"):
        found(b"", bits=32, cr3=BASE)


@given(
    st.dictionaries(
        st.sampled_from(
            ["SYMBOL(swapper_pg_dir)", "NUMBER(phys_base)", "NUMBER(sme_mask)", "SYMBOL(_stext)"]
        ),
        st.integers(-(1 << 70), 1 << 70).map(str) | st.text(max_size=20),
    ),
    st.sampled_from([32, 64]),
)
def test_any_vmcoreinfo_gives_a_root_in_52_bits_or_an_error(
    info: dict[str, str], bits: int
) -> None:
    try:
        root = found(vmcoreinfo(info), bits=bits)
    except CoreError:
        return
    assert 0 <= root.phys < 1 << 52
    assert root.phys % 32 == 0
