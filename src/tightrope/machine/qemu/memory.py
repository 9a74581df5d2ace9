"""A PC's RAM as this process and QEMU share it.

    offset in the file     physical
    0                      0             all of it, below 3.5 GiB; or, split, the first 3 GiB
    3 GiB                  4 GiB         the rest

Source: QEMU hw/i386/pc_piix.c, pc_init1(): the split of the `pc` machine.

Rules: the file has no name (memfd): it is gone with the last process that holds it.  What lies
between 640 KiB and 1 MiB is RAM here, whatever the chipset shows the CPU in its place.
"""

from __future__ import annotations

import mmap
import os

from tightrope.errors import CannotBe, MachineError
from tightrope.memory import Extent
from tightrope.observe.physical import Ram

LOW_ALL, LOW_SPLIT, HIGH = 0xE000_0000, 0xC000_0000, 1 << 32
SPLIT = f"max-ram-below-4g={LOW_SPLIT}"
"""The machine's property that splits RAM of less than 3.5 GiB as well."""
MIB = 1 << 20


def extents_of(size: int, *, split: bool) -> tuple[Extent, ...]:
    """The physical extents of a PC with `size` bytes of RAM."""
    if not split:
        return (Extent(0, size),)
    return Extent(0, LOW_SPLIT), Extent.sized(HIGH, size - LOW_SPLIT)


class SharedRam(Ram):
    """`size` bytes of RAM; `descriptor` is the file that QEMU maps as well."""

    def __init__(self, size: int, *, split: bool = False) -> None:
        """Raises CannotBe where this computer has not so much memory left."""
        available = _available()
        if available is not None and size > available + _lazily(size):
            raise CannotBe(
                f"a PC with {size // MIB} MiB needs more memory than the"
                f" {available // MIB} MiB that this computer has left"
            )
        self._index(extents_of(size, split=split))
        self.began_empty = False
        """The host's RAM was made zeros before an old kernel was laid into it."""
        try:
            self.descriptor = os.memfd_create("tightrope-ram", os.MFD_CLOEXEC)
        except OSError as err:
            raise MachineError(f"no file for a PC's RAM: {err.strerror}") from err
        self._offsets = [0, LOW_SPLIT][: len(self.extents)]
        try:
            os.ftruncate(self.descriptor, size)
            self._maps = [
                mmap.mmap(self.descriptor, each.size, offset=offset)
                for each, offset in zip(self.extents, self._offsets, strict=True)
            ]
        except (OSError, ValueError, OverflowError) as err:
            os.close(self.descriptor)
            raise CannotBe(f"no room for {size // MIB} MiB of a PC's RAM: {err}") from err
        self._views = [memoryview(each) for each in self._maps]

    def written(self) -> frozenset[int] | None:
        """See `model.Memory`."""
        return self.in_use() if self.began_empty else None

    def in_use(self) -> frozenset[int]:
        """Numbers of the frames that hold something: pages of the file that are no holes
        (lseek(2)).

        Once the file is closed, every frame is named.
        """
        if self.descriptor < 0:
            return frozenset(frame for each in self.extents for frame in each.pages)
        out: set[int] = set()
        for extent, offset in zip(self.extents, self._offsets, strict=True):
            at, end = offset, offset + extent.size
            while at < end:
                try:
                    start = os.lseek(self.descriptor, at, os.SEEK_DATA)
                except OSError:  # ENXIO: nothing but a hole up to the end of the file
                    break
                at = min(end, os.lseek(self.descriptor, start, os.SEEK_HOLE))
                moved = extent.start - offset
                out.update(Extent(start + moved, at + moved).pages)
        return frozenset(out)

    def held(self, extent: Extent) -> tuple[Extent, ...]:
        """See `model.Memory`: what is in our page tables says nothing of what QEMU wrote."""
        return (extent,)

    def _give_back(self, number: int, start: int, size: int) -> None:
        """See `physical.Ram`: a hole in the file reads as zeros, for QEMU too."""
        self._maps[number].madvise(mmap.MADV_REMOVE, start, size)

    def close(self) -> None:
        """Give back the descriptor; what is mapped goes with the last view of it."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _available() -> int | None:
    """Bytes of memory that Linux could give away now, None where it does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except (OSError, ValueError, IndexError):
        pass
    return None


def _lazily(size: int) -> int:
    """Bytes that a guest of that size hardly ever touches: all above 1 GiB are handed out
    lazily."""
    return max(0, size - (1 << 30))
