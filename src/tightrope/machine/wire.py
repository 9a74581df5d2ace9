"""Two protocols that QEMU speaks, without a socket: bytes in, events or a typed error out.

    gdb remote protocol   $payload#xx, one + or - for each        (GDB manual, appendix E.1)
    QMP                   one JSON object a line                  (QEMU docs/interop/qmp-spec)

Rules: nothing is sent or waited for here (sans-I/O): whoever has a socket feeds what it read and
writes what it is given.  A reader that met an error is of no use any more.  The `qemu.qmp` package
is not used: it wants an asyncio loop, and what is needed of QMP is the two dozen lines below, which
are read in the same loop as gdb's packets and the guest's console.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tightrope.errors import WireError

PACKET_LIMIT = 1 << 20
"""Bytes of one gdb packet; QEMU's own are at most 8 KiB."""
LINE_LIMIT = 1 << 24
"""Bytes of one QMP object."""
_RESERVED = frozenset(b"$#}*")
_THREAD = re.compile(rb"thread:([0-9a-fA-F]{1,8});")
_MARK = re.compile(rb"[}*]")
"""What begins an escape and a run length."""


# ------------------------------------------------------------------------------------------ gdb


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet whose checksum is right, with escapes and repetitions undone."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Ack:
    """The other side has taken a packet (`good`), or wants it again."""

    good: bool


def packet(payload: bytes) -> bytes:
    """The bytes of one packet: reserved ones escaped with } and bit 5 flipped."""
    body = bytearray()
    for byte in payload:
        body += bytes((ord("}"), byte ^ 0x20)) if byte in _RESERVED else bytes((byte,))
    return b"$%b#%02x" % (bytes(body), sum(body) & 0xFF)


class GdbReader:
    """Bytes from a gdb stub, in whatever pieces they came."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, data: bytes) -> tuple[Packet | Ack, ...]:
        """What `data` completes.  Raises WireError for what is no packet."""
        self._left += data
        events: list[Packet | Ack] = []
        while self._left:
            first = self._left[0]
            if first in b"+-":
                events.append(Ack(first == ord("+")))
                del self._left[0]
                continue
            if first != ord("$"):
                raise WireError(f"a gdb packet begins with $, not with {bytes([first])!r}")
            end = self._left.find(b"#")
            if end < 0 or len(self._left) < end + 3:
                if len(self._left) > PACKET_LIMIT:
                    raise WireError(f"a gdb packet without an end in {PACKET_LIMIT:#x} bytes")
                break
            body, said = bytes(self._left[1:end]), bytes(self._left[end + 1 : end + 3])
            del self._left[: end + 3]
            if said.lower() != b"%02x" % (sum(body) & 0xFF):
                raise WireError(f"a gdb packet has checksum {said!r}, its bytes say otherwise")
            events.append(Packet(_plain(body)))
        return tuple(events)


def _plain(body: bytes) -> bytes:
    """A packet's body with escapes and run lengths undone (GDB manual, E.1)."""
    out = bytearray()
    at = 0
    while (mark := _MARK.search(body, at)) is not None:
        # Taken whole up to the next mark: a page of memory is 8,192 digits without one.
        out += body[at : mark.start()]
        at = mark.end() + 1
        if mark[0] == b"}":
            if at > len(body):
                raise WireError("a gdb packet ends in the middle of an escape")
            out.append(body[at - 1] ^ 0x20)
        else:
            if at > len(body) or not out or not 29 <= body[at - 1] <= 126:
                raise WireError("a gdb packet repeats nothing, or nobody knows how often")
            out += out[-1:] * (body[at - 1] - 29)
        if len(out) > PACKET_LIMIT:
            raise WireError(f"a gdb packet unfolds to more than {PACKET_LIMIT:#x} bytes")
    out += body[at:]
    if len(out) > PACKET_LIMIT:
        raise WireError(f"a gdb packet unfolds to more than {PACKET_LIMIT:#x} bytes")
    return bytes(out)


SIGNAL_QUIT, SIGNAL_TRAP = 3, 5
"""How QEMU's stub says that the machine shut down, and that a breakpoint or a step ended."""


