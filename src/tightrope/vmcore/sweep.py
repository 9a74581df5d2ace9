"""Every mapping under a pgd, one level of tables after the other, and what is broken in them.

Rules: the levels are `x86.sweep`'s, here is where they are read from.  Unlike `x86.survey`, which
trusts tables that we built, this one reads tables of a kernel that died: a table may be missing, an
entry impossible, and a level may lead to itself, so that a few pages name more mappings than memory
can hold.  Every distinct table is read once, and what would not fit is refused before it is made.

    tables of a level      distinct ones      present entries        tables of the next level
    [t0 t1 t0 t2 ...]  ->  [t0 t1 t2]     ->  [e e e | e | e e]  ->  those that are not pages
                             one read            reserved bits out
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import CoreError
from tightrope.model import Paging
from tightrope.model.dump import Core, Standing
from tightrope.model.modes import MODES
from tightrope.model.pgd import EXECUTABLE, GLOBAL, USER, WRITABLE, Damage, Sweep
from tightrope.model.root import Root
from tightrope.x86 import ladder as bits
from tightrope.x86.ladder import Ladder, Rung, without_bits
from tightrope.x86.sweep import I64, U64, Pages, Tables, columns, reserved, signed
from tightrope.x86.sweep import sweep as levels

MAPPINGS_LIMIT = 1 << 24
"""Entries of one level: 64 GiB in 4 KiB pages, and about 1 GiB of ours to list them."""
DAMAGE_LIMIT = 1 << 16
"""Missing tables and impossible entries that are kept one by one; all are counted."""
_BATCH = 2048
"""Tables per read: 8 MiB, which the caches still like."""


def ladder_of(core: Core, root: Root, physical_bits: int = 52) -> Ladder:
    """How tables under `root` are read: no-execute and large pages are taken as enabled."""
    row = MODES[root.paging]
    efer, cr4 = row.efer_on | bits.EFER_NXE, row.cr4_on | bits.CR4_PSE
    # QEMU's emulated CPU (seen in 7.2) sets A in PDPTEs, which no real one does; a dump that the
    # guest itself saved has no note of QEMU's that would tell.
    free = root.encryption_mask | (bits.A if root.paging is Paging.PAE else 0)
    return without_bits(bits.ladder(efer, cr4, True, physical_bits), free)


def sweep(core: Core, root: Root, *, physical_bits: int = 52) -> Sweep:
    """Read all tables under `root`.  `physical_bits` is MAXPHYADDR, which no core names.

    Raises CoreError when the tables name more mappings than MAPPINGS_LIMIT (tables that lead to
    themselves, or a kernel with KASAN's shadow).
    """
    reader = _Reader(core, ladder_of(core, root, physical_bits))
    found = list(levels(reader.entries, reader.ladder, root.phys))
    virt, phys, size = columns(found, reader.ladder)
    order = np.argsort(virt, kind="stable")
    rights = [_rights(each) for each in found] or [np.zeros(0, np.uint8)]
    return Sweep(
        virt=virt[order],
        phys=phys[order],
        size=size[order],
        rights=np.concatenate(rights)[order],
        tables=reader.read,
        missing=reader.missing.damage(),
        untold=reader.untold.damage(),
        reserved=reader.reserved.damage(),
    )


def tables_below(core: Core, root: Root) -> frozenset[int]:
    """Every table under a root, the root itself apart, whether the core has it or not."""
    reader, seen = _Reader(core, ladder_of(core, root)), set[int]()

    def entries(tables: Tables, rung: Rung) -> tuple[I64, I64, U64]:
        seen.update(tables.phys.tolist() if tables.above else ())
        return reader.entries(tables, rung)

    list(levels(entries, reader.ladder, root.phys))
    return frozenset(seen)


def _rights(pages: Pages) -> NDArray[np.uint8]:
    """WRITABLE and USER are an entry's bits 1 and 2, EXECUTABLE XD turned round, GLOBAL bit 8."""
    granted = pages.rights >> np.uint64(1) & np.uint64(WRITABLE | USER)
    granted |= pages.rights >> np.uint64(61) & np.uint64(EXECUTABLE)
    granted |= pages.entry >> np.uint64(5) & np.uint64(GLOBAL)
    return granted.astype(np.uint8)


class _Reader:
    """Reads a core's tables, and notes which are not there and which entries are impossible."""

    def __init__(self, core: Core, ladder: Ladder) -> None:
        self.ladder = ladder
        self.read = 0
        """Distinct tables."""
        self.missing, self.untold, self.reserved = (_Ledger(ladder) for _ in range(3))
        self._core = core

    def entries(self, tables: Tables, rung: Rung) -> tuple[I64, I64, U64]:
        """See `x86.sweep.Read`."""
        distinct, which = np.unique(tables.phys, return_inverse=True)
        standing = self._core.standing(distinct & ~np.uint64(0xFFF))
        for ledger, kind in ((self.missing, Standing.OUTSIDE), (self.untold, Standing.LEFT_OUT)):
            if (bad := standing == kind).any():
                lost = bad[which]
                level = tables.above.name if tables.above else "CR3"
                ledger.add(level, tables.place()[lost], tables.entry[lost], tables.virt[lost])
        numbers = np.nonzero(standing == Standing.HELD)[0]
        self.read += len(numbers)
        owner, index, entry = self._present(distinct, numbers, rung)
        # Present entries of each distinct table, then of each visit to it.
        per_table = np.bincount(owner, minlength=len(distinct))
        per_visit = per_table[which]
        total = int(per_visit.sum())
        self._refuse_more(total, rung)
        first = (np.cumsum(per_table) - per_table)[which]
        before = np.cumsum(per_visit) - per_visit
        pick = np.repeat(first - before, per_visit) + np.arange(total)
        visit = np.repeat(np.arange(len(which)), per_visit)
        return self._possible(tables, rung, visit, index[pick], entry[pick])

    def _present(self, tables: U64, numbers: I64, rung: Rung) -> tuple[I64, I64, U64]:
        """The present entries of tables that are held: number of the table, index, value."""
        count, size = rung.slots + 1, self.ladder.entry_size
        owners, indices = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        values, total = [np.zeros(0, np.uint64)], 0
        for start in range(0, len(numbers), _BATCH):
            batch = numbers[start : start + _BATCH]
            rows = np.empty((len(batch), count * size), np.uint8)
            inside = (tables[batch] & np.uint64(0xFFF)).tolist()
            pages = self._core.pages(tables[batch] & ~np.uint64(0xFFF))
            for row, page, at in zip(rows, pages, inside, strict=True):
                row[:] = np.frombuffer(page, np.uint8, count=count * size, offset=at)
            words = rows.view(f"<u{size}")
            which, index = np.nonzero(words & words.dtype.type(1))
            total += len(which)
            self._refuse_more(total, rung)
            owners.append(batch[which])
            indices.append(index)
            values.append(words[which, index].astype(np.uint64))
        return np.concatenate(owners), np.concatenate(indices), np.concatenate(values)

    def _possible(
        self, tables: Tables, rung: Rung, visit: I64, index: I64, entry: U64
    ) -> tuple[I64, I64, U64]:
        """The entries without those that have reserved bits, which are noted."""
        bad = reserved(entry, rung, self.ladder)
        if not bad.any():
            return visit, index, entry
        number, slot = visit[bad], index[bad].astype(np.uint64)
        at = tables.phys[number] + slot * np.uint64(self.ladder.entry_size)
        virt = tables.virt[number] + (slot << np.uint64(rung.low))
        self.reserved.add(rung.name, at, entry[bad], virt)
        return visit[~bad], index[~bad], entry[~bad]

    def _refuse_more(self, total: int, rung: Rung) -> None:
        if total > MAPPINGS_LIMIT:
            raise CoreError(
                f"{total:,} or more entries at the {rung.name} level: tables lead to themselves,"
                " or are shared beyond what can be listed",
                source=self._core.source,
                field=rung.name,
                limit=MAPPINGS_LIMIT,
            )


class _Ledger:
    """Collects damage, all of it counted, the first DAMAGE_LIMIT kept."""

    def __init__(self, ladder: Ladder) -> None:
        self._ladder = ladder
        self._count = 0
        self._levels: list[str] = []
        self._rows = [(np.zeros(0, np.uint64),) * 3]

    def add(self, level: str, at: U64, entries: U64, virt: U64) -> None:
        """Note entries of one level."""
        room = DAMAGE_LIMIT - len(self._levels)
        self._count += len(at)
        self._levels += [level] * min(len(at), room)
        self._rows.append((at[:room], entries[:room], signed(virt[:room], self._ladder)))

    def damage(self) -> Damage:
        """What was collected."""
        at, entries, virt = (np.concatenate(column) for column in zip(*self._rows, strict=True))
        return Damage(
            count=self._count, levels=tuple(self._levels), at=at, entries=entries, virt=virt
        )
