"""Where the crashed kernel's pgd lies, in which format, and who says so.

    1  the caller
    2  Xen's note      its CR3 is a machine address, as the core's are; dom0's VMCOREINFO is not
    3  VMCOREINFO      the symbol of the pgd, made physical as the kernel itself does
    4  QEMU's note     CR3 of the first CPU with paging on, whatever process ran there

Asked in this order; the first that answers is believed, in its format too: notes of two kernels may
lie in one core, and each is right about its own.  What another one says against it is `settled`.

Sources: Linux arch/x86/kernel/vmcore_info_{32,64}.c (once machine_kexec_*.c) and
kernel/vmcore_info.c for the keys; __START_KERNEL_map in asm/page_64_types.h; the memory splits in
arch/x86/Kconfig (PAGE_OFFSET).

Rules: nothing here reads a table, nor needs more than the standard library.  An `Anchor` is an
address whose translation is known by another way than the tables: whoever sweeps the tables must
find it there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tightrope.errors import CoreError
from tightrope.memory import PAGE_SIZE, Phys, Virt
from tightrope.model import Paging
from tightrope.model.modes import MODES
from tightrope.model.notes import EM_X86_64, PGD_SYMBOLS, ControlRegisters, Notes
from tightrope.model.root import Anchor, Root
from tightrope.x86.ladder import CR4_LA57, CR4_PAE, ladder

START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
MEMORY_SPLITS = (0xC000_0000, 0xB000_0000, 0x8000_0000, 0x7800_0000, 0x4000_0000)
"""i386's PAGE_OFFSETs, the usual one first."""
FOUR_GIB = 1 << 32


class Headed(Protocol):
    """What is asked of a core: its headers and notes, none of its memory."""

    @property
    def source(self) -> str:
        """The file, for errors."""
        ...

    @property
    def machine(self) -> int:
        """EM_386 or EM_X86_64."""
        ...

    @property
    def notes(self) -> Notes:
        """What the notes say."""
        ...

    @property
    def linear(self) -> tuple[tuple[int, int, int], ...]:
        """(virtual start, physical start, bytes) of each row of memory."""
        ...


Format = tuple[Paging, str]
"""A table format, and who says that it is this one."""


def find_root(core: Headed, *, cr3: int | None = None, paging: Paging | None = None) -> Root:
    """The pgd of the crashed kernel; `cr3` and `paging` are taken as they are given.

    Raises CoreError when nobody says where it is, or in which format.
    """
    long_mode = _long_mode(core) if paging is None else paging.long_mode
    anchors = tuple(_anchors(core, long_mode=long_mode))
    at, how, teller = _address(core, cr3, anchors)
    found, told = _format(core, teller, long_mode) if paging is None else (paging, "as given")
    mask = (core.notes.number("NUMBER(sme_mask)") or 0) & (1 << 64) - 1 if found.long_mode else 0
    row = MODES[found]
    return Root(
        phys=Phys(at & ladder(row.efer_on, row.cr4_on, True, 52).root_mask & ~mask),
        paging=found,
        how=f"{how}; {found.value} {told}",
        encryption_mask=mask,
        # Other tables than the kernel's own, such as a process's under page-table isolation, need
        # not map the kernel.
        anchors=anchors if cr3 is None and teller is None else (),
        settled=tuple(_settled(core, found)) if paging is None else (),
    )


def _note(core: Headed, who: str) -> ControlRegisters | None:
    return next((each for each in core.notes.control if each.who == who and each.walks), None)


def _symbols(core: Headed) -> Iterator[tuple[str, int]]:
    """The symbols of VMCOREINFO that are addresses."""
    for name in (*PGD_SYMBOLS, "_stext"):
        virt = core.notes.number(f"SYMBOL({name})", 16)
        if virt is not None and 0 < virt < 1 << 64:
            yield name, virt


def _long_mode(core: Headed) -> bool:
    """Whether the dead kernel ran 64-bit code: its symbols know better than the file's header."""
    if _note(core, "Xen") is None:
        for _name, virt in _symbols(core):
            return virt >= FOUR_GIB
    return core.machine == EM_X86_64


def _formats(core: Headed, long_mode: bool) -> Iterator[tuple[ControlRegisters | None, Format]]:
    """Each teller's format: a note's, or None for VMCOREINFO."""
    for who in ("Xen", "QEMU"):
        if (note := _note(core, who)) is not None:
            yield note, (_by_cr4(note.cr4, long_mode), f"by CR4 in {who}'s note")
    levels = core.notes.number("NUMBER(pgtable_l5_enabled)")
    if long_mode and levels is not None:
        five = Paging.LA57 if levels else Paging.X86_64
        yield None, (five, "by NUMBER(pgtable_l5_enabled)")
    elif not long_mode and core.notes.vmcoreinfo:
        pae = core.notes.vmcoreinfo.get("CONFIG_X86_PAE") == "y"
        how = "by" if pae else "without"
        yield None, (Paging.PAE if pae else Paging.I386, f"{how} CONFIG_X86_PAE in VMCOREINFO")


