"""The page walk, from the manual: what a CPU does with a linear address.

Rules: this file is written apart from `x86.paging` and must not import it.  Its constants come from
the SDM's tables, not from the builder's, because two sides that share a wrong shift agree on it.  It
never writes: where the CPU would set an accessed or dirty bit, the result says so.

    SDM 4.3  32-bit paging     2 levels, 4 MiB pages with CR4.PSE
    SDM 4.4  PAE paging        3 levels, 2 MiB pages; PDPTEs checked as MOV to CR3 would
    SDM 4.5  4- and 5-level    2 MiB and 1 GiB pages
    SDM 4.6  access rights     SDM 4.7  page-fault error code    SDM 4.8  accessed and dirty
Protection keys (CR4.PKE, CR4.PKS) are not modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from tightrope.memory import Phys, Virt

ReadEntry = Callable[[int, int], int | None]
"""(physical address, bytes) -> little-endian value, or None where no memory answers."""


def entries_in(pages: Mapping[int, bytes | bytearray | memoryview]) -> ReadEntry:
    """Entries of tables at hand, frame address -> 4096 bytes; no memory answers anywhere else."""

    def read(at: int, size: int) -> int | None:
        page = pages.get(at & ~0xFFF)
        return None if page is None else int.from_bytes(page[at & 0xFFF :][:size], "little")

    return read


class Access(StrEnum):
    """Why the CPU translates an address."""

    READ = "read"
    WRITE = "write"
    FETCH = "fetch"


class TableVisit(NamedTuple):
    """One level of a walk: the entry's level name, its physical address and its value."""

    level: str
    at: Phys
    entry: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Mmu:
    """The state that a walk depends on.  `ac` is RFLAGS.AC; `user` is CPL 3."""

    cr0: int
    cr3: int
    cr4: int
    efer: int
    physical_bits: int
    gbpages: bool = True
    user: bool = False
    ac: bool = False
    pdptes: tuple[int, ...] | None = None
    """PAE: the four PDPTEs that the CPU holds since CR3 was loaded (SDM 4.4.1); None reads memory."""


