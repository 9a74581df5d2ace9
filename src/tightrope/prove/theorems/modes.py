"""The four paging modes as the theorems see them: a third set of constants.

Rules: written from the manual's figures (SDM 4-2, 4-5, 4-8, 4-10), without a look at the builder's
or the walker's constants: a shift that is wrong in one of them, or in both, has to show here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from tightrope.model import Paging
from tightrope.x86.paging import FORMATS, Format
from tightrope.x86.walk import Mmu

PG, PE, WP = 1 << 31, 1, 1 << 16
PSE, PAE, PGE, LA57, SMEP, SMAP = (1 << n for n in (4, 5, 7, 12, 20, 21))
LME, LMA, NXE = 1 << 8, 1 << 10, 1 << 11


@dataclass(frozen=True, kw_only=True, slots=True)
class Geometry:
    """One mode.  `places` are (lowest bit, bits) of each index, top level first;
    sizes are bytes.
    """

    mode: Paging
    places: tuple[tuple[int, int], ...]
    entry_size: int
    linear_bits: int
    frame_bits: int
    """Bits of a physical address that an entry can hold, the low twelve included."""
    identity_bits: int
    """Physical addresses below 2**identity_bits are a linear address, too (SDM vol. 1, 3.3.7.1)."""
    cr4: int
    efer: int

    @property
    def format(self) -> Format:
        """The same mode as the builder knows it."""
        return FORMATS[self.mode]

    @property
    def canonical_shift(self) -> int:
        """Above this bit a linear address of long mode is all zeros or all ones; 32 elsewhere."""
        return self.linear_bits - 1 if self.linear_bits > 32 else 32

    def address(self, indices: Sequence[int], offset: int = 0) -> int:
        """The (canonical) linear address that has these indices."""
        out = offset
        for (low, _), index in zip(self.places, indices, strict=True):
            out |= index << low
        if self.linear_bits > 32 and out >> (self.linear_bits - 1):
            out |= (1 << 64) - (1 << self.linear_bits)
        return out

    def states(self, root: int, *, physical_bits: int | None = None) -> Iterator[Mmu]:
        """A supervisor under this mode with every set of the protections that a walk looks at."""
        for wp, pse, pge, smep, smap, nxe in product((0, 1), repeat=6):
            if nxe and self.mode is Paging.I386:
                continue
            yield Mmu(
                cr0=PG | PE | wp * WP,
                cr3=root,
                cr4=self.cr4 | pse * PSE | pge * PGE | smep * SMEP | smap * SMAP,
                efer=self.efer | nxe * NXE,
                physical_bits=physical_bits or self.frame_bits,
            )

    def strict(self, root: int) -> Mmu:
        """All protections on at once."""
        return Mmu(
            cr0=PG | PE | WP,
            cr3=root,
            cr4=self.cr4 | PSE | PGE | SMEP | SMAP,
            efer=self.efer | (0 if self.mode is Paging.I386 else NXE),
            physical_bits=self.frame_bits,
        )


GEOMETRIES = {
    each.mode: each
    for each in (
        Geometry(
            mode=Paging.I386,
            places=((22, 10), (12, 10)),
            entry_size=4,
            linear_bits=32,
            frame_bits=32,
            identity_bits=32,
            cr4=0,
            efer=0,
        ),
        Geometry(
            mode=Paging.PAE,
            places=((30, 2), (21, 9), (12, 9)),
            entry_size=8,
            linear_bits=32,
            frame_bits=52,
            identity_bits=32,
            cr4=PAE,
            efer=0,
        ),
        Geometry(
            mode=Paging.X86_64,
            places=((39, 9), (30, 9), (21, 9), (12, 9)),
            entry_size=8,
            linear_bits=48,
            frame_bits=52,
            identity_bits=47,
            cr4=PAE,
            efer=LME | LMA,
        ),
        Geometry(
            mode=Paging.LA57,
            places=((48, 9), (39, 9), (30, 9), (21, 9), (12, 9)),
            entry_size=8,
            linear_bits=57,
            frame_bits=52,
            identity_bits=52,
            cr4=PAE | LA57,
            efer=LME | LMA,
        ),
    )
}
