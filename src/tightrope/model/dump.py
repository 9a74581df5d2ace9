"""A core of a dead kernel's memory: which physical bytes it holds, and what its notes say.

Rules: frozen, keyword-only, slotted; nouns only, see the package.  A core answers where its bytes lie and
how much it holds; it knows no page table, and what it does not hold it does not make up.

May import: memory
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import PAGE_SIZE, Extent

EM_386, EM_X86_64 = 3, 62
"""e_machine (System V ABI, gABI chapter 4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlRegisters:
    """What a note says of one CPU; `who` is the note's name."""

    who: str
    cr0: int
    cr3: int
    cr4: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes:
    """What the notes say.  `cpus` counts the NT_PRSTATUS notes."""

    vmcoreinfo: Mapping[str, str]
    cpus: int
    control: tuple[ControlRegisters, ...]

    def number(self, key: str, base: int = 10) -> int | None:
        """A VMCOREINFO value as a number, None when it is missing or none.

        Linux prints NUMBER() in decimal and SYMBOL() and KERNELOFFSET in bare hexadecimal.
        """
        text = self.vmcoreinfo.get(key)
        try:
            return None if text is None else int(text, base)
        except ValueError:
            return None


@dataclass(frozen=True, kw_only=True, slots=True)
class Core:
    """A core, read and checked.  The arrays have one element per piece of memory in the file.

    `starts` and `ends` are physical addresses, sorted and apart; `offsets` are the pieces' places
    in `data`.  `linear` has (virtual start, physical start, bytes) of each PT_LOAD as its writer
    named them: what kdump writes there differs between kernels, so it is a hint.
    """

    source: str
    machine: int
    """e_machine: EM_386 or EM_X86_64; a PAE kernel's core may be ELF64 with EM_386."""
    bits: int
    """The ELF class: width of the headers, not of the kernel."""
    data: memoryview
    starts: NDArray[np.uint64]
    ends: NDArray[np.uint64]
    offsets: NDArray[np.uint64]
    linear: tuple[tuple[int, int, int], ...]
    notes: Notes

    @property
    def extents(self) -> tuple[Extent, ...]:
        """The physical memory that the core holds."""
        pairs = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return tuple(Extent(start, end) for start, end in pairs)

    def page_offsets(self, frames: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Where in `data` each 4096-byte frame begins; -1 where the core does not hold all of it."""
        if not len(self.starts):
            return np.full(len(frames), -1, np.int64)
        at = np.searchsorted(self.starts, frames, side="right").astype(np.int64) - 1
        piece = np.maximum(at, 0)
        # Written so that nothing wraps: a frame may lie anywhere in 64 bits.
        into = frames - self.starts[piece]
        room = self.ends[piece] - self.starts[piece]
        held = (at >= 0) & (room >= PAGE_SIZE) & (into <= room - np.minimum(room, PAGE_SIZE))
        offsets = (self.offsets[piece] + np.where(held, into, 0)).astype(np.int64)
        return np.where(held, offsets, -1)

    def page(self, frame: int) -> memoryview | None:
        """The 4096 bytes of a frame, None where the core does not hold all of it."""
        (offset,) = self.page_offsets(np.array([frame], np.uint64)).tolist()
        return None if offset < 0 else self.data[offset : offset + PAGE_SIZE]

    def held(self, starts: NDArray[np.uint64], sizes: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """How many bytes of each physical extent the core holds."""
        if not len(self.starts):
            return np.zeros(len(starts), np.uint64)
        before = np.concatenate([[0], np.cumsum(self.ends - self.starts)]).astype(np.uint64)

        def below(address: NDArray[np.uint64]) -> NDArray[np.uint64]:
            at = np.searchsorted(self.starts, address, side="right")
            piece = np.maximum(at, 1) - 1
            inside = np.minimum(address, self.ends[piece]) - self.starts[piece]
            count: NDArray[np.uint64] = np.where(at == 0, 0, before[piece] + inside)
            return count.astype(np.uint64)

        return below(starts + sizes) - below(starts)
