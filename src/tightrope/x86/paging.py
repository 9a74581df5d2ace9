"""Page-table formats as data, and the one builder that serves all of them.

    linear address, 4-level paging (SDM 4.5, figure 4-8)
    63      48 47     39 38     30 29     21 20     12 11         0
    +---------+---------+---------+---------+---------+------------+
    |  sign   |  PML4   |  PDPT   |   PD    |   PT    |   offset   |
    +---------+---------+---------+---------+---------+------------+

Rules: the format is a value that is passed, never a global.  Callers ask in their words (`Rights`),
bits stay in here.  The builder compares table indices only by equality (a dict-like `TableMemory`
finds the slot) and reads an entry only through its flags and its address field, so that a proof can
run it unchanged on symbolic addresses.  Bulk filling lives in `x86.tables`; reading tables lives in
`x86.walk`, which shares nothing with this file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tightrope.x86.bits import Field, add_up, bit

PRESENT = bit(0)
WRITABLE = bit(1)
USER = bit(2)
ACCESSED = bit(5)
DIRTY = bit(6)
PAGE_SIZE_BIT = bit(7)
GLOBAL = bit(8)
EXECUTE_DISABLE = bit(63)
ADDRESS = Field(12, 40)
"""The frame address field of an 8-byte entry (SDM table 4-20: bits 51:12)."""
ADDRESS_I386 = Field(12, 20)

OFFSET = Field(0, 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One level of a table tree; `large` says that its entries may map `1 << index.lo` bytes."""

    name: str
    index: Field
    large: bool
    rights: bool = True
    """Its entries have R/W, U/S, A bits (PAE's PDPTEs have not: they would be reserved, SDM 4.4.1).
    """

    @property
    def span(self) -> int:
        """Bytes of linear address under one entry."""
        return 1 << self.index.lo


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A paging mode's geometry, top level first."""

    name: str
    levels: tuple[Level, ...]
    entry_size: int
    address: Field
    virtual_bits: int
    has_nx: bool
    identity_bits: int
    """Physical addresses below 2**identity_bits have a linear address equal to themselves."""

    @property
    def leaf(self) -> int:
        """The number of the last level."""
        return len(self.levels) - 1

    @property
    def entries(self) -> int:
        """Entries of a 4 KiB table."""
        return 4096 // self.entry_size

    def index(self, virt: int, level: int) -> int:
        """The slot of a linear address in the table at `level`."""
        return self.levels[level].index.get(virt)

    def page_sizes(self, *, gbpages: bool) -> tuple[int, ...]:
        """Bytes of a page that this format can map, largest first."""
        return tuple(
            level.span
            for number, level in enumerate(self.levels)
            if number == self.leaf or (level.large and (gbpages or level.span < 1 << 30))
        )

    def level_of(self, page_size: int) -> int:
        """The level whose entries map pages of `page_size` bytes.  Raises ValueError."""
        for number, level in enumerate(self.levels):
            if level.span == page_size and (level.large or number == self.leaf):
                return number
        raise ValueError(f"{self.name} has no pages of {page_size:#x} bytes")


_PT = Level(name="PT", index=Field(12, 9), large=False)
_PD = Level(name="PD", index=Field(21, 9), large=True)
_PDPT = Level(name="PDPT", index=Field(30, 9), large=True)
_PML4 = Level(name="PML4", index=Field(39, 9), large=False)
_PML5 = Level(name="PML5", index=Field(48, 9), large=False)

I386 = Format(
    name="i386",
    levels=(
        Level(name="PD", index=Field(22, 10), large=True),
        Level(name="PT", index=Field(12, 10), large=False),
    ),
    entry_size=4,
    address=ADDRESS_I386,
    virtual_bits=32,
    has_nx=False,
    identity_bits=32,
)
PAE = Format(
    name="pae",
    levels=(Level(name="PDPT", index=Field(30, 2), large=False, rights=False), _PD, _PT),
    entry_size=8,
    address=ADDRESS,
    virtual_bits=32,
    has_nx=True,
    identity_bits=32,
)
X86_64 = Format(
    name="x86_64",
    levels=(_PML4, _PDPT, _PD, _PT),
    entry_size=8,
    address=ADDRESS,
    virtual_bits=48,
    has_nx=True,
    identity_bits=47,
)
LA57 = Format(
    name="la57",
    levels=(_PML5, _PML4, _PDPT, _PD, _PT),
    entry_size=8,
    address=ADDRESS,
    virtual_bits=57,
    has_nx=True,
    identity_bits=52,
)
FORMATS = {each.name: each for each in (I386, PAE, X86_64, LA57)}

