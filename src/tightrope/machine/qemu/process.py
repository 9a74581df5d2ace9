"""The QEMU process: started with everything it needs as open descriptors, and ended with us.

Rules: nothing that is started here has a name in a file system: sockets are pairs, RAM, log and the
kernel are memfds.  So there is nothing to clean up but the process, and Linux does that when we
die, however we die (PR_SET_PDEATHSIG, through setpriv).  If we died before the child had asked for
that, it finds another parent than us, and does not become QEMU.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence

from tightrope.errors import MachineError, MissingPart

BINARY = "qemu-system-x86_64"
OLDEST = (6, 0)
"""The first QEMU with -action (its change log for 6.0)."""
CONSOLE_ROOM = 1 << 20
"""Bytes: the most that Linux gives a pipe of somebody who is not root (/proc/sys/fs/pipe-max-size).
"""
ONLY_BELOW = 'test "$PPID" = "$0" && exec "$@"'
"""Shell: become a program, unless the parent is not the process that is named first (any more)."""
INSTALL = "on Debian: apt-get install qemu-system-x86"


class Process:
    """A running QEMU; `sockets` are our ends of the pairs, by name."""

    def __init__(
        self, arguments: Sequence[str], *, sockets: Sequence[str], descriptors: Sequence[int]
    ) -> None:
        """`{NAME}` in an argument is the descriptor of that socket's other end, or of the log.

        Raises MissingPart where QEMU is not installed.
        """
        started = below_us()
        self.log = os.memfd_create("tightrope-log", os.MFD_CLOEXEC)
        self._errors = os.memfd_create("tightrope-errors", os.MFD_CLOEXEC)
        self.sockets: dict[str, socket.socket] = {}
        self._process: subprocess.Popen[bytes] | None = None
        theirs: dict[str, socket.socket] = {}
        try:
            for name in sockets:
                self.sockets[name], theirs[name] = socket.socketpair()
            numbers = {name: str(each.fileno()) for name, each in theirs.items()}
            numbers["log"] = str(self.log)
            self._process = subprocess.Popen(
                [*started, *(_filled(argument, numbers) for argument in arguments)],
                pass_fds=[int(each) for each in numbers.values()] + list(descriptors),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                bufsize=0,
                # A signal from a terminal is ours to handle: QEMU ends when we end it.
                start_new_session=True,
            )
            self._widen()
        except BaseException:
            self.close()
            raise
        finally:
            for each in theirs.values():
                each.close()

    def _widen(self) -> None:
        """Give the console's pipe all the room that it may have; with less it works as well."""
        with contextlib.suppress(OSError):
            fcntl.fcntl(self.output, fcntl.F_SETPIPE_SZ, CONSOLE_ROOM)

    @property
    def output(self) -> int:
        """The descriptor to read the console from: QEMU's stdout.

        A pipe and no socket, which takes 300 bytes that come one by one, and then QEMU's serial
        port drops some (measured, QEMU 7.2).
        """
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def say(self, data: bytes) -> None:
        """Type on the console.  Raises OSError when QEMU has ended."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(data)

    @property
    def number(self) -> int:
        """The process id."""
        assert self._process is not None
        return self._process.pid

    def last_words(self) -> str:
        """The last line that QEMU wrote on stderr, "" when there is none."""
        words = os.pread(self._errors, 1 << 16, 0).decode("utf-8", "replace").strip()
        return words.rsplit("\n", 1)[-1]

    def why_it_ended(self) -> MissingPart:
        """The error for a QEMU that did not come up."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        version = installed_version()
        if version is not None and version < OLDEST:
            return too_old(version)
        return MissingPart(f"QEMU ended: {self.last_words() or 'without a word'}")

    def logged(self) -> str:
        """What QEMU has written to its log since `clear_log`."""
        return os.pread(self.log, 1 << 24, 0).decode("latin-1")

    def close(self) -> None:
        """End it; calling it again does nothing."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None
        for each in self.sockets.values():
            each.close()
        for name in ("log", "_errors"):
            if getattr(self, name) >= 0:
                os.close(getattr(self, name))
                setattr(self, name, -1)


def below_us() -> list[str]:
    """The words that start QEMU as a program that ends with us.  Raises MissingPart without it."""
    paths = {name: shutil.which(name) for name in ("setpriv", "sh", BINARY)}
    for name, path in paths.items():
        if path is None:
            how = INSTALL if name == BINARY else "it is in util-linux and dash"
            raise MissingPart(f"{name} is not installed ({how})")
    setpriv, shell, binary = map(str, paths.values())
    return [setpriv, "--pdeathsig", "KILL", "--", shell, "-c", ONLY_BELOW, str(os.getpid()), binary]


def fill_standard() -> None:
    """See to it that descriptors 0, 1 and 2 are open, for QEMU's own are put in their place.

    What was closed leads to /dev/null from then on, as the C library does for programs of root's.
    Raises MachineError where nothing more may be opened.
    """
    try:
        while (lowest := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(lowest, True)
        os.close(lowest)
    except OSError as err:
        raise MachineError(f"QEMU cannot be started: {err.strerror}") from err


def _filled(argument: str, numbers: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: numbers[found[1]], argument)


def too_old(version: tuple[int, ...]) -> MissingPart:
    """The error for a QEMU below `OLDEST`."""
    said, needed = (".".join(map(str, each)) for each in (version, OLDEST))
    return MissingPart(f"QEMU {said} is too old: {needed} is needed")


def installed_version() -> tuple[int, ...] | None:
    """What `qemu-system-x86_64 --version` says, None when it says nothing that is a version."""
    try:
        said = subprocess.run(
            [BINARY, "--version"], capture_output=True, timeout=20, check=False, text=True
        ).stdout
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    found = re.search(r"version (\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else None


def as_file(data: bytes | bytearray | memoryview, name: str) -> int:
    """A nameless file that holds `data`; its descriptor, which the caller closes."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    left = memoryview(data)
    while len(left):
        left = left[os.write(descriptor, left) :]
    return descriptor
