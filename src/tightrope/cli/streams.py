"""Standard output that survives its reader, and descriptors 0 to 2 whatever they were.

    print -> TextIOWrapper -> BufferedWriter -> Output -> the descriptor

A reader that goes away (`| head -1`) may be gone before we write or not: a pipe takes 64 KiB
without one.  So that the exit status never depends on who was quicker, what it no longer wants is
dropped and the command goes on to its end.  What is said on standard error is said as far as it
can be: whether anybody hears it changes neither the answer nor the status.

Rules: only output of ours is meant by `OutputFailed`; an OSError from anywhere else stays what it
is.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class OutputFailed(OSError):
    """Standard output cannot be written: a full disk, for instance."""


class Output(io.RawIOBase):
    """A descriptor to write to.  It takes nothing more once it failed, or once `ended` says so."""

    def __init__(self, descriptor: int, ended: Callable[[], bool], *, may_fail: bool) -> None:
        self._descriptor = descriptor
        self._ended = ended
        self._may_fail = may_fail
        self._gone = False

    def writable(self) -> bool:
        """It is."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether somebody sits there."""
        return os.isatty(self._descriptor)

    def write(self, data: object, /) -> int:
        """All or a part of the bytes; all of them, into nothing, when nobody reads."""
        assert isinstance(data, bytes | bytearray | memoryview)
        if self._gone or self._ended():
            return len(data)
        try:
            return os.write(self._descriptor, data)
        except BrokenPipeError:
            self._gone = True
            return len(data)
        except OSError as err:
            self._gone = True
            if self._may_fail:
                return len(data)
            raise OutputFailed(err.errno, err.strerror) from err


@contextmanager
def ready(ended: Callable[[], bool]) -> Iterator[None]:
    """Streams for one command; what stood there before stands there afterwards."""
    before = sys.stdout, sys.stderr
    sys.stdout = ours = _ours(sys.stdout, ended, may_fail=False)
    sys.stderr = errors = _ours(sys.stderr, lambda: False, may_fail=True)
    try:
        yield
    finally:
        flush(ours)
        flush(errors)
        sys.stdout, sys.stderr = before


def flush(stream: TextIO | None) -> None:
    """Write what a stream holds, as far as it can be written."""
    if stream is not None:
        with suppress(OSError, ValueError):  # full, or closed
            stream.flush()


def fill() -> None:
    """Descriptors 0 to 2 that were closed (`<&-`) lead nowhere, so that no file of ours becomes
    one."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # POSIX: the lowest that is free


def _ours(stream: TextIO | None, ended: Callable[[], bool], *, may_fail: bool) -> TextIO:
    """Our own stream on the descriptor of this one, or itself where it has none."""
    if stream is None:
        return open(os.devnull, "w")
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        descriptor = stream.fileno()
    except OSError:
        stream.reconfigure(errors="backslashreplace")
        return stream
    flush(stream)
    output = Output(descriptor, ended, may_fail=may_fail)
    return io.TextIOWrapper(
        io.BufferedWriter(output),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=may_fail or output.isatty(),
    )
