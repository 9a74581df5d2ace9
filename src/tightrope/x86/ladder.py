"""A paging mode as it is read: its levels, what leads where, which bits are reserved.

Rules: the reading side's one geometry, from the manual's tables and with constants of its own.  It
must not import `x86.paging`: two sides that share a wrong shift agree on it.  `x86.walk` takes one
address down the ladder, `x86.sweep` all of them at once.

    SDM 4.3  32-bit paging     2 levels, 4 MiB pages with CR4.PSE
    SDM 4.4  PAE paging        3 levels, 2 MiB pages; PDPTEs checked as MOV to CR3 would
    SDM 4.5  4- and 5-level    2 MiB and 1 GiB pages
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

P, RW, US, A, D, PS, G = 0x1, 0x2, 0x4, 0x20, 0x40, 0x80, 0x100
XD = 0x8000_0000_0000_0000
CR4_PSE, CR4_PAE, CR4_LA57 = 0x10, 0x20, 0x1000
EFER_LMA, EFER_NXE = 0x400, 0x800
PAE_PDPTE_RESERVED = 0x1E6
"""Bits 8:5 and 2:1 of a PAE PDPTE (SDM 4.4.1)."""
_FRAME = 0x000F_FFFF_FFFF_F000


@dataclass(frozen=True, slots=True)
class Rung:
    """How one level is read: SDM tables 4-4 to 4-20."""

    name: str
    low: int
    slots: int
    """The mask of an index into the table."""
    page: bool
    """PS = 1 maps a page here."""
    in_table: int = 0
    """The reserved bits of an entry that leads to a table, in the mode that the rung was made for.
    """
    in_page: int = 0
    """The reserved bits of an entry that maps a page: those above, and maybe more."""


_PAE_RUNGS = (
    Rung("PDPT", 30, 3, False),
    Rung("PD", 21, 0x1FF, True),
    Rung("PT", 12, 0x1FF, True),
)
_LONG_RUNGS = (
    Rung("PML5", 48, 0x1FF, False),
    Rung("PML4", 39, 0x1FF, False),
    Rung("PDPT", 30, 0x1FF, True),
    Rung("PD", 21, 0x1FF, True),
    Rung("PT", 12, 0x1FF, True),
)
_LEGACY_RUNGS = (Rung("PD", 22, 0x3FF, True), Rung("PT", 12, 0x3FF, True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """A paging mode: what is the same for every walk under it."""

    rungs: tuple[Rung, ...]
    """The levels, top first."""
    entry_size: int
    pae: bool
    """PAE paging, and not that of long mode: the top level has four entries without rights."""
    nxe: bool
    large_pages: bool
    frame_mask: int
    """Where an entry that leads to a table has its address."""
    root_mask: int
    """Where CR3 has it."""
    sign_bit: int
    """The linear address's highest bit, which fills those above it; 0 where there are none."""


@lru_cache(maxsize=64)
def ladder(
    efer: int, cr4: int, gbpages: bool, physical_bits: int, bit_8_reserved: bool = False
) -> Ladder:
    """The mode of EFER's LMA and NXE, and of CR4's PSE, PAE and LA57 (SDM 4.1.1).

    `bit_8_reserved`: bit 8 of a PML4E and a PML5E has to be 0 (AMD APM volume 2, 5.3.3).
    """
    long_mode = bool(efer & EFER_LMA)
    pae, la57 = bool(cr4 & CR4_PAE), bool(cr4 & CR4_LA57)
    wide = long_mode or pae
    nxe = wide and bool(efer & EFER_NXE)
    frame_mask = (1 << physical_bits) - 1 & ~0xFFF if wide else 0xFFFF_F000
    return Ladder(
        rungs=_rungs(long_mode, pae, la57, nxe, gbpages, physical_bits, bit_8_reserved),
        entry_size=8 if wide else 4,
        pae=wide and not long_mode,
        nxe=nxe,
        large_pages=wide or bool(cr4 & CR4_PSE),
        frame_mask=frame_mask,
        root_mask=frame_mask if long_mode or not wide else 0xFFFF_FFE0,
        sign_bit=(56 if la57 else 47) if long_mode else 0,
    )


def without_bits(found: Ladder, bits: int) -> Ladder:
    """The same mode where some bits are neither address nor reserved, such as memory
    encryption's."""
    rungs = tuple(
        replace(rung, in_table=rung.in_table & ~bits, in_page=rung.in_page & ~bits)
        for rung in found.rungs
    )
    return replace(found, rungs=rungs, frame_mask=found.frame_mask & ~bits)


def _rungs(
    long_mode: bool,
    pae: bool,
    la57: bool,
    nxe: bool,
    gbpages: bool,
    physical_bits: int,
    bit_8_reserved: bool,
) -> tuple[Rung, ...]:
    """The levels of a paging mode, top first, with their reserved bits (SDM 4.3, 4.4.2, 4.5.5)."""
    rungs: tuple[Rung, ...]
    if long_mode:
        rungs = _LONG_RUNGS if la57 else _LONG_RUNGS[1:]
    else:
        rungs = _PAE_RUNGS if pae else _LEGACY_RUNGS
    if not long_mode and not pae:
        # In a 4 MiB page bits 20:13 carry address bits up to MAXPHYADDR or 40; the rest are
        # reserved.
        extra = max(0, min(physical_bits, 40) - 32)
        large = 0x3F_E000 & ~(((1 << extra) - 1) << 13)
        return (replace(rungs[0], in_page=large), rungs[1])
    above = ~((1 << physical_bits) - 1) & _FRAME
    if not long_mode:
        above |= 0x7FF0_0000_0000_0000
    out = []
    for rung in rungs:
        table = above | (0 if nxe else XD)
        page = table
        if not long_mode and rung.name == "PDPT":
            table = page = above | PAE_PDPTE_RESERVED | XD
        elif not rung.page or (rung.low == 30 and not gbpages):
            table, page = table | PS, page | PS
            if bit_8_reserved and rung.low >= 39:
                table, page = table | G, page | G
        elif rung.low > 12:
            page |= (1 << rung.low) - 1 & ~0x1FFF
        out.append(replace(rung, in_table=table, in_page=page))
    return tuple(out)
