"""Random page tables for tests that ask a CPU: two tables a level, two slots a table, every sort of entry.

Rules: most entries are well made, so that walks come far.  Frames lie in the marked RAM or in a hole;
slot 0 of the root belongs to whoever runs the accesses.  What no CPU here can be asked about is kept
out: see the tests.
"""

from __future__ import annotations

import random
from typing import Protocol

from tests.x86.modes import (
    G1,
    NXE,
    PG_PE_WP,
    PGE,
    PS,
    PSE,
    RW,
    SMAP,
    SMEP,
    US,
    WP,
    XD,
    A,
    D,
    G,
    Mode,
    P,
)

MIB = 1 << 20
RAM_SIZE = 8 * MIB
MARKED = 4 * MIB
"""From here on each 8 bytes say where they are."""
TABLES = 0x20000
"""The root; the other tables of a world follow it."""


class Sheet(Protocol):
    """What a world is written on."""

    mode: Mode
    user: bool
    root: int

    def clear(self, start: int, size: int) -> None:
        """Zeros into RAM."""

    def entry(self, table: int, index: int, value: int) -> None:
        """One page-table entry."""

    def lay_code(self) -> None:
        """Map what runs the accesses, by slot 0 of the root."""


class World:
    """One set of tables and the MMU state that goes with it."""

    def __init__(self, sheet: Sheet, rng: random.Random) -> None:
        self.sheet, self.rng = sheet, rng
        mode = sheet.mode
        tables = [[sheet.root]] + [
            [TABLES + 0x1000 * (2 * level + which + 1) for which in (0, 1)]
            for level in range(mode.levels - 1)
        ]
        sheet.clear(TABLES, 0x1000 * 12)
        self.slots: list[tuple[int, ...]] = []
        for level, (low, bits) in enumerate(mode.places):
            slots = tuple(rng.sample(range(1, 1 << bits), 2))
            # An address under a 1 GiB page at 0 has to fall into the marked RAM.
            self.slots.append((2, 3) if low == 21 and mode.levels > 3 else slots)
            for table in tables[level]:
                for slot in self.slots[level]:
                    below = rng.choice(tables[level + 1]) if level + 1 < mode.levels else None
                    sheet.entry(table, slot, self.entry(level, low, below))
        sheet.lay_code()
        maybe = rng.choice
        cr4 = mode.cr4 & ~(PSE | PGE) | maybe((0, PGE)) | maybe((0, SMEP)) | maybe((0, SMAP))
        if mode.name != "i386" or rng.random() < 0.8:
            cr4 |= PSE
        self.mmu = mode.mmu(
            sheet.root,
            cr0=PG_PE_WP & ~maybe((0, WP)),
            cr4=cr4,
            efer=mode.efer & ~(NXE if rng.random() < 0.25 else 0),
            physical_bits=40,
            user=sheet.user,
            ac=maybe((False, True)),
        )

    def entry(self, level: int, low: int, below: int | None) -> int:
        """An entry of one level; most are well made, so that walks come far."""
        rng, mode = self.rng, self.sheet.mode
        wide, likely = mode.entry_size == 8, rng.random
        value = 0
        for bit, chance in ((P, 0.95), (RW, 0.75), (US, 0.7), (A, 0.6), (D, 0.6), (G, 0.4)):
            value |= bit if likely() < chance else 0
        value |= rng.getrandbits(3) << 9  # ignored
        if mode.name == "pae" and level == 0:
            return value & (P | 0xE00) | (below or 0)
        size = 1 << low
        large = size in mode.page_sizes
        if below is None or (large and likely() < 0.3):
            value |= (PS if size > 4096 else rng.choice((0, PS))) | self.frame(size)
            if size > 4096 and likely() < 0.08:
                value |= 1 << (rng.randrange(13, low) if wide else 21)
        else:
            value |= below if likely() < 0.98 else rng.randrange(1 << 31, 1 << 32, 4096)
            value |= PS if (large and likely() < 0.02) or (not large and likely() < 0.05) else 0
        if wide:
            value |= XD if likely() < 0.15 else 0
            value |= 1 << rng.randrange(40, 52) if likely() < 0.05 else 0
            value |= 1 << rng.randrange(52, 63) if likely() < 0.05 else 0
        return value

    def frame(self, size: int) -> int:
        """Where a page of `size` bytes lies: mostly in the marked RAM, else in a hole below 1 TiB."""
        rng = self.rng
        if rng.random() < 0.85:
            return 0 if size == G1 else rng.randrange(MARKED, RAM_SIZE, size)
        if self.sheet.mode.entry_size == 8:
            return rng.randrange(1 << 38, 1 << 40, size)
        if size > 4096:  # bits 20:13 are address bits 39:32 (SDM table 4-4)
            return rng.randrange(1 << 31, 1 << 32, size) | rng.getrandbits(8) << 13
        return rng.randrange(1 << 31, 1 << 32, size)

    def address(self) -> int:
        """An aligned linear address; most lead to a mapped page, a few are not canonical."""
        rng, mode = self.rng, self.sheet.mode
        indices = [
            rng.choice(slots) if rng.random() < 0.98 else rng.randrange(1, 1 << bits)
            for slots, (_, bits) in zip(self.slots, mode.places, strict=True)
        ]
        virt = mode.address(indices, rng.randrange(0, 4096, 8))
        if mode.linear_bits > 32 and rng.random() < 0.03:
            virt ^= 1 << rng.randrange(mode.linear_bits - 1, 64)
        return virt
