"""What a recorded command may not have others do: init would stop the machine for it.

    systemctl kexec     loads by kexec, then asks init on a socket to stop the machine
    kexec -e            takes the networks down, then jumps
    shutdown, reboot    ask init by socket, pipe or signal

Rules: a socket of another process, init's pipe and a signal to init or to everybody are refused
with EACCES or EPERM; what logs and what looks names up is let through.  That the networks stay is
no call's matter: the right to change them is dropped with the right to jump, see `tracer`.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from tightrope.abi import asking
from tightrope.record.tracer import Instead, Stop

LET_THROUGH = (b"/dev/log", b"/run/systemd/journal/", b"/var/run/nscd/", b"/run/nscd/")
"""Beginnings of sockets that only listen."""
INIT_PIPES = (b"/run/initctl", b"/dev/initctl")
INIT, EVERYBODY = 1, -1
_LONGEST = 4096


@dataclass(kw_only=True)
class Fence:
    """Refuses; `asked` counts."""

    asked: int = 0

    def refuses(self, stop: Stop) -> Instead | None:
        """None for a call that asks nobody."""
        number = self._error(stop)
        if number is None:
            return None
        self.asked += 1
        return Instead(taken=True, answer=-number)

    def _error(self, stop: Stop) -> int | None:
        which = asking.SIGNAL[stop.machine].get(stop.number)
        if which is not None and _signed(stop.arguments[which]) in (INIT, EVERYBODY):
            return errno.EPERM
        which = asking.OPEN[stop.machine].get(stop.number)
        if which is not None and _text(stop, stop.arguments[which]) in INIT_PIPES:
            return errno.EACCES
        address = _address(stop)
        if address is not None and not address.startswith(LET_THROUGH):
            return errno.EACCES
        return None


def _signed(value: int) -> int:
    low = value & 0xFFFF_FFFF
    return low - (1 << 32) if low >> 31 else low


def _address(stop: Stop) -> bytes | None:
    """The path or the name of the socket that a call connects to; None of any other call."""
    at, size = stop.arguments[1], stop.arguments[2]
    if stop.number == asking.SOCKETCALL.get(stop.machine, -1):
        if stop.arguments[0] & 0xFFFF_FFFF != asking.SYS_CONNECT:
            return None
        _, at, size = struct.unpack("<III", _bytes(stop, at & 0xFFFF_FFFF, 12).ljust(12, b"\0"))
    elif stop.number != asking.CONNECT[stop.machine]:
        return None
    raw = _bytes(stop, at, min(size & 0xFFFF_FFFF, asking.SOCKADDR_UN))
    if len(raw) < 2 or struct.unpack_from("<H", raw)[0] != asking.AF_UNIX:
        return None
    path = raw[2:]
    return path if path[:1] == b"\0" else path.partition(b"\0")[0]


def _text(stop: Stop, at: int) -> bytes:
    """A string of the process, as far as it is one; no more than a page of it is read."""
    return _bytes(stop, at, min(_LONGEST, -at % _LONGEST or _LONGEST)).partition(b"\0")[0]


def _bytes(stop: Stop, at: int, size: int) -> bytes:
    """What the process has there; nothing where it has none, which the kernel will say."""
    try:
        return stop.read(at, size) if size else b""
    except (OSError, ValueError, OverflowError):
        return b""
