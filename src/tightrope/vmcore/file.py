"""The bytes of a core file, read where they lie and when they are wanted.

A core is as large as a machine's memory, so nothing is read that nobody asks for.  It is not
mapped: a file that another process cuts short while it is mapped ends us by SIGBUS, and pread only
comes back with less.

Rules: the file is never written.  What is no ELF core and has a name is named, with what makes a
core of it; what is read comes back whole or as a CoreError.
"""

from __future__ import annotations

import os
import stat
import weakref

from tightrope.errors import CoreError

FORMATS = (
    (
        b"makedumpfile\0",
        "a flattened dump of makedumpfile: `makedumpfile -R CORE < FILE` makes a file of it again",
    ),
    (
        b"KDUMP   ",
        "a compressed dump (kdump format), which makedumpfile does not turn into an ELF core"
        " (-E refuses it): take the dump with `makedumpfile -E -d 31 /proc/vmcore CORE`",
    ),
    (
        b"DISKDUMP",
        "a dump of diskdump, which nothing turns into an ELF core: take the dump by kdump, with"
        " `makedumpfile -E -d 31 /proc/vmcore CORE`",
    ),
)
"""How a file begins -> what it is (makedumpfile.h, MAKEDUMPFILE_SIGNATURE; diskdump_mod.h,
KDUMP_SIGNATURE, DISK_DUMP_SIGNATURE)."""
SPLIT = (
    "a part of a split dump: `makedumpfile --reassemble PART PART ... DUMP` puts the parts together,"
    " and the whole is a compressed dump; take it as an ELF core with"
    " `makedumpfile -E -d 31 /proc/vmcore CORE`"
)
_BLOCK_SIZES = {64: 428, 32: 416}
"""Offset of block_size in the header, after its utsname and timeval (struct disk_dump_header)."""
_SPLIT_FLAGS = {64: 12, 32: 8}
"""Offset of split in the header of block 1, after phys_base and dump_level (struct
kdump_sub_header)."""


class InMemory:
    """Bytes that are here already."""

    def __init__(self, data: bytes | bytearray | memoryview) -> None:
        self._view = memoryview(data)

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._view)

    def read(self, offset: int, size: int) -> bytes:
        """These of them; the caller stays inside."""
        return bytes(self._view[offset : offset + size])


class InFile:
    """A regular file, open for as long as somebody may read it.  Raises CoreError."""

    def __init__(self, path: str) -> None:
        self._source = path
        try:
            # A pipe without a writer must not make us wait.
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as err:
            raise CoreError(err.strerror or str(err), source=path) from err
        except ValueError as err:
            raise CoreError(str(err), source=path) from err  # a path with a zero byte
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise CoreError("not a regular file", source=path)
        self._size = found.st_size

    @property
    def size(self) -> int:
        """The bytes that there were when it was opened."""
        return self._size

    def read(self, offset: int, size: int) -> bytes:
        """These of them.  Raises CoreError for bytes that are no longer there."""
        try:
            got = os.pread(self._descriptor, size, offset)
            while 0 < len(got) < size and (more := self._more(offset, size, got)):
                got += more
        except OSError as err:
            raise CoreError(err.strerror or str(err), source=self._source, offset=offset) from err
        if len(got) < size:
            raise CoreError(
                "the file became shorter while it was read",
                source=self._source,
                offset=offset + len(got),
                limit=self._size,
            )
        return got

    def _more(self, offset: int, size: int, got: bytes) -> bytes:
        """What a read that was cut short by a signal or by 2 GiB has not brought."""
        return os.pread(self._descriptor, size - len(got), offset + len(got))


def refuse_other_formats(data: InMemory | InFile, source: str) -> None:
    """Raise CoreError for a dump that is no ELF file and can be named."""
    head = data.read(0, min(data.size, 16))
    for begins, what in FORMATS:
        if not head.startswith(begins):
            continue
        raise CoreError(SPLIT if _split(data, head) else what, source=source, offset=0)


def _split(data: InMemory | InFile, head: bytes) -> bool:
    """Whether a compressed dump is one of several parts: its sub header says so."""
    if not head.startswith(b"KDUMP"):
        return False
    for bits, at in _BLOCK_SIZES.items():
        block = _number(data, at)
        if block in (1 << n for n in range(12, 17)):
            return _number(data, block + _SPLIT_FLAGS[bits]) == 1
    return False


def _number(data: InMemory | InFile, at: int) -> int:
    """A 32-bit number, 0 where the file ends before it."""
    return int.from_bytes(data.read(at, 4), "little") if at + 4 <= data.size else 0
