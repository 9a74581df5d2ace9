"""The bytes of a core file, read where they lie and when they are wanted.

A core is as large as a machine's memory, so nothing is read that nobody asks for.  It is not
mapped: a file that another process cuts short while it is mapped ends us by SIGBUS, and pread only
comes back with less.

Rules: the file is never written.  What is read comes back whole or as a CoreError.
"""

from __future__ import annotations

import os
import stat
import weakref

from tightrope.errors import CoreError


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
