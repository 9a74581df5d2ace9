"""A segments file: what a command would have handed to the kernel, to be rehearsed anywhere.

    one line of JSON     the call, its numbers, and how many bytes of each part follow
    the parts' bytes     one behind the other: segments in their order, or kernel and initrd; then the
                         loader's own ELF objects
    one line             SHA-256 of all that is before it, in hexadecimal

    {"format": "tightrope segments", "version": 1, "call": "kexec_load",
     "command": ["kexec", "-l", ...], "loader": "kexec-tools 2.0.25", "machine": "x86_64",
     "release": "6.1.0-57-amd64", "crash": false, "flags": 4063232, "entry": 26843510624,
     "segments": [{"start": 1048576, "size": 4096, "bytes": 48}, ...], "objects": [42736]}

    {..., "call": "kexec_file_load", "flags": 0, "command_line": "console=ttyS0",
     "kernel": {"path": "/boot/vmlinuz", "bytes": 8169472}, "initrd": {...} or null, "objects": []}

Numbers are bytes and physical addresses; a command line is Latin-1, a character a byte.

Rules: it is written in one pass, the process still standing at its call, and read without a copy
of the parts.  Any bytes in: a Recording, or a BadInput with its offset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import IO, Final, TypeVar

from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model.image import Buffer
from tightrope.model.recording import (
    FilesCall,
    HeldFile,
    HeldSegment,
    Recording,
    SegmentsCall,
)
from tightrope.record.held import Blob, Held, HeldSegments

_T = TypeVar("_T")
FORMAT: Final = "tightrope segments"
VERSION: Final = 1
MOST_HEADER = 1 << 20
"""Bytes of the first line."""
MOST_PARTS = 64
_DIGEST = 64
_MOST_ADDRESS = 1 << 52
MACHINES = ("x86_64", "i686")


def write(out: IO[bytes], held: Held, command: Sequence[str], release: str) -> None:
    """The whole file from where `out` stands.  Raises OSError, also where the process's bytes are
    gone."""
    call = held.call
    facts: dict[str, object] = {
        "format": FORMAT,
        "version": VERSION,
        "command": list(command),
        "loader": held.loader,
        "machine": held.machine,
        "release": release,
        "crash": held.crash,
        "flags": call.flags,
    }
    parts: list[Blob] = []
    if isinstance(call, HeldSegments):
        facts |= {"call": "kexec_load", "entry": call.entry}
        facts["segments"] = [
            {"start": where.start, "size": where.size, "bytes": blob.size}
            for where, blob in call.rows
        ]
        parts += [blob for _, blob in call.rows]
    else:
        facts |= {"call": "kexec_file_load", "command_line": call.command_line.decode("latin-1")}
        for name, file in (("kernel", call.kernel), ("initrd", call.initrd)):
            facts[name] = None if file is None else {"path": file[0], "bytes": file[1].size}
            parts += [] if file is None else [file[1]]
    facts["objects"] = [len(each) for each in held.programs]
    digest = hashlib.sha256()

    def put(data: bytes) -> None:
        digest.update(data)
        out.write(data)

    put(json.dumps(facts).encode() + b"\n")
    for part in parts:
        left = part.size
        for chunk in part.chunks():
            left -= len(chunk)
            put(chunk)
        if left:
            raise OSError(0, "a part changed its size while it was recorded")
    for program in held.programs:
        put(program)
    out.write(digest.hexdigest().encode() + b"\n")


def read(data: Buffer, source: str) -> Recording:
    """The recording in a file.  Raises BadInput."""
    view = memoryview(data).cast("B").toreadonly()
    end = bytes(view[:MOST_HEADER]).find(b"\n")
    if end < 0:
        raise BadInput("no segments file: its first line does not end", source=source)
    try:
        header = json.loads(bytes(view[:end]))
    except (ValueError, RecursionError) as err:
        raise BadInput("no segments file: its first line is not JSON", source=source) from err
    facts = _Facts(header, source)
    if facts.get("format", str) != FORMAT:
        raise facts.wrong("format", f"is not {FORMAT!r}")
    if facts.get("version", int) != VERSION:
        raise facts.wrong("version", f"is not {VERSION}: written by another Tightrope")
    parts = _Parts(view, end + 1, source)
    call = _segments(facts, parts) if facts.kind() == "kexec_load" else _files(facts, parts)
    programs = tuple(parts.take(size, "objects") for size in facts.numbers("objects"))
    parts.check()
    machine = facts.get("machine", str)
    if machine not in MACHINES:
        raise facts.wrong("machine", f"is {machine!r}, and not one of {', '.join(MACHINES)}")
    return Recording(
        source=source,
        command=tuple(facts.texts("command")),
        loader=facts.get("loader", str),
        machine=machine,
        release=facts.get("release", str),
        crash=facts.get("crash", bool),
        call=call,
        programs=programs,
    )


def _segments(facts: _Facts, parts: _Parts) -> SegmentsCall:
    rows = []
    for number, row in enumerate(facts.rows("segments")):
        start, size, count = (row.number(name) for name in ("start", "size", "bytes"))
        name = f"segments[{number}]"
        if start % PAGE_SIZE or size % PAGE_SIZE:
            raise facts.wrong(name, "is not whole pages")
        if count > size:
            raise facts.wrong(name, f"has {count:#x} bytes for {size:#x}")
        if start + size > _MOST_ADDRESS:
            raise facts.wrong(name, "ends above all physical memory", _MOST_ADDRESS)
        rows.append(
            HeldSegment(destination=Extent.sized(start, size), data=parts.take(count, name))
        )
    places = sorted((each.destination for each in rows), key=lambda each: each.start)
    for one, other in pairwise(places):
        if one.overlaps(other):
            raise facts.wrong("segments", f"{one} and {other} overlap")
    if not rows:
        raise facts.wrong("segments", "are none: that is an unload")
    return SegmentsCall(
        entry=facts.number("entry"), flags=facts.number("flags"), segments=tuple(rows)
    )


def _files(facts: _Facts, parts: _Parts) -> FilesCall:
    kernel = _file(facts.inside("kernel"), parts)
    assert kernel is not None, "only an initrd may be none"
    initrd = None if facts.raw("initrd") is None else _file(facts.inside("initrd"), parts)
    try:
        line = facts.get("command_line", str).encode("latin-1")
    except UnicodeEncodeError as err:
        raise facts.wrong("command_line", "has what no byte stands for") from err
    return FilesCall(kernel=kernel, initrd=initrd, command_line=line, flags=facts.number("flags"))


def _file(facts: _Facts, parts: _Parts) -> HeldFile:
    return HeldFile(
        path=facts.get("path", str), data=parts.take(facts.number("bytes"), facts.where)
    )


class _Facts:
    """An object of the header, asked for its members.  What is not right raises BadInput."""

    def __init__(self, value: object, source: str, where: str = "") -> None:
        self.where = where
        self._source = source
        if not isinstance(value, dict):
            raise BadInput("is not an object", source=source, field=where or "the first line")
        self._value = value

    def wrong(self, name: str, problem: str, limit: int | None = None) -> BadInput:
        return BadInput(problem, source=self._source, field=self._at(name), limit=limit)

    def _at(self, name: str) -> str:
        return f"{self.where}.{name}" if self.where else name

    def raw(self, name: str) -> object:
        if name not in self._value:
            raise self.wrong(name, "is missing")
        return self._value[name]

    def get(self, name: str, kind: type[_T]) -> _T:
        value = self.raw(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.wrong(name, f"is no {kind.__name__}")
        return value

    def number(self, name: str) -> int:
        value = self.get(name, int)
        if not 0 <= value < 1 << 64:
            raise self.wrong(name, "is not a 64-bit number")
        return value

    def kind(self) -> str:
        name = self.get("call", str)
        if name not in ("kexec_load", "kexec_file_load"):
            raise self.wrong("call", f"is {name!r}, and no call that loads")
        return name

    def inside(self, name: str) -> _Facts:
        return _Facts(self.raw(name), self._source, self._at(name))

    def _list(self, name: str) -> list[object]:
        value: list[object] = self.get(name, list)
        if len(value) > MOST_PARTS and name != "command":
            raise self.wrong(name, f"has {len(value)} members", MOST_PARTS)
        return value

    def rows(self, name: str) -> Iterator[_Facts]:
        for number, each in enumerate(self._list(name)):
            yield _Facts(each, self._source, f"{self._at(name)}[{number}]")

    def numbers(self, name: str) -> list[int]:
        rows = self._list(name)
        return [_Facts({"n": each}, self._source, self._at(name)).number("n") for each in rows]

    def texts(self, name: str) -> list[str]:
        rows = self._list(name)
        return [_Facts({"n": each}, self._source, self._at(name)).get("n", str) for each in rows]


class _Parts:
    """The bytes behind the header, taken one after the other."""

    def __init__(self, view: memoryview, at: int, source: str) -> None:
        self._view, self._at, self._source = view, at, source

    def take(self, size: int, what: str) -> memoryview:
        """The next part.  Raises BadInput where the file ends before it does."""
        if self._at + size > len(self._view):
            raise BadInput(
                f"the file ends inside: {self._at + size - len(self._view):#x} bytes are missing",
                source=self._source,
                field=what,
                offset=self._at,
            )
        part = self._view[self._at : self._at + size]
        self._at += size
        return part

    def check(self) -> None:
        """The digest is right, and nothing follows.  Raises BadInput."""
        last = bytes(self._view[self._at : self._at + _DIGEST + 2])
        if len(last) != _DIGEST + 1 or last[-1:] != b"\n":
            raise BadInput(
                "does not end in the digest of what is before it",
                source=self._source,
                offset=self._at,
            )
        if hashlib.sha256(self._view[: self._at]).hexdigest().encode() != last[:-1]:
            raise BadInput(
                "is not what was recorded: its SHA-256 differs",
                source=self._source,
                offset=self._at,
            )
