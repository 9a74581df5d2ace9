"""A guest's disk, and the core that its init writes onto it.

sector 0          the core's size in decimal
1 MiB             /proc/vmcore          (scripts/build-initramfs)
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

MIB = 1 << 20
SIZE = 512 * MIB


class Disk:
    """A file without a name."""

    def __init__(self, size: int = SIZE) -> None:
        self.descriptor = os.memfd_create("tightrope-disk", os.MFD_CLOEXEC)
        os.ftruncate(self.descriptor, size)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        os.close(self.descriptor)

    def core(self, path: Path) -> Path:
        """The core as a file."""
        size = int(os.pread(self.descriptor, 512, 0))
        with path.open("wb") as out:
            os.sendfile(out.fileno(), self.descriptor, MIB, size)
        return path
