"""Where the crashed kernel's pgd lies, in which format, and who says so.

Asked in this order; the first that answers is believed:

    1  the caller
    2  Xen's note      its CR3 is a machine address, as the core's are; dom0's VMCOREINFO is not
    3  VMCOREINFO      the symbol of the pgd, made physical as the kernel itself does
    4  QEMU's note     CR3 of the first CPU, whatever process ran there

Sources: Linux arch/x86/kernel/vmcore_info_{32,64}.c (once machine_kexec_*.c) and
kernel/vmcore_info.c for the keys; __START_KERNEL_map in asm/page_64_types.h; the memory splits in
arch/x86/Kconfig (PAGE_OFFSET).

Rules: nothing here reads a table.  An `Anchor` is an address whose translation is known by another
way than the tables: whoever sweeps the tables must find it there.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.errors import CoreError
from tightrope.memory import Phys, Virt
from tightrope.model import Paging
from tightrope.model.dump import EM_X86_64, ControlRegisters, Core
from tightrope.model.pgd import Anchor, Root

START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
PGD_SYMBOLS = ("swapper_pg_dir", "init_top_pgt", "init_level4_pgt")
"""The pgd's names; the later ones are x86_64's, since 4.13 and before."""
MEMORY_SPLITS = (0xC000_0000, 0xB000_0000, 0x8000_0000, 0x7800_0000, 0x4000_0000)
"""i386's PAGE_OFFSETs, the usual one first."""

_CR4_PAE, _CR4_LA57 = 0x20, 0x1000


def find_root(core: Core, *, cr3: int | None = None, paging: Paging | None = None) -> Root:
    """The pgd of the crashed kernel; `cr3` and `paging` are taken as they are given.

    Raises CoreError when nobody says where it is, or in which format.
    """
    found, told = _paging(core) if paging is None else (paging, "as given")
    long_mode = found in (Paging.X86_64, Paging.LA57)
    mask = (core.notes.number("NUMBER(sme_mask)") or 0) & (1 << 64) - 1 if long_mode else 0
    anchors = tuple(_anchors(core, long_mode=long_mode))
    at, how = _address(core, cr3, anchors)
    phys = Phys(at & _address_mask(found) & ~mask)
    return Root(
        phys=phys,
        paging=found,
        how=f"{how}; {found.value} {told}",
        encryption_mask=mask,
        # Other tables than the kernel's own, such as a process's under page-table isolation, need
        # not map the kernel.
        anchors=anchors if cr3 is None else (),
    )


def _address_mask(paging: Paging) -> int:
    """The address bits of CR3 (SDM tables 4-3, 4-7, 4-12)."""
    if paging is Paging.I386:
        return 0xFFFF_F000
    return 0xFFFF_FFE0 if paging is Paging.PAE else 0x000F_FFFF_FFFF_F000


def _note(core: Core, who: str) -> ControlRegisters | None:
    return next((each for each in core.notes.control if each.who == who and each.cr3), None)


def _paging(core: Core) -> tuple[Paging, str]:
    info = core.notes.vmcoreinfo
    note = _note(core, "Xen") or _note(core, "QEMU")
    if core.machine == EM_X86_64:
        levels = core.notes.number("NUMBER(pgtable_l5_enabled)")
        if note is not None:
            la57 = bool(note.cr4 & _CR4_LA57)
            return (Paging.LA57 if la57 else Paging.X86_64), f"by CR4 in {note.who}'s note"
        if levels is not None:
            return (Paging.LA57 if levels else Paging.X86_64), "by NUMBER(pgtable_l5_enabled)"
        return Paging.X86_64, "assumed: nothing speaks of 5 levels"
    if note is not None:
        pae = bool(note.cr4 & _CR4_PAE)
        return (Paging.PAE if pae else Paging.I386), f"by CR4 in {note.who}'s note"
    if info:
        pae = info.get("CONFIG_X86_PAE") == "y"
        return (Paging.PAE if pae else Paging.I386), "by CONFIG_X86_PAE in VMCOREINFO"
    raise CoreError(
        "a 32-bit core without VMCOREINFO: say whether its tables are i386 or pae",
        source=core.source,
        field="mode",
    )


def _address(core: Core, cr3: int | None, anchors: tuple[Anchor, ...]) -> tuple[int, str]:
    if cr3 is not None:
        return cr3, "CR3 as given"
    xen, qemu = _note(core, "Xen"), _note(core, "QEMU")
    if xen is not None:
        return xen.cr3, "CR3 in Xen's note"
    for anchor in anchors:
        if anchor.name in PGD_SYMBOLS:
            return anchor.phys, f"{anchor.name} in VMCOREINFO, at {anchor.virt:#x}"
    if qemu is not None:
        return qemu.cr3, "CR3 of the first CPU in QEMU's note"
    raise CoreError(
        "neither VMCOREINFO nor a hypervisor's note says where the tables are: give their CR3",
        source=core.source,
        field="cr3",
    )


def _anchors(core: Core, *, long_mode: bool) -> Iterator[Anchor]:
    """Symbols of VMCOREINFO that have a physical address without asking the tables."""
    if _note(core, "Xen") is not None:
        return  # dom0's physical addresses are not the machine's
    for name in (*PGD_SYMBOLS, "_stext"):
        virt = core.notes.number(f"SYMBOL({name})", 16)
        if virt is None or not 0 <= virt < 1 << 64:
            continue
        phys = _text_phys(core, virt) if long_mode else _low_phys(core, virt)
        if phys is not None:
            yield Anchor(name=name, virt=Virt(virt), phys=Phys(phys))


def _text_phys(core: Core, virt: int) -> int | None:
    """x86_64's text mapping: virt - __START_KERNEL_map + phys_base."""
    base = core.notes.number("NUMBER(phys_base)")
    if base is not None and virt >= START_KERNEL_MAP:
        phys = virt - START_KERNEL_MAP + base
        return phys if 0 <= phys < 1 << 52 else None
    return _named_phys(core, virt)


def _low_phys(core: Core, virt: int) -> int | None:
    """i386's low memory: virt - PAGE_OFFSET, which no note names."""
    named = _named_phys(core, virt)
    if named is not None:
        return named
    split = next((each for each in MEMORY_SPLITS if each <= virt < 1 << 32), None)
    return None if split is None else virt - split


def _named_phys(core: Core, virt: int) -> int | None:
    """What the PT_LOADs say, where their writer filled in p_vaddr (kexec-tools and QEMU often do not)."""
    for start, phys, size in core.linear:
        if start and start != phys and start <= virt < start + size:
            return virt - start + phys
    return None