def assumed(core: Headed) -> tuple[Paging, Paging] | None:
    """The format that a core's kernel is taken to have where nobody says another, and that other.

    Nobody says how many levels a 64-bit kernel has: 4.  A 32-bit one's VMCOREINFO has no
    CONFIG_X86_PAE: no kernel with PAE leaves it out, and what cut the note short does.
    """
    if _long_mode(core):
        return None if any(_formats(core, True)) else (Paging.X86_64, Paging.LA57)
    said = core.notes.vmcoreinfo.get("CONFIG_X86_PAE") if core.notes.vmcoreinfo else "y"
    return (Paging.I386, Paging.PAE) if said is None else None


def _by_cr4(cr4: int, long_mode: bool) -> Paging:
    if long_mode:
        return Paging.LA57 if cr4 & CR4_LA57 else Paging.X86_64
    return Paging.PAE if cr4 & CR4_PAE else Paging.I386


def _format(core: Headed, teller: ControlRegisters | None, long_mode: bool) -> Format:
    """What the root's own teller says; where that is silent, what the next one says."""
    formats = list(_formats(core, long_mode))
    believed = [told for who, told in formats if who is teller] or [told for _, told in formats]
    if believed:
        return believed[0]
    if long_mode:
        return Paging.X86_64, "assumed: nothing speaks of 5 levels"
    raise CoreError(
        "a 32-bit core without VMCOREINFO: say whether its tables are i386 or pae",
        source=core.source,
        field="mode",
    )


def _settled(core: Headed, found: Paging) -> Iterator[str]:
    """What contradicts the format that is believed, and the header that contradicts the symbols."""
    if found.long_mode is not (core.machine == EM_X86_64):
        yield f"the ELF header's machine {core.machine} is not that of {found.value}"
    for _who, (paging, told) in _formats(core, found.long_mode):
        if paging is not found:
            yield f"{paging.value} {told} is of other tables"


def _address(
    core: Headed, cr3: int | None, anchors: tuple[Anchor, ...]
) -> tuple[int, str, ControlRegisters | None]:
    """The root, who says so in words, and the note that says so; None for the caller and
    VMCOREINFO."""
    if cr3 is not None:
        return cr3, "CR3 as given", _note(core, "Xen") or _note(core, "QEMU")
    xen, qemu = _note(core, "Xen"), _note(core, "QEMU")
    if xen is not None:
        return xen.cr3, "CR3 in Xen's note", xen
    for anchor in anchors:
        if anchor.name in PGD_SYMBOLS:
            return anchor.phys, f"{anchor.name} in VMCOREINFO, at {anchor.virt:#x}", None
    if qemu is not None:
        return qemu.cr3, "CR3 of the first CPU in QEMU's note", qemu
    raise CoreError(
        "neither VMCOREINFO nor a hypervisor's note says where the tables are: give their CR3",
        source=core.source,
        field="cr3",
    )


def _anchors(core: Headed, *, long_mode: bool) -> Iterator[Anchor]:
    """Symbols of VMCOREINFO that have a physical address without asking the tables; a pgd fills a
    page, and one that would not was never a kernel's."""
    if _note(core, "Xen") is not None:
        return  # dom0's physical addresses are not the machine's
    for name, virt in _symbols(core):
        phys = _text_phys(core, virt) if long_mode else _low_phys(core, virt)
        if phys is not None and not (name in PGD_SYMBOLS and phys % PAGE_SIZE):
            yield Anchor(name=name, virt=Virt(virt), phys=Phys(phys))


def _text_phys(core: Headed, virt: int) -> int | None:
    """x86_64's text mapping: virt - __START_KERNEL_map + phys_base."""
    base = core.notes.number("NUMBER(phys_base)")
    if base is not None and virt >= START_KERNEL_MAP:
        phys = virt - START_KERNEL_MAP + base
        return phys if 0 <= phys < 1 << 52 else None
    return _named_phys(core, virt)


def _low_phys(core: Headed, virt: int) -> int | None:
    """i386's low memory: virt - PAGE_OFFSET, which no note names."""
    named = _named_phys(core, virt)
    if named is not None:
        return named
    split = next((each for each in MEMORY_SPLITS if each <= virt < 1 << 32), None)
    return None if split is None else virt - split


def _named_phys(core: Headed, virt: int) -> int | None:
    """What the PT_LOADs say, where their writer filled in p_vaddr (kexec-tools and QEMU often do
    not)."""
    for start, phys, size in core.linear:
        if start and start != phys and start <= virt < start + size:
            return virt - start + phys
    return None
