"""The page walk, from the manual: what a CPU does with a linear address.

Rules: this file is written apart from `x86.paging` and must not import it.  What a level is and
which bits are reserved says `x86.ladder`.  It never writes: where the CPU would set an accessed or
dirty bit, the result says so.

    SDM 4.6  access rights     SDM 4.7  page-fault error code    SDM 4.8  accessed and dirty
Protection keys (CR4.PKE, CR4.PKS) are not modelled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from tightrope.memory import NUMBER, Phys, Virt
from tightrope.x86.ladder import (
    CR4_LA57,
    CR4_PAE,
    CR4_PSE,
    EFER_LMA,
    EFER_NXE,
    PS,
    RW,
    US,
    XD,
    A,
    D,
    G,
    Ladder,
    P,
    ladder,
)

# As a named tuple's own does it, without a Python call for each of a walk's entries.
_visit = tuple.__new__

ReadEntry = Callable[[int, int], int | None]
"""(physical address, bytes) -> little-endian value, or None where no memory answers."""


def entries_in(pages: Mapping[int, bytes | bytearray | memoryview]) -> ReadEntry:
    """Entries of tables at hand, frame address -> 4096 bytes; no memory answers anywhere else."""

    def read(at: int, size: int) -> int | None:
        page = pages.get(at & ~0xFFF)
        return None if page is None else NUMBER[size](page, at & 0xFFF)[0]

    return read


class Access(StrEnum):
    """Why the CPU translates an address."""

    READ = "read"
    WRITE = "write"
    FETCH = "fetch"

    # An enum's own goes through Python, and an access is a key at every turn of a walk.
    __hash__ = str.__hash__


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
    """PAE: the four PDPTEs that the CPU holds since CR3 was loaded (SDM 4.4.1); None reads memory.
    """
    bit_8_reserved: bool = False
    """Bit 8 of a PML4E and a PML5E has to be 0 (AMD APM volume 2, 5.3.3); Intel's CPUs ignore it.
    """

    @property
    def ladder(self) -> Ladder:
        """The paging mode."""
        return ladder(
            self.efer & _DECIDES_EFER,
            self.cr4 & _DECIDES_CR4,
            self.gbpages,
            self.physical_bits,
            self.bit_8_reserved,
        )


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


_CR0_WP, _CR0_PG = 0x1_0000, 0x8000_0000
_CR4_PGE, _CR4_SMEP, _CR4_SMAP, _CR4_LASS = 0x80, 0x10_0000, 0x20_0000, 0x800_0000
_DECIDES_EFER = EFER_LMA | EFER_NXE
_DECIDES_CR4 = CR4_PSE | CR4_PAE | CR4_LA57

PAGE_FAULT, GENERAL_PROTECTION = 14, 13


def canonical(virt: int, mmu: Mmu) -> bool:
    """Whether `virt` (64 bits) is canonical under `mmu` (SDM vol. 1, 3.3.7.1); true outside long
    mode."""
    if not mmu.efer & EFER_LMA:
        return virt < 1 << 32
    top = 56 if mmu.cr4 & CR4_LA57 else 47
    return virt >> top in (0, (1 << (64 - top)) - 1)


def _kept_off(mmu: Mmu, virt: Virt | int, access: Access) -> bool:
    """Linear-address-space separation: long mode's kernel and the lower half (SDM volume 3, 4.12).

    Fetches are refused; data, only where CR4.SMAP is set and RFLAGS.AC is clear.
    """
    if mmu.user or not mmu.efer & EFER_LMA or virt >> 63:
        return False
    return access is Access.FETCH or bool(mmu.cr4 & _CR4_SMAP and not mmu.ac)


def load_pdptes(read: ReadEntry, mmu: Mmu) -> tuple[int, ...] | Refused | None:
    """What a write of CR0, CR3 or CR4 loads under PAE paging (SDM 4.4.1); None in other modes.

    A present PDPTE with a reserved bit is #GP(0): Refused.
    """
    if not mmu.cr0 & _CR0_PG or not mmu.cr4 & CR4_PAE or mmu.efer & EFER_LMA:
        return None
    top, entries = mmu.ladder.rungs[0], []
    for number in range(4):
        at = Phys((mmu.cr3 & 0xFFFF_FFE0) + 8 * number)
        value = read(at, 8) or 0
        bad = value & top.in_table
        if value & P and bad:
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
    if mmu.cr4 & _CR4_LASS and _kept_off(mmu, virt, access):
        return Refused(
            vector=GENERAL_PROTECTION,
            error_code=0,
            reason=f"CR4.LASS is set, and {virt:#x} is in the lower half",
            visits=(),
        )
    mode = mmu.ladder
    entry_size, pae = mode.entry_size, mode.pae
    table = mmu.cr3 & mode.root_mask
    # What all entries on the way have, and what any of them has.
    every, some = RW | US | A, 0
    visits: list[TableVisit] = []
    for rung in mode.rungs:
        low = rung.low
        at = table + entry_size * (virt >> low & rung.slots)
        got = read(at, entry_size)
        top_of_pae = pae and low == 30
        if top_of_pae and mmu.pdptes is not None:
            got = mmu.pdptes[virt >> 30 & 3]
        if got is None:
            why = f"the {rung.name} at {at:#x} is not in memory"
            return _page_fault(mmu, mode, access, visits, why, present=False)
        value = got
        visits.append(_visit(TableVisit, (rung.name, at, value)))
        if not value & P:
            why = f"the {rung.name} entry is not present"
            return _page_fault(mmu, mode, access, visits, why, present=False)
        leaf = low == 12 or bool(rung.page and value & PS and mode.large_pages)
        bad = value & (rung.in_page if leaf else rung.in_table)
        if bad:
            if top_of_pae:
                return Refused(
                    vector=GENERAL_PROTECTION,
                    error_code=0,
                    reason=f"reserved bits {bad:#x} are set in a PDPTE",
                    visits=tuple(visits),
                )
            why = f"reserved bits {bad:#x} are set in the {rung.name} entry"
            return _page_fault(mmu, mode, access, visits, why, present=True, reserved=True)
        if not top_of_pae:
            # By the masks that are asked for: `prove` walks entries that are no numbers.
            every = value & every
            some |= value & XD
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
    writable, user = bool(every & RW), bool(every & US)
    executable = not (mode.nxe and some & XD)
    denied = _denied(mmu, access, writable=writable, user=user, executable=executable)
    if denied:
        return _page_fault(mmu, mode, access, visits, denied, present=True)
    phys = Phys(base | virt & (size - 1))
    is_global = bool(value & G and mmu.cr4 & _CR4_PGE)
    sets_accessed = not every & A or (access is Access.WRITE and not value & D)
    # By position: a walk is asked for at every turn, and names would take a tenth of its time.
    return Translated(
        phys, size, tuple(visits), writable, user, executable, is_global, sets_accessed
    )


def _page_fault(
    mmu: Mmu,
    mode: Ladder,
    access: Access,
    visits: list[TableVisit],
    reason: str,
    *,
    present: bool,
    reserved: bool = False,
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
