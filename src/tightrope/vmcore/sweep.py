"""Every mapping under a pgd, one level of tables after the other, and what is broken in them.

Rules: read from the manual's side, as `x86.walk` and `x86.survey` are, and apart from the builder.
Unlike `survey`, which trusts tables that we built, this one reads tables of a kernel that died: a
table may be missing, an entry impossible, and a level may lead to itself, so that a few pages name
more mappings than memory can hold.  Every distinct table is read once, and what would not fit is
refused before it is made.

    tables of a level      distinct ones      present entries        tables of the next level
    [t0 t1 t0 t2 ...]  ->  [t0 t1 t2]     ->  [e e e | e | e e]  ->  those that are not pages
          base per table        one read            reserved bits out
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import CoreError
from tightrope.memory import PAGE_SIZE
from tightrope.model import Paging
from tightrope.model.dump import Core, Standing
from tightrope.model.pgd import EXECUTABLE, GLOBAL, USER, WRITABLE, Damage, Root, Sweep

MAPPINGS_LIMIT = 1 << 24
"""Entries of one level: 64 GiB in 4 KiB pages, and about 1 GiB of ours to list them."""
DAMAGE_LIMIT = 1 << 16
"""Missing tables and impossible entries that are kept one by one; all are counted."""
_BATCH = 2048
"""Tables per read: 8 MiB, which the caches still like."""

_P, _RW, _US, _PS, _G = (np.uint64(1 << n) for n in (0, 1, 2, 7, 8))
_XD = np.uint64(1 << 63)
_A = 0x20
_ALL = (1 << 64) - 1
_FRAME = 0x000F_FFFF_FFFF_F000

U64 = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class _Level:
    """`name`, bit of the first index, index bits, whether PS maps a page here (SDM 4.3 to 4.5)."""

    name: str
    low: int
    bits: int
    page: bool


_LONG = (
    _Level("PML5", 48, 9, False),
    _Level("PML4", 39, 9, False),
    _Level("PDPT", 30, 9, True),
    _Level("PD", 21, 9, True),
    _Level("PT", 12, 9, False),
)
LEVELS = {
    Paging.I386: (_Level("PD", 22, 10, True), _Level("PT", 12, 10, False)),
    Paging.PAE: (_Level("PDPT", 30, 2, False), *_LONG[3:]),
    Paging.X86_64: _LONG[1:],
    Paging.LA57: _LONG,
}


def sweep(core: Core, root: Root, *, physical_bits: int = 52) -> Sweep:
    """Read all tables under `root`.  `physical_bits` is MAXPHYADDR, which no core names.

    No-execute is taken as enabled.  Raises CoreError when the tables name more mappings than
    MAPPINGS_LIMIT (tables that lead to themselves, or a kernel with KASAN's shadow).
    """
    wide = root.paging is not Paging.I386
    pae = root.paging is Paging.PAE
    levels = LEVELS[root.paging]
    sign_bit = 0 if pae or not wide else levels[0].low + levels[0].bits - 1
    frame_mask = np.uint64((_FRAME if wide else 0xFFFF_F000) & ~root.encryption_mask)
    table = np.array([root.phys], np.uint64)
    base = np.zeros(1, np.uint64)
    rights = np.full(1, WRITABLE | USER | EXECUTABLE, np.uint8)
    came_from = (("CR3",), np.zeros(1, np.uint64), table)
    pages: list[tuple[U64, U64, U64, NDArray[np.uint8]]] = []
    missing, untold, reserved = (_Ledger(sign_bit) for _ in range(3))
    read = 0
    for level in levels:
        if not len(table):
            break
        distinct, which = np.unique(table, return_inverse=True)
        standing = core.standing(distinct & ~np.uint64(0xFFF))
        names, at, value = came_from
        for ledger, kind in ((missing, Standing.OUTSIDE), (untold, Standing.LEFT_OUT)):
            lost = (standing == kind)[which]
            ledger.add(names[0], at[lost], value[lost], base[lost])
        numbers = np.nonzero(standing == Standing.HELD)[0]
        owner, index, entry = _entries(core, distinct, numbers, level, wide=wide)
        read += len(numbers)
        leaf = _leaves(entry, level)
        bad = _reserved(entry, level, leaf, root, _emulated(core), physical_bits)
        # Present entries of each distinct table, then of each visit to it.
        per_table = np.bincount(owner, minlength=len(distinct))
        per_visit = per_table[which]
        total = int(per_visit.sum())
        _check_total(total, core, level)
        first = np.concatenate([[0], np.cumsum(per_table)[:-1]])[which]
        before = np.concatenate([[0], np.cumsum(per_visit)[:-1]])
        pick = np.repeat(first - before, per_visit) + np.arange(total)
        visit = np.repeat(np.arange(len(table)), per_visit)
        entry, index, leaf, bad = entry[pick], index[pick], leaf[pick], bad[pick]
        virt = base[visit] + (index << np.uint64(level.low))
        place = table[visit] + index * np.uint64(8 if wide else 4)
        granted = rights[visit]
        if not (pae and level is levels[0]):  # a PAE PDPTE has no rights (SDM 4.4.1)
            granted = granted & _granted(entry, wide=wide)
        reserved.add(level.name, place[bad], entry[bad], virt[bad])
        mapped = leaf & ~bad
        flags = granted[mapped] | np.where(entry[mapped] & _G != 0, GLOBAL, 0).astype(np.uint8)
        size = np.uint64(1 << level.low)
        pages.append(
            (
                virt[mapped],
                _page_address(entry[mapped], level, frame_mask, wide=wide),
                np.full(int(mapped.sum()), size, np.uint64),
                flags,
            )
        )
        down = ~leaf & ~bad
        table, base, rights = entry[down] & frame_mask, virt[down], granted[down]
        came_from = ((level.name,), place[down], entry[down])
    virt, phys, sizes, flags = (np.concatenate(column) for column in zip(*pages, strict=True))
    virt = _signed(virt, sign_bit)
    order = np.argsort(virt, kind="stable")
    return Sweep(
        virt=virt[order],
        phys=phys[order],
        size=sizes[order],
        rights=flags[order],
        tables=read,
        missing=missing.damage(),
        untold=untold.damage(),
        reserved=reserved.damage(),
    )


def _check_total(total: int, core: Core, level: _Level) -> None:
    if total > MAPPINGS_LIMIT:
        raise CoreError(
            f"{total:,} or more entries at the {level.name} level: tables lead to themselves,"
            " or are shared beyond what can be listed",
            source=core.source,
            field=level.name,
            limit=MAPPINGS_LIMIT,
        )


def _entries(
    core: Core, tables: U64, numbers: NDArray[np.int64], level: _Level, *, wide: bool
) -> tuple[NDArray[np.int64], U64, U64]:
    """The present entries of the held ones of distinct tables: the table's number, index, value."""
    count, size = 1 << level.bits, 8 if wide else 4
    owners, indices, values, total = [], [], [], 0
    for start in range(0, len(numbers), _BATCH):
        batch = numbers[start : start + _BATCH]
        rows = np.empty((len(batch), count * size), np.uint8)
        inside = (tables[batch] & np.uint64(0xFFF)).tolist()
        pages = core.pages(tables[batch] & ~np.uint64(0xFFF))
        for row, page, at in zip(rows, pages, inside, strict=True):
            row[:] = np.frombuffer(page, np.uint8, count=count * size, offset=at)
        words = rows.view(f"<u{size}")
        which, index = np.nonzero(words & words.dtype.type(1))
        total += len(which)
        _check_total(total, core, level)
        owners.append(batch[which])
        indices.append(index.astype(np.uint64))
        values.append(words[which, index].astype(np.uint64))
    if not owners:
        return np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    return np.concatenate(owners), np.concatenate(indices), np.concatenate(values)


def _emulated(core: Core) -> bool:
    """QEMU ran this kernel: its emulated CPU (seen in 7.2) sets A in PDPTEs, which no real one
    does."""
    return any(each.who == "QEMU" for each in core.notes.control)


def _leaves(entry: U64, level: _Level) -> NDArray[np.bool_]:
    if level.low == PAGE_SIZE.bit_length() - 1:
        return np.ones(len(entry), np.bool_)
    large: NDArray[np.bool_] = entry & _PS != 0
    return large if level.page else np.zeros(len(entry), np.bool_)


def _reserved(
    entry: U64,
    level: _Level,
    leaf: NDArray[np.bool_],
    root: Root,
    emulated: bool,
    physical_bits: int,
) -> NDArray[np.bool_]:
    """Which present entries have reserved bits (SDM 4.3, 4.4.2, 4.5.5, 4.4.1 for PDPTEs)."""
    if root.paging is Paging.I386:
        # Bit 21 of a 4 MiB page; below it the address bits of PSE-36 beyond MAXPHYADDR.
        extra = max(0, min(physical_bits, 40) - 32)
        low = 0x3F_E000 & ~((1 << extra) - 1 << 13) if level.low == 22 else 0
        wrong: NDArray[np.bool_] = leaf & (entry & np.uint64(low) != 0)
        return wrong
    mask = ~((1 << physical_bits) - 1) & _FRAME & ~root.encryption_mask
    if root.paging is Paging.PAE:
        mask |= 0x7FF0_0000_0000_0000
        if level.low == 30:
            mask |= 0x8000_0000_0000_01E6
            mask &= ~_A if emulated else _ALL
    elif level.low > 30:
        mask |= int(_PS)
    large = ((1 << level.low) - 1 & ~0x1FFF) if level.page else 0
    wrong = entry & np.uint64(mask & _ALL) != 0
    wrong |= leaf & (entry & np.uint64(large) != 0)
    return wrong


def _granted(entry: U64, *, wide: bool) -> NDArray[np.uint8]:
    rights = np.where(entry & _RW != 0, WRITABLE, 0) | np.where(entry & _US != 0, USER, 0)
    rights |= np.where((entry & _XD == 0) if wide else True, EXECUTABLE, 0)
    granted: NDArray[np.uint8] = rights.astype(np.uint8)
    return granted


def _page_address(entry: U64, level: _Level, frame_mask: np.uint64, *, wide: bool) -> U64:
    if not wide and level.low == 22:
        # PSE-36: bits 20:13 of the entry are bits 39:32 of the address (SDM table 4-4).
        high = (entry >> np.uint64(13) & np.uint64(0xFF)) << np.uint64(32)
        return (entry & np.uint64(0xFFC0_0000)) | high
    return entry & frame_mask & np.uint64(_ALL & ~((1 << level.low) - 1))


def _signed(virt: U64, sign_bit: int) -> U64:
    if not sign_bit:
        return virt
    high = np.uint64(_ALL & ~((1 << sign_bit) - 1))
    return np.where(virt >> np.uint64(sign_bit) & np.uint64(1) == 1, virt | high, virt)


class _Ledger:
    """Collects damage, all of it counted, the first DAMAGE_LIMIT kept."""

    def __init__(self, sign_bit: int) -> None:
        self._sign_bit = sign_bit
        self._count = 0
        self._levels: list[str] = []
        self._rows: list[tuple[U64, U64, U64]] = []

    def add(self, level: str, at: U64, entries: U64, virt: U64) -> None:
        """Note entries of one level."""
        room = DAMAGE_LIMIT - len(self._levels)
        self._count += len(at)
        self._levels += [level] * min(len(at), room)
        self._rows.append((at[:room], entries[:room], _signed(virt[:room], self._sign_bit)))

    def damage(self) -> Damage:
        """What was collected."""
        at, entries, virt = (np.concatenate(column) for column in zip(*self._rows, strict=True))
        return Damage(
            count=self._count, levels=tuple(self._levels), at=at, entries=entries, virt=virt
        )