for _format in FORMATS.values():
    add_up(
        (OFFSET, *(level.index for level in reversed(_format.levels))),
        _format.virtual_bits,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What a mapping allows, in the caller's words; supervisor unless `user`.

    `accessed` presets the accessed bit of every entry on the way and the dirty bit of the leaf, so
    that the CPU never has a reason to write into a table.
    """

    writable: bool = True
    executable: bool = True
    user: bool = False
    is_global: bool = False
    accessed: bool = True


class TableMemory(Protocol):
    """Where tables live: entries by table frame and index."""

    def entry(self, table: int, index: int) -> int:
        """The entry's value; 0 in a fresh table."""

    def set_entry(self, table: int, index: int, value: int) -> None:
        """Write one entry."""


def leaf_bits(fmt: Format, level: int, rights: Rights) -> int:
    """The bits of an entry that maps a page at `level`, its address apart."""
    bits = PRESENT
    bits |= WRITABLE if rights.writable else 0
    bits |= USER if rights.user else 0
    bits |= GLOBAL if rights.is_global else 0
    bits |= ACCESSED | DIRTY if rights.accessed else 0
    bits |= PAGE_SIZE_BIT if level != fmt.leaf else 0
    bits |= EXECUTE_DISABLE if fmt.has_nx and not rights.executable else 0
    return bits


def table_bits(fmt: Format, level: int, rights: Rights) -> int:
    """The bits of an entry at `level` that leads to a table; a leaf below narrows the rights."""
    if not fmt.levels[level].rights:
        return PRESENT
    bits = PRESENT | WRITABLE
    bits |= USER if rights.user else 0
    bits |= ACCESSED if rights.accessed else 0
    return bits


def table_at(
    tables: TableMemory,
    fmt: Format,
    root: int,
    virt: int,
    level: int,
    rights: Rights,
    new_table: Callable[[], int],
) -> int:
    """The frame of the table whose entries at `level` cover `virt`; missing ones are made.

    `new_table` gives the address of a zeroed frame.  Raises ValueError when a large page is in the
    way, or when an entry on the way lets less through than `rights` ask for.  An entry that is
    there is followed, never replaced: two addresses that share an upper slot share the table below
    it (the 2.6.20 code wrote it twice and lost the first chain).
    """
    table = root
    for above in range(level):
        index = fmt.index(virt, above)
        entry = tables.entry(table, index)
        if entry & PRESENT == 0:
            below = new_table()
            tables.set_entry(table, index, below | table_bits(fmt, above, rights))
            table = below
        elif fmt.levels[above].large and entry & PAGE_SIZE_BIT != 0:
            raise ValueError(f"table_at: {fmt.levels[above].name} entry {entry:#x} is a large page")
        elif entry & (wanted := table_bits(fmt, above, rights)) != wanted:
            raise ValueError(
                f"table_at: {fmt.levels[above].name} entry {entry:#x} has less than {wanted:#x}"
            )
        else:
            table = entry & fmt.address.mask
    return table


def map_page(
    tables: TableMemory,
    fmt: Format,
    root: int,
    virt: int,
    phys: int,
    rights: Rights,
    new_table: Callable[[], int],
) -> None:
    """Map the 4 KiB page at linear `virt` to physical `phys`; both are page aligned.

    An older mapping of the same page is replaced.
    """
    table = table_at(tables, fmt, root, virt, fmt.leaf, rights, new_table)
    tables.set_entry(table, fmt.index(virt, fmt.leaf), phys | leaf_bits(fmt, fmt.leaf, rights))
