"""The bytes of a core into a file: sparse, with their digest, and to be gone on with.

    FOLDER/vmcore.part     what is saved so far
    FOLDER/vmcore.part.json   of which core, and up to where it is surely on the disk
    FOLDER/vmcore          all of it: renamed when every byte has been synced

Pages of zeros are not written: the file has holes there, and the same bytes.  What is written is
on its way to the disk at once, so that the sync at the end waits for little, and a crash kernel's
few MiB are not filled with pages that wait.

Rules: the journal never says more than the disk has, so it is written after a sync.  A part of
another core is begun anew.  What the disk says no to is a PerformError with its errno.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tightrope.errors import CoreError, PerformError
from tightrope.kdump.core import Vmcore
from tightrope.kdump.ring import Digest, Ring

CHUNK = 4 << 20
"""Bytes that are read at once; a ring of them is in memory."""
BLOCK = 4096
SENT = 16 << 20
"""Bytes after which what was written is sent to the disk."""
JOURNAL_SECONDS = 5.0

Progress = Callable[[int, int, float], None]
"""(bytes done, bytes of all, seconds since the beginning)."""
_ZERO = bytes(BLOCK)
_ZEROS = bytes(16 * BLOCK)
"""What is compared at once: it stays in a cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """What was saved; `resumed` are the bytes that an earlier try had left."""

    path: Path
    size: int
    sha256: str | None
    """None where no digest is asked for."""
    resumed: int


def identity(core: Vmcore) -> str:
    """What tells one crash's core from another's: its headers and notes, with their registers."""
    return hashlib.sha256(core.head + str(core.size).encode()).hexdigest()


class Part:
    """What is saved so far under the name of a part, and its journal."""

    def __init__(self, final: Path, who: str) -> None:
        """`who` says of which core, and how.  Raises PerformError."""
        self._final, self._who = final, who
        self.path = final.with_name(f"{final.name}.part")
        self._journal = final.with_name(f"{final.name}.part.json")
        with told(self.path):
            self.out = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def left(self, *names: str) -> list[int]:
        """What an earlier try of the same core has noted under these names; zeros without one."""
        try:
            said = json.loads(self._journal.read_bytes())
            found = [int(said[name]) for name in names] if said["core"] == self._who else []
        except (OSError, ValueError, KeyError, TypeError):
            found = []
        return found if found and min(found) >= 0 else [0] * len(names)

    def note(self, **numbers: int) -> None:
        """Write down how far it is, once that is on the disk."""
        new = self._journal.with_name(f"{self._journal.name}.new")
        with open(
            new, "w", encoding="utf-8"
        ) as out:  # the one codec that every Python has built in
            json.dump({"core": self._who, **numbers}, out)
            out.flush()
            os.fsync(out.fileno())
        os.rename(new, self._journal)

    def finish(self) -> None:
        """All of it is there: it gets its final name.  Raises PerformError."""
        with told(self.path):
            os.fsync(self.out)
            os.rename(self.path, self._final)
            self._journal.unlink(missing_ok=True)
            sync_folder(self._final.parent)

    def close(self) -> None:
        """Close the file; the part stays."""
        os.close(self.out)


def copy(core: Vmcore, final: Path, progress: Progress, asked: Digest = Digest.SHA256) -> Copied:
    """Save all of a core as `final`.  Raises CoreError for the core, PerformError for the disk."""
    part = Part(final, identity(core))
    try:
        (done,) = part.left("saved")
        done = done if done % BLOCK == 0 else 0
        with told(final):
            # The tail may be a hole that was never made: the file is as long as its last block.
            os.ftruncate(part.out, done)
        with closing(Ring(CHUNK, asked)) as ring:
            if asked is not Digest.NONE:
                digest(part.out, done, ring)
            _copy(core, part, done, ring, progress)
            hexadecimal = ring.end()
        part.finish()
    finally:
        part.close()
    return Copied(path=final, size=core.size, sha256=hexadecimal, resumed=done)


def digest(out: int, done: int, ring: Ring) -> None:
    """Hash the first bytes of a file.  Raises PerformError where they are not there any more."""
    for at in range(0, done, ring.size):
        buffer = ring.free()
        with told("the part"):
            size = _read(out, buffer, at, done)
            if size != min(ring.size, done - at):
                raise OSError(errno.EIO, "it ends early")
        ring.digest(buffer, size)


def _read(descriptor: int, buffer: memoryview, at: int, end: int) -> int:
    """Fill a buffer from a file, up to `end`; how many bytes it has now."""
    return os.preadv(descriptor, [buffer[: end - at]], at)


def _copy(
    core: Vmcore,
    part: Part,
    done: int,
    ring: Ring,
    progress: Progress,
) -> None:
    out = part.out
    started = noted = time.monotonic()
    sent = done
    while done < core.size:
        buffer = ring.free()
        size = core.fill(buffer, done)
        if not size:
            raise CoreError(
                "ends before its size", source=core.source, offset=done, limit=core.size
            )
        with told(part.path):
            for start, end in _held(buffer, size):
                write(out, buffer[start:end], done + start)
            ring.digest(buffer, size)
            done += size
            now = time.monotonic()
            if now - noted > JOURNAL_SECONDS:
                os.fdatasync(out)
                part.note(saved=done)
                noted = now
            if done - sent >= SENT:
                send(out, sent, done)
                sent = done
        progress(done, core.size, now - started)
    with told(part.path):
        os.ftruncate(out, core.size)


def send(out: int, start: int, end: int) -> None:
    """Start writing pages to the disk, and let go of those that are there.

    Linux mm/fadvise.c, POSIX_FADV_DONTNEED: it begins to write dirty pages back, and does not wait.
    """
    with suppress(OSError):  # a file system may know no such advice; the sync is what counts
        os.posix_fadvise(out, start, end - start, os.POSIX_FADV_DONTNEED)


def _held(data: bytes | memoryview, size: int) -> Iterator[tuple[int, int]]:
    """Runs of blocks that are not all zeros.

    Only a block whose first byte is zero can be all zeros, and these bytes are looked at together:
    a step of Python for each block would take as long as the disk does.
    """
    view = memoryview(data)[:size]
    first = bytes(view[::BLOCK])
    start = at = 0
    while (zero := first.find(0, at)) >= 0:
        at = zero + len(first[zero:]) - len(first[zero:].lstrip(b"\0"))
        for low, high in _zeros(view, zero * BLOCK, min(at * BLOCK, size)):
            if start < low:
                yield start, low
            start = high
    if start < size:
        yield start, size


def _zeros(view: memoryview, start: int, end: int) -> Iterator[tuple[int, int]]:
    """What is all zeros from `start` to `end`, in whole blocks."""
    for at in range(start, end, len(_ZEROS)):
        data = bytes(view[at : min(at + len(_ZEROS), end)])
        if data == _ZEROS[: len(data)]:
            yield at, at + len(data)
            continue
        for low in range(0, len(data), BLOCK):
            zero = _ZERO[: len(data) - low]
            if data.startswith(zero, low):
                yield at + low, at + low + len(zero)


def write(out: int, data: memoryview, at: int) -> None:
    """All of these bytes at a place in a file."""
    while data:
        count = os.pwrite(out, data, at)
        data, at = data[count:], at + count


def sync_folder(folder: Path) -> None:
    """A name is on the disk when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def told(what: str | Path) -> Iterator[None]:
    """What the system says no to, as one line."""
    try:
        yield
    except OSError as err:
        raise PerformError(f"{what}: {err.strerror or err}", number=err.errno) from err
