"""The calls that load, read out of the process that makes them, and taken away.

    kexec_load(entry, count, segments, flags)
    kexec_file_load(kernel, initrd, length, command line, flags)
    reboot(...)

Rules: a load is told that it went well, so that a command goes on as it would have; reboot(2) is
refused, since it would not come back, and so is what init would do instead, see `fence`.  Bytes are
read while the process stands at the call.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from tightrope.abi import elf
from tightrope.abi.kexec import (
    KEXEC_FILE_LOAD,
    KEXEC_LOAD,
    REBOOT,
    SEGMENT_MAX,
    FileFlag,
    LoadFlag,
)
from tightrope.errors import BadInput
from tightrope.memory import Extent
from tightrope.record.fence import Fence
from tightrope.record.tracer import Instead, Stop

CHUNK = 1 << 20
"""Bytes that are read at a time."""
_ROW = {"x86_64": struct.Struct("<QQQQ"), "i686": struct.Struct("<IIII")}
"""struct kexec_segment: buf, bufsz, mem, memsz."""
_VERSION = re.compile(rb"kexec-tools ([0-9][0-9.]{1,15})")
_MOST_LINE = 1 << 16
_MOST_FILE = 64 << 20
"""Bytes of a program that are looked through."""
_MOST_PROGRAM = 1 << 20
"""Bytes of an object inside a loader; kexec-tools' purgatories have 43,000."""

