"""One end of a socket of QEMU's: HOST:PORT, :PORT, or a path.

Rules: every wait has a limit; what is not there is one line that names the address.
"""

from __future__ import annotations

import os
import re
import select
import socket
import time

from tightrope.errors import BadInput, MachineError

CONNECT_SECONDS = 10.0
_PORT = re.compile(r"(?:tcp:)?(\[[0-9a-fA-F:]+\]|[^/:]*):(\d{1,5})(?:,.*)?")


class Connection:
    """A connected socket.  Close it."""

    def __init__(self, address: str, what: str) -> None:
        """Raises BadInput, named by `what`, where nobody answers at the address."""
        self.address, self.what = address, what
        self.lost = False
        """The other end has closed it."""
        try:
            self._socket = _connected(address)
        except (OSError, OverflowError, ValueError, UnicodeError) as err:
            reason = getattr(err, "strerror", None) or str(err)
            raise BadInput(f"cannot be connected to: {reason}", source=address, field=what) from err

    def fileno(self) -> int:
        """For a selector."""
        return self._socket.fileno()

    def close(self) -> None:
        """Calling it again does nothing."""
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Raises MachineError when the other end is gone."""
        try:
            self._socket.sendall(data)
        except OSError as err:
            raise self._gone() from err

    def receive(self, seconds: float) -> bytes:
        """What has come, b"" when nothing does in time.  Raises MachineError when it is gone."""
        ready, _, _ = select.select([self._socket], [], [], max(0.0, seconds))
        if not ready:
            return b""
        try:
            data = self._socket.recv(1 << 16)
        except OSError as err:
            raise self._gone() from err
        if not data:
            raise self._gone()
        return data

    def _gone(self) -> MachineError:
        self.lost = True
        return MachineError(f"{self.address}: QEMU has closed its {self.what} socket, or has ended")


def _connected(address: str) -> socket.socket:
    found = _PORT.fullmatch(address)
    if found is not None:
        where = (found[1].strip("[]") or "localhost", int(found[2]))
        return socket.create_connection(where, timeout=CONNECT_SECONDS)
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.settimeout(CONNECT_SECONDS)
        made.connect(address.removeprefix("unix:").partition(",")[0])
    except BaseException:
        made.close()
        raise
    return made


def left(limit: float) -> float:
    """Seconds up to a time of time.monotonic()."""
    return max(0.0, limit - time.monotonic())


def names(said: str, address: str) -> bool:
    """Whether QEMU's words for a socket that it listens on are of the one at `address`.

    "unix:PATH,server=on", "tcp:HOST:PORT,server=on <-> PEER"; HOST may be any name of this computer.
    """
    where = said.removeprefix("disconnected:").partition(",server=on")[0]
    port = _PORT.fullmatch(address)
    if port is not None:
        return where.startswith("tcp:") and where.rpartition(":")[2] == port[2]
    path = where.removeprefix("unix:")
    return where != path and os.path.realpath(path) == os.path.realpath(address)