def stop_signal(payload: bytes) -> int:
    """The signal of a stop reply, T05... or S05.  Raises WireError for anything else."""
    if payload[:1] not in (b"T", b"S"):
        raise WireError(f"not a stop reply: {payload[:40]!r}")
    return _number(payload[1:3], "the signal of a stop reply")


def stop_thread(payload: bytes) -> int | None:
    """The thread of a stop reply, T05thread:02;: QEMU's are CPUs, counted from 1.  None where it
    names none."""
    found = _THREAD.search(payload)
    return int(found[1], 16) if found else None


def is_farewell(payload: bytes) -> bool:
    """W00 or X09: the stub's process is about to end."""
    return payload[:1] in (b"W", b"X")


def _number(digits: bytes, what: str) -> int:
    try:
        # int() takes more than digits: signs, underscores, spaces.
        if not digits.isalnum():
            raise ValueError
        return int(digits, 16)
    except ValueError as err:
        raise WireError(f"{what} is not a number: {digits[:40]!r}") from err


def register_bytes(payload: bytes) -> bytes:
    """The bytes of a `g` or `m` reply; unknown ones (x) are zeros.  Raises WireError."""
    if payload[:1] == b"E" and len(payload) == 3:
        raise WireError(f"the gdb stub refused: {payload.decode('latin-1')}")
    try:
        return bytes.fromhex(payload.replace(b"x", b"0").decode("ascii"))
    except ValueError as err:
        raise WireError(f"not hexadecimal: {payload[:40]!r}") from err


# ------------------------------------------------------------------------------------------ qmp


@dataclass(frozen=True, slots=True)
class Greeting:
    """QEMU's first line: its version."""

    version: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Returned:
    """A command was done; `value` is JSON."""

    number: object
    value: object


@dataclass(frozen=True, slots=True)
class Failed:
    """A command was refused."""

    number: object
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Happened:
    """An event, such as SHUTDOWN or STOP, and its data."""

    name: str
    data: Mapping[str, object]


QmpEvent = Greeting | Returned | Failed | Happened


def command(name: str, arguments: Mapping[str, object], number: int) -> bytes:
    """One QMP command as a line; `number` comes back with the answer."""
    return (
        json.dumps({"execute": name, "arguments": dict(arguments), "id": number}).encode() + b"\n"
    )


class QmpReader:
    """Bytes from a QMP socket, in whatever pieces they came."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, data: bytes) -> tuple[QmpEvent, ...]:
        """What `data` completes.  Raises WireError for what is not QMP."""
        self._left += data
        *lines, rest = bytes(self._left).split(b"\n")
        if len(rest) > LINE_LIMIT:
            raise WireError(f"a QMP line without an end in {LINE_LIMIT:#x} bytes")
        self._left = bytearray(rest)
        return tuple(_event(line) for line in lines if line.strip())


def _event(line: bytes) -> QmpEvent:
    try:
        said = json.loads(line)
    except (ValueError, RecursionError) as err:
        raise WireError(f"not QMP: {line[:60]!r}") from err
    if isinstance(said, dict):
        if isinstance(said.get("event"), str) and isinstance(said.get("data", {}), dict):
            return Happened(said["event"], said.get("data", {}))
        if "return" in said:
            return Returned(said.get("id"), said["return"])
        error = said.get("error")
        if isinstance(error, dict):
            return Failed(said.get("id"), str(error.get("class")), str(error.get("desc")))
        if "QMP" in said:
            return Greeting(_version(said["QMP"]))
    raise WireError(f"not QMP: {line[:60]!r}")


def _version(greeting: object) -> tuple[int, int, int]:
    try:
        version = greeting["version"]["qemu"]  # type: ignore[index]  # checked by what follows
        major, minor, micro = (version[key] for key in ("major", "minor", "micro"))
    except (TypeError, KeyError, IndexError) as err:
        raise WireError("a QMP greeting without a version") from err
    if not all(type(each) is int for each in (major, minor, micro)):
        raise WireError("a QMP greeting without a version")
    return major, minor, micro