class Translated(NamedTuple):
    """A translation: `phys` of the very byte, and the page that holds it."""

    phys: Phys
    page_size: int
    visits: tuple[TableVisit, ...]
    writable: bool
    user: bool
    executable: bool
    is_global: bool
    sets_accessed: bool
    """The CPU would write into a table: an accessed bit on the way or the dirty bit is clear."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """An exception instead of a translation; the last visit is where the walk stopped."""

    vector: int
    error_code: int
    reason: str
    visits: tuple[TableVisit, ...]


@dataclass(frozen=True, slots=True)
class _Rung:
    """How one level is read: SDM tables 4-4 to 4-20."""

    name: str
    low: int
    slots: int
    """The mask of an index into the table."""
    page: bool
    """PS = 1 maps a page here."""
    in_table: int = 0
    """The reserved bits of an entry that leads to a table, in the mode that the rung was made for."""
    in_page: int = 0
    """The reserved bits of an entry that maps a page."""


_PAE_RUNGS = (
    _Rung("PDPT", 30, 3, False),
    _Rung("PD", 21, 0x1FF, True),
    _Rung("PT", 12, 0x1FF, True),
)
_LONG_RUNGS = (
    _Rung("PML5", 48, 0x1FF, False),
    _Rung("PML4", 39, 0x1FF, False),
    _Rung("PDPT", 30, 0x1FF, True),
    _Rung("PD", 21, 0x1FF, True),
    _Rung("PT", 12, 0x1FF, True),
)
_LEGACY_RUNGS = (_Rung("PD", 22, 0x3FF, True), _Rung("PT", 12, 0x3FF, True))

_P, _RW, _US, _A, _D, _PS, _G = 0x1, 0x2, 0x4, 0x20, 0x40, 0x80, 0x100
_XD = 0x8000_0000_0000_0000
_CR0_WP, _CR0_PG = 0x1_0000, 0x8000_0000
_CR4_PSE, _CR4_PAE, _CR4_PGE, _CR4_LA57 = 0x10, 0x20, 0x80, 0x1000
_CR4_SMEP, _CR4_SMAP = 0x10_0000, 0x20_0000
_EFER_LMA, _EFER_NXE = 0x400, 0x800
_PAE_PDPTE_RESERVED = 0x1E6
"""Bits 8:5 and 2:1 of a PAE PDPTE (SDM 4.4.1)."""

PAGE_FAULT, GENERAL_PROTECTION = 14, 13


@lru_cache(maxsize=64)
def _rungs(
    long_mode: bool, pae: bool, la57: bool, nxe: bool, gbpages: bool, physical_bits: int
) -> tuple[_Rung, ...]:
    """The levels of a paging mode, top first, with their reserved bits (SDM 4.3, 4.4.2, 4.5.5)."""
    rungs: tuple[_Rung, ...]
    if long_mode:
        rungs = _LONG_RUNGS if la57 else _LONG_RUNGS[1:]
    else:
        rungs = _PAE_RUNGS if pae else _LEGACY_RUNGS
    if not long_mode and not pae:
        # In a 4 MiB page bits 20:13 carry address bits up to MAXPHYADDR or 40; the rest are reserved.
        extra = max(0, min(physical_bits, 40) - 32)
        large = 0x3F_E000 & ~(((1 << extra) - 1) << 13)
        return (replace(rungs[0], in_page=large), rungs[1])
    above = ~((1 << physical_bits) - 1) & 0x000F_FFFF_FFFF_F000
    if not long_mode:
        above |= 0x7FF0_0000_0000_0000
    out = []
    for rung in rungs:
        table = above | (0 if nxe else _XD)
        page = table
        if not long_mode and rung.name == "PDPT":
            table = page = above | _PAE_PDPTE_RESERVED | _XD
        elif not rung.page or (rung.low == 30 and not gbpages):
            table, page = table | _PS, page | _PS
        elif rung.low > 12:
            page |= (1 << rung.low) - 1 & ~0x1FFF
        out.append(replace(rung, in_table=table, in_page=page))
    return tuple(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mode:
    """A paging mode: what is the same for every walk under it."""

    rungs: tuple[_Rung, ...]
    entry_size: int
    pae: bool
    """PAE paging, and not that of long mode: the top level has four entries without rights."""
    nxe: bool
    large_pages: bool
    frame_mask: int
    """Where an entry that leads to a table has its address."""
    root_mask: int
    """Where CR3 has it."""


@lru_cache(maxsize=64)
def _mode(efer: int, cr4: int, gbpages: bool, physical_bits: int) -> _Mode:
    """The mode of EFER's LMA and NXE, and of CR4's PSE, PAE and LA57 (SDM 4.1.1)."""
    long_mode = bool(efer & _EFER_LMA)
    wide = long_mode or bool(cr4 & _CR4_PAE)
    nxe = wide and bool(efer & _EFER_NXE)
    frame_mask = (1 << physical_bits) - 1 & ~0xFFF if wide else 0xFFFF_F000
    return _Mode(
        rungs=_rungs(
            long_mode,
            bool(cr4 & _CR4_PAE),
            bool(cr4 & _CR4_LA57),
            nxe,
            gbpages,
            physical_bits,
        ),
        entry_size=8 if wide else 4,
        pae=wide and not long_mode,
        nxe=nxe,
        large_pages=wide or bool(cr4 & _CR4_PSE),
        frame_mask=frame_mask,
        root_mask=frame_mask if long_mode or not wide else 0xFFFF_FFE0,
    )


def canonical(virt: int, mmu: Mmu) -> bool:
    """Whether `virt` (64 bits) is canonical under `mmu` (SDM vol. 1, 3.3.7.1); true outside long mode."""
    if not mmu.efer & _EFER_LMA:
        return virt < 1 << 32
    top = 56 if mmu.cr4 & _CR4_LA57 else 47
    return virt >> top in (0, (1 << (64 - top)) - 1)


def load_pdptes(read: ReadEntry, mmu: Mmu) -> tuple[int, ...] | Refused | None:
    """What a write of CR0, CR3 or CR4 loads under PAE paging (SDM 4.4.1); None in other modes.

    A present PDPTE with a reserved bit is #GP(0): Refused.
    """
    if not mmu.cr0 & _CR0_PG or not mmu.cr4 & _CR4_PAE or mmu.efer & _EFER_LMA:
        return None
    entries = []
    for number in range(4):
        at = Phys((mmu.cr3 & 0xFFFF_FFE0) + 8 * number)
        value = read(at, 8) or 0
        bad = value & _rungs(False, True, False, True, True, mmu.physical_bits)[0].in_table
        if value & _P and bad:
            return Refused(
                vector=GENERAL_PROTECTION,
                error_code=0,
                reason=f"reserved bits {bad:#x} are set in PDPTE {number}",
                visits=(TableVisit(level="PDPT", at=at, entry=value),),
            )
        entries.append(value)
    return tuple(entries)


def walk(read: ReadEntry, mmu: Mmu, virt: Virt | int, access: Access) -> Translated | Refused:
    """Translate linear `virt` for `access`, or say why the CPU refuses (SDM 4.6, 4.7).

    With paging off the address is its own translation.  A table in a hole of the physical address
    space is refused with that reason: what the bus answers there is nobody's promise.
    """
    if not mmu.cr0 & _CR0_PG:
        phys = Phys(virt & 0xFFFF_FFFF)
        return Translated(
            phys=phys,
            page_size=4096,
            visits=(),
            writable=True,
            user=True,
            executable=True,
            is_global=False,
            sets_accessed=False,
        )
    if not canonical(virt, mmu):
        return Refused(
            vector=GENERAL_PROTECTION,
            error_code=0,
            reason=f"{virt:#x} is not canonical",
            visits=(),
        )
    mode = _mode(
        mmu.efer & (_EFER_LMA | _EFER_NXE),
        mmu.cr4 & (_CR4_PSE | _CR4_PAE | _CR4_LA57),
        mmu.gbpages,
        mmu.physical_bits,
    )
    entry_size, pae = mode.entry_size, mode.pae
    table = mmu.cr3 & mode.root_mask
    # What all entries on the way have, and what any of them has.
    every, some = _RW | _US | _A, 0
    visits: list[TableVisit] = []

    def refuse(reason: str, *, present: bool, reserved: bool = False) -> Refused:
        return _page_fault(mmu, mode, access, reason, visits, present=present, reserved=reserved)

    for rung in mode.rungs:
        at = Phys(table + entry_size * (virt >> rung.low & rung.slots))
        got = read(at, entry_size)
        top_of_pae = pae and rung.low == 30
        if top_of_pae and mmu.pdptes is not None:
            got = mmu.pdptes[virt >> 30 & 3]
        if got is None:
            return refuse(f"the {rung.name} at {at:#x} is not in memory", present=False)
        value = got
        visits.append(TableVisit(rung.name, at, value))
        if not value & _P:
            return refuse(f"the {rung.name} entry is not present", present=False)
        leaf = rung.low == 12 or bool(rung.page and value & _PS and mode.large_pages)
        bad = value & (rung.in_page if leaf else rung.in_table)
        if bad:
            if top_of_pae:
                return Refused(
                    vector=GENERAL_PROTECTION,
                    error_code=0,
                    reason=f"reserved bits {bad:#x} are set in a PDPTE",
                    visits=tuple(visits),
                )
            return refuse(
                f"reserved bits {bad:#x} are set in the {rung.name} entry",
                present=True,
                reserved=True,
            )
        if not top_of_pae:
            # By the masks that are asked for: `prove` walks entries that are no numbers.
            every = value & every
            some |= value & _XD
        if leaf:
            break
        table = value & mode.frame_mask
    size = 1 << rung.low
    if entry_size == 8:
        base = value & mode.frame_mask & ~(size - 1)
    elif size > 4096:
        # PSE-36: bits 20:13 of the entry are bits 39:32 of the address (SDM table 4-4).
        base = (value & 0xFFC0_0000) | ((value >> 13 & 0xFF) << 32)
    else:
        base = value & 0xFFFF_F000
    writable, user = bool(every & _RW), bool(every & _US)
    executable = not (mode.nxe and some & _XD)
    denied = _denied(mmu, access, writable=writable, user=user, executable=executable)
    if denied:
        return refuse(denied, present=True)
    phys = Phys(base | virt & (size - 1))
    is_global = bool(value & _G and mmu.cr4 & _CR4_PGE)
    sets_accessed = not every & _A or (access is Access.WRITE and not value & _D)
    # By position: a walk is asked for at every turn, and names would take a tenth of its time.
    return Translated(
        phys, size, tuple(visits), writable, user, executable, is_global, sets_accessed
    )


def _page_fault(
    mmu: Mmu,
    mode: _Mode,
    access: Access,
    reason: str,
    visits: list[TableVisit],
    *,
    present: bool,
    reserved: bool,
) -> Refused:
    """#PF with its error code (SDM 4.7)."""
    fetch_flag = access is Access.FETCH and (mode.nxe or bool(mmu.cr4 & _CR4_SMEP))
    code = (
        (1 if present or reserved else 0)
        | (2 if access is Access.WRITE else 0)
        | (4 if mmu.user else 0)
        | (8 if reserved else 0)
        | (16 if fetch_flag else 0)
    )
    return Refused(vector=PAGE_FAULT, error_code=code, reason=reason, visits=tuple(visits))


def _denied(
    mmu: Mmu, access: Access, *, writable: bool, user: bool, executable: bool
) -> str | None:
    """Why the access rights of a complete walk refuse, or None (SDM 4.6.1)."""
    if mmu.user and not user:
        return "a supervisor page, and CPL is 3"
    if access is Access.FETCH:
        if not executable:
            return "the page is not executable (NX)"
        if not mmu.user and user and mmu.cr4 & _CR4_SMEP:
            return "a user page, and CR4.SMEP is set"
        return None
    if not mmu.user and user and mmu.cr4 & _CR4_SMAP and not mmu.ac:
        return "a user page, and CR4.SMAP is set"
    if access is Access.WRITE and not writable and (mmu.user or mmu.cr0 & _CR0_WP):
        return "the page is read-only"
    return None
