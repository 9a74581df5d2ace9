"""One who changes what is loaded at a time: a lock of this machine's.

    FOLDERS --the first that is there--> tightrope.kexec.lock, flock(2), held until the `with` ends

Rules: nobody waits: who holds it is told and the second one is refused.  The kernel has a mutex of
its own (kexec_trylock, EBUSY); this one also covers the look before the call and the look after it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from tightrope.errors import BadInput

FOLDERS = ("/run", "/dev")
"""Root's alone.  An initramfs may have no /run, and has /dev."""
NAME = "tightrope.kexec.lock"


@contextmanager
def locked(folders: Sequence[str] = FOLDERS) -> Iterator[None]:
    """Hold the lock.  Raises BadInput where somebody else does, or where none can be made."""
    folder = next((each for each in folders if os.path.isdir(each)), None)
    if folder is None:
        raise BadInput("there is no place for a lock", source=" or ".join(folders))
    path = os.path.join(folder, NAME)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        at = os.open(path, flags, 0o600)
    except OSError as err:
        raise BadInput(err.strerror or "cannot be opened", source=path) from err
    try:
        try:
            fcntl.flock(at, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as err:
            who = os.pread(at, 32, 0).decode("latin-1").strip()
            raise BadInput(
                f"another tightrope holds it, process {who or '?'}", source=path
            ) from err
        # Who holds it is for people: a full /run has no room for that, and locks all the same.
        with suppress(OSError):
            os.ftruncate(at, 0)
            os.pwrite(at, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(at)


def open_for_writing(at: int) -> bool | None:
    """Whether somebody has the file behind a descriptor, which only reads, open for writing; None
    where that cannot be told.

    Then a read lease is EAGAIN (fcntl(2), F_SETLEASE), as deny_write_access, which kexec_file_load
    asks for, is ETXTBSY.  Who opens it in the moment of the lease raises SIGIO here.
    """
    try:
        before = signal.signal(signal.SIGIO, signal.SIG_IGN)
    except ValueError:
        return None  # no thread but the main one may
    try:
        fcntl.fcntl(at, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(at, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as err:
        return True if err.errno == errno.EAGAIN else None
    finally:
        signal.signal(signal.SIGIO, before)
    return False
