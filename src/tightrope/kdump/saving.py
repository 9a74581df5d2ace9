"""The bytes of a core into a file: sparse, with their digest, and to be gone on with.

    FOLDER/vmcore.part     what is saved so far
    FOLDER/vmcore.part.json   of which core, and up to where it is surely on the disk
    FOLDER/vmcore          all of it: renamed when every byte has been synced

Pages of zeros are not written: the file has holes there, and the same bytes.

Rules: the journal never says more than the disk has, so it is written after a sync.  A part of
another core is begun anew.  What the disk says no to is a PerformError with its errno.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tightrope.errors import CoreError, PerformError
from tightrope.kdump.core import Vmcore

CHUNK = 4 << 20
"""Bytes that are read at once; three of them are in memory."""
BLOCK = 4096
JOURNAL_SECONDS = 5.0

Progress = Callable[[int, int, float], None]
"""(bytes done, bytes of all, seconds since the beginning)."""
_ZEROS = bytes(CHUNK)
_ZERO = bytes(BLOCK)


@dataclass(frozen=True, kw_only=True, slots=True)
class Copied:
    """What was saved; `resumed` are the bytes that an earlier try had left."""

    path: Path
    size: int
    sha256: str
    resumed: int


def identity(core: Vmcore) -> str:
    """What tells one crash's core from another's: its headers and notes, with their registers."""
    return hashlib.sha256(core.head + str(core.size).encode()).hexdigest()


def copy(core: Vmcore, final: Path, progress: Progress) -> Copied:
    """Save all of a core as `final`.  Raises CoreError for the core, PerformError for the disk."""
    part, journal = (
        final.with_name(f"{final.name}.part"),
        final.with_name(f"{final.name}.part.json"),
    )
    who = identity(core)
    with told(part):
        out = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with told(part):
            done = _left(out, journal, who)
            os.ftruncate(out, done)
        resumed, digest = done, _Digest()
        try:
            for at in range(0, done, CHUNK):
                digest.add(os.pread(out, min(CHUNK, done - at), at))
            _copy(core, out, done, digest, progress, lambda at: _note(journal, who, at))
            hexadecimal = digest.end()
        finally:
            digest.close()
        with told(part):
            os.fsync(out)
            os.rename(part, final)
            journal.unlink(missing_ok=True)
            sync_folder(final.parent)
    finally:
        os.close(out)
    return Copied(path=final, size=core.size, sha256=hexadecimal, resumed=resumed)


def _copy(
    core: Vmcore,
    out: int,
    done: int,
    digest: _Digest,
    progress: Progress,
    note: Callable[[int], None],
) -> None:
    started = noted = time.monotonic()
    while done < core.size:
        data = core.read(done, min(CHUNK, core.size - done))
        if not data:
            raise CoreError(
                "ends before its size", source=core.source, offset=done, limit=core.size
            )
        digest.add(data)
        with told(core.source):
            for start, end in _held(data):
                _write(out, memoryview(data)[start:end], done + start)
            done += len(data)
            now = time.monotonic()
            if now - noted > JOURNAL_SECONDS:
                os.fdatasync(out)
                note(done)
                noted = now
        progress(done, core.size, now - started)
    with told(core.source):
        os.ftruncate(out, core.size)


def _held(data: bytes) -> Iterator[tuple[int, int]]:
    """Runs of blocks that are not all zeros."""
    if data == (_ZEROS if len(data) == CHUNK else _ZEROS[: len(data)]):
        return
    start = None
    for at in range(0, len(data), BLOCK):
        block = data[at : at + BLOCK]
        zero = block == _ZERO or not any(block) if len(block) < BLOCK else block == _ZERO
        if zero and start is not None:
            yield start, at
            start = None
        elif not zero and start is None:
            start = at
    if start is not None:
        yield start, len(data)


def _write(out: int, data: memoryview, at: int) -> None:
    while data:
        count = os.pwrite(out, data, at)
        data, at = data[count:], at + count


def _left(out: int, journal: Path, who: str) -> int:
    """Bytes that an earlier try has surely saved of the same core."""
    try:
        said = json.loads(journal.read_bytes())
        done = int(said["saved"]) if said["core"] == who else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0
    # The tail may be a hole that was never made: the file is as long as its last block.
    return done if done >= 0 and done % BLOCK == 0 and _reaches(out, done) else 0


def _reaches(out: int, done: int) -> bool:
    if os.fstat(out).st_size < done:
        os.ftruncate(out, done)
    return True


def _note(journal: Path, who: str, done: int) -> None:
    new = journal.with_name(f"{journal.name}.new")
    with open(new, "w", encoding="ascii") as out:
        json.dump({"core": who, "saved": done}, out)
        out.flush()
        os.fsync(out.fileno())
    os.rename(new, journal)


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


class _Digest:
    """SHA-256 on a thread of its own: hashing lets the other one read and write meanwhile."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()
        self._todo: queue.Queue[bytes | None] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (data := self._todo.get()) is not None:
            self._sum.update(data)

    def add(self, data: bytes) -> None:
        """The next bytes."""
        self._todo.put(data)

    def end(self) -> str:
        """The digest of all of them."""
        self.close()
        return self._sum.hexdigest()

    def close(self) -> None:
        """End the thread; calling it again does nothing."""
        if self._thread.is_alive():
            self._todo.put(None)
            self._thread.join()
