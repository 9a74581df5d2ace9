"""The four paging modes as the tests see them, and physical memory to put entries into.

Rules: written from the SDM's figures 4-2, 4-5, 4-8 and 4-10, without a look at the builder's or the
walker's constants: a wrong shift on either side has to show here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tightrope.x86.walk import Mmu

# SDM tables 4-4 to 4-20.
P, RW, US, A, D, PS, G = (1 << n for n in (0, 1, 2, 5, 6, 7, 8))
XD = 1 << 63

# SDM 2.5 and 2.2.1.
PG_PE_WP = 1 << 31 | 1 << 16 | 1
WP = 1 << 16
PSE, PAE, PGE, LA57, SMEP, SMAP = (1 << n for n in (4, 5, 7, 12, 20, 21))
LME, LMA, NXE = 1 << 8, 1 << 10, 1 << 11


@dataclass(frozen=True, slots=True)
class Mode:
    """A paging mode: `places` are (lowest bit, number of bits) of each index, top level first."""

    name: str
    places: tuple[tuple[int, int], ...]
    entry_size: int
    linear_bits: int
    page_sizes: tuple[int, ...]
    cr4: int
    efer: int

    @property
    def levels(self) -> int:
        """Tables on the way to a 4 KiB page."""
        return len(self.places)

    def address(self, indices: Sequence[int], offset: int = 0) -> int:
        """The (canonical) linear address that has these indices."""
        out = offset
        for (low, _), index in zip(self.places, indices, strict=True):
            out |= index << low
        if self.linear_bits > 32 and out >> (self.linear_bits - 1):
            out |= (1 << 64) - (1 << self.linear_bits)
        return out

    def indices(self, virt: int) -> tuple[int, ...]:
        """The slots of a linear address, top level first."""
        return tuple(virt // (1 << low) % (1 << bits) for low, bits in self.places)

    def mmu(self, root: int, **changes: Any) -> Mmu:
        """A supervisor on this mode's tables, all features that need no entry bit switched on."""
        state: dict[str, Any] = {
            "cr0": PG_PE_WP,
            "cr3": root,
            "cr4": self.cr4,
            "efer": self.efer,
            "physical_bits": 52,
        }
        return Mmu(**(state | changes))


K4, M2, M4, G1 = 1 << 12, 1 << 21, 1 << 22, 1 << 30

MODES = {
    mode.name: mode
    for mode in (
        Mode("i386", ((22, 10), (12, 10)), 4, 32, (M4, K4), PSE | PGE, 0),
        Mode("pae", ((30, 2), (21, 9), (12, 9)), 8, 32, (M2, K4), PAE | PGE, NXE),
        Mode(
            "x86_64",
            ((39, 9), (30, 9), (21, 9), (12, 9)),
            8,
            48,
            (G1, M2, K4),
            PAE | PGE,
            LME | LMA | NXE,
        ),
        Mode(
            "la57",
            ((48, 9), (39, 9), (30, 9), (21, 9), (12, 9)),
            8,
            57,
            (G1, M2, K4),
            PAE | PGE | LA57,
            LME | LMA | NXE,
        ),
    )
}


class Frames:
    """Physical memory by frames of 4096 bytes, made when first written; the rest are holes."""

    def __init__(self) -> None:
        self.bytes: dict[int, bytearray] = {}

    def put(self, at: int, value: int, size: int) -> None:
        """Write `size` bytes, little-endian, inside one frame."""
        frame = self.bytes.setdefault(at // 4096 * 4096, bytearray(4096))
        frame[at % 4096 : at % 4096 + size] = value.to_bytes(size, "little")

    def word(self, at: int, size: int) -> int | None:
        """What `x86.walk` reads with."""
        frame = self.bytes.get(at // 4096 * 4096)
        if frame is None:
            return None
        return int.from_bytes(frame[at % 4096 : at % 4096 + size], "little")

    def table(self, at: int) -> bytes | None:
        """What `x86.survey` reads with."""
        frame = self.bytes.get(at)
        return None if frame is None else bytes(frame)
