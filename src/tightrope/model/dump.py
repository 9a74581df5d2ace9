"""A core of a dead kernel's memory: which physical bytes it holds, and what its notes say.

    physical memory   |--- PT_LOAD -----------|        |-- PT_LOAD --|
                      |== held ======|- left  |  out-  |== held =====|
                      |              |  out --|  side  |

Rules: frozen, keyword-only, slotted; nouns only, see the package.  A core answers where its bytes
lie and how much it holds; it knows no page table, and what it does not hold it does not make up:
memory that it describes and leaves out was zeros, or was not dumped, and nobody knows which.

May import: memory, model
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model.notes import Notes

U64 = NDArray[np.uint64]


class Data(Protocol):
    """The bytes of a core file, wherever they are."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """All of these.  Raises CoreError when the file has lost them since it was opened."""
        ...


class Kind(StrEnum):
    """How a dump is laid out; the value is what people call it."""

    ELF = "ELF"
    KDUMP = "kdump-compressed"


class Compression(StrEnum):
    """What the pages of a compressed dump are packed with."""

    ZLIB = "zlib"
    LZO = "lzo"
    SNAPPY = "snappy"
    ZSTD = "zstd"


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """The file's format.  A `flattened` one was written into a pipe."""

    kind: Kind
    flattened: bool
    compression: tuple[Compression, ...] = ()
    """Empty where every page is as it was."""
    written: int | None = None
    """Seconds since 1970, where the header has a time."""
    part: Extent | None = None
    """The memory that this one part of a split dump has pages of."""


class Standing(IntEnum):
    """How a frame stands in a core."""

    HELD = 0
    LEFT_OUT = 1
    """Described, and not all of it held."""
    OUTSIDE = 2
    """Not all of it is memory that the core describes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pieces:
    """Extents of physical memory, sorted and apart, as arrays of their starts and ends."""

    starts: U64
    ends: U64

    @property
    def extents(self) -> tuple[Extent, ...]:
        """The same as values."""
        pairs = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return tuple(Extent(start, end) for start, end in pairs)

    def covered(self, starts: U64, sizes: U64) -> U64:
        """How many bytes of each extent lie in these; an extent ends at 2**64 at the latest."""
        if not len(self.starts):
            return np.zeros(len(starts), np.uint64)
        before = np.concatenate([[0], np.cumsum(self.ends - self.starts)]).astype(np.uint64)

        def below(address: U64) -> U64:
            at = np.searchsorted(self.starts, address, side="right")
            piece = np.maximum(at, 1) - 1
            inside = np.minimum(address, self.ends[piece]) - self.starts[piece]
            return np.where(at == 0, np.uint64(0), before[piece] + inside).astype(np.uint64)

        room = np.uint64(0xFFFF_FFFF_FFFF_FFFF) - starts
        return below(starts + np.minimum(sizes, room)) - below(starts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Core:
    """A core, read and checked.

    `held` is what the file has, one element per piece that is in one place of it, and `offsets`
    says at which; `described` is what its program headers speak of.  `linear` has (virtual start,
    physical start, bytes) of each PT_LOAD as its writer named them: what kdump writes there differs
    between kernels, so it is a hint.
    """

    source: str
    machine: int
    """e_machine: EM_386 or EM_X86_64; a PAE kernel's core may be ELF64 with EM_386."""
    bits: int
    """The ELF class: width of the headers, not of the kernel."""
    container: Container
    data: Data
    held: Pieces
    offsets: U64
    described: Pieces
    linear: tuple[tuple[int, int, int], ...]
    notes: Notes
    unused: tuple[str, ...] = ()
    """What of the file could not be used, and why."""

    @property
    def extents(self) -> tuple[Extent, ...]:
        """The physical memory that the core holds."""
        return self.held.extents

    def standing(self, frames: U64) -> NDArray[np.int8]:
        """How each 4096-byte frame stands: a `Standing`.  A frame may lie in several pieces."""
        sizes = np.full(len(frames), PAGE_SIZE, np.uint64)
        held = self.held.covered(frames, sizes) == PAGE_SIZE
        described = self.described.covered(frames, sizes) == PAGE_SIZE
        rest = np.where(described, Standing.LEFT_OUT, Standing.OUTSIDE)
        standing: NDArray[np.int8] = np.where(held, Standing.HELD, rest).astype(np.int8)
        return standing

    def pages(self, frames: U64) -> Iterator[bytes]:
        """The 4096 bytes of each of these frames, all of which are held."""
        piece = np.searchsorted(self.held.starts, frames, side="right") - 1
        into = frames - self.held.starts[piece]
        alone = self.held.ends[piece] - frames >= PAGE_SIZE
        places = (self.offsets[piece] + into).tolist()
        for number, (place, whole) in enumerate(zip(places, alone.tolist(), strict=True)):
            yield self.data.read(place, PAGE_SIZE) if whole else self._joined(int(frames[number]))

    def page(self, frame: int) -> bytes | None:
        """The 4096 bytes of a frame, None where the core does not hold all of it."""
        frames = np.array([frame], np.uint64)
        return next(self.pages(frames)) if self.standing(frames)[0] == Standing.HELD else None

    def _joined(self, frame: int) -> bytes:
        """A frame that lies in several pieces."""
        out, at = b"", frame
        while len(out) < PAGE_SIZE:
            piece = int(np.searchsorted(self.held.starts, np.uint64(at), side="right")) - 1
            into = at - int(self.held.starts[piece])
            size = min(PAGE_SIZE - len(out), int(self.held.ends[piece]) - at)
            out += self.data.read(int(self.offsets[piece]) + into, size)
            at += size
        return out