Chunks = Callable[[], Iterator[bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """Bytes that are still where they were; `chunks` may be called once, at the stop."""

    size: int
    chunks: Chunks


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldSegments:
    """A kexec_load that stands at its call."""

    entry: int
    flags: int
    rows: tuple[tuple[Extent, Blob], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldFiles:
    """A kexec_file_load that stands at its call."""

    kernel: tuple[str, Blob]
    initrd: tuple[str, Blob] | None
    command_line: bytes
    flags: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A call that loads, at its stop."""

    loader: str
    machine: str
    crash: bool
    call: HeldSegments | HeldFiles
    programs: tuple[bytes, ...]


@dataclass(kw_only=True)
class Holder:
    """Takes every call that loads or jumps away; `load` is called with each load, at its stop.

    `told` is what a load is answered, None for what the kernel says of a call that is none.
    """

    load: Callable[[Held], None]
    told: int | None = 0
    loads: int = 0
    unloads: int = 0
    jumps: int = 0
    fence: Fence = field(default_factory=Fence)
    heard: Callable[[int], None] = field(default=lambda _answer: None)
    """Called with what the kernel says of each call that was taken away."""
    before: Callable[[Stop], Instead | None] = field(default=lambda _stop: None)
    """Asked about every call that is none of these."""

    def enters(self, stop: Stop) -> Instead | None:
        """See `tracer.Watcher`.  Raises BadInput for a load that cannot be read."""
        taken = Instead(taken=True, answer=self.told, heard=self.heard)
        try:
            if stop.number == KEXEC_LOAD[stop.machine]:
                if stop.arguments[1]:
                    self._take(stop, _segments(stop))
                else:
                    self.unloads += 1
                return taken
            if stop.number == KEXEC_FILE_LOAD.get(stop.machine, -1):
                if stop.arguments[4] & FileFlag.UNLOAD:
                    self.unloads += 1
                else:
                    self._take(stop, _files(stop))
                return taken
        except (OSError, ValueError, struct.error) as err:
            raise BadInput(
                f"what it hands to the kernel cannot be read: {err}", source="the recorded command"
            ) from err
        if stop.number == REBOOT[stop.machine]:
            self.jumps += 1
            return Instead(taken=True, answer=-errno.EPERM, heard=self.heard)
        return self.fence.refuses(stop) or self.before(stop)

    def _take(self, stop: Stop, call: HeldSegments | HeldFiles) -> None:
        self.loads += 1
        on_crash = LoadFlag.ON_CRASH if isinstance(call, HeldSegments) else FileFlag.ON_CRASH
        program = _program(stop.pid)
        self.load(
            Held(
                loader=_named(stop.pid, program),
                machine=stop.machine,
                crash=bool(call.flags & on_crash),
                call=call,
                programs=tuple(objects(program)),
            )
        )


def _segments(stop: Stop) -> HeldSegments:
    """The rows of kexec_load.  More than a kernel takes are as many as it would look at: none."""
    mask = (1 << 64) - 1 if stop.machine == "x86_64" else (1 << 32) - 1
    entry, count, at, flags = (each & mask for each in stop.arguments[:4])
    if count > SEGMENT_MAX:
        raise ValueError(f"{count} segments are more than {SEGMENT_MAX}")
    row = _ROW[stop.machine]
    rows = []
    for buffer, size, start, room in row.iter_unpack(stop.read(at, count * row.size)):
        rows.append((Extent.sized(start, room), _memory(stop, buffer, size)))
    return HeldSegments(entry=entry, flags=flags, rows=tuple(rows))


def _memory(stop: Stop, at: int, size: int) -> Blob:
    def chunks() -> Iterator[bytes]:
        for start in range(0, size, CHUNK):
            yield stop.read(at + start, min(CHUNK, size - start))

    return Blob(size=size, chunks=chunks)


def _files(stop: Stop) -> HeldFiles:
    """What kexec_file_load would read."""
    kernel, initrd, length, line, flags = stop.arguments[:5]
    if length > _MOST_LINE:
        raise ValueError(f"a command line of {length} bytes")
    text = stop.read(line, length) if length else b""
    none = bool(flags & FileFlag.NO_INITRAMFS)
    return HeldFiles(
        kernel=_open_file(stop.pid, kernel),
        initrd=None if none else _open_file(stop.pid, initrd),
        command_line=text.partition(b"\0")[0],
        flags=flags,
    )


def _open_file(pid: int, descriptor: int) -> tuple[str, Blob]:
    """An open file of the process, from its beginning, wherever it has read up to."""
    number = descriptor & 0xFFFF_FFFF
    path = f"/proc/{pid}/fd/{number}"
    name = os.readlink(path)

    def chunks() -> Iterator[bytes]:
        with open(path, "rb", buffering=0) as file:
            while part := file.read(CHUNK):
                yield part

    return name, Blob(size=os.stat(path).st_size, chunks=chunks)


def _program(pid: int) -> bytes:
    """What runs there; where that is the dynamic linker, which was given the program, what it
    maps."""
    program = _whole(f"/proc/{pid}/exe")
    if _VERSION.search(program) is not None:
        return program
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            rows = [line.rstrip("\n").split(maxsplit=5) for line in maps]
    except OSError:
        return program
    mapped = dict.fromkeys(row[5] for row in rows if len(row) == 6 and row[5].startswith("/"))
    others = (_whole(path) for path in mapped)
    return next((each for each in others if _VERSION.search(each) is not None), program)


def _whole(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_MOST_FILE)
    except OSError:
        return b""


def _named(pid: int, program: bytes) -> str:
    """A program by its version where it is kexec-tools, else by its file's name."""
    version = _VERSION.search(program)
    if version is not None:
        return f"kexec-tools {version[1].decode()}"
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return "an unknown program"


def objects(program: bytes) -> Iterator[bytes]:
    """Relocatable x86 ELF objects that lie inside a program: kexec-tools keeps its purgatory so."""
    at = program.find(elf.MAGIC, 1)
    while at >= 0:
        size = _object_size(program[at : at + _MOST_PROGRAM])
        if size:
            yield program[at : at + size]
        at = program.find(elf.MAGIC, at + max(size, 1))


_TABLE: Mapping[int, int] = {32: 40, 64: 64}
"""Bytes of a section header (System V ABI)."""


def _object_size(data: bytes) -> int:
    """Bytes of an object up to the end of its section headers, which come last; 0 where it is
    none."""
    bits = elf.CLASS_BITS.get(data[elf.IDENT_CLASS] if len(data) > elf.IDENT_CLASS else 0)
    if bits is None or len(data) < elf.HEADER[bits].size:
        return 0
    head = elf.HEADER[bits].unpack(data)
    right = head["type"] == elf.ET_REL and head["machine"] in (elf.EM_386, elf.EM_X86_64)
    size = head["shoff"] + head["shnum"] * _TABLE[bits]
    tight = head["shentsize"] == _TABLE[bits] and head["shnum"] > 1
    return size if right and tight and size <= len(data) else 0
