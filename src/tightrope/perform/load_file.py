"""What was rehearsed, as an ELF file: written where the rehearsal was, read where it is performed.

    ELF header   e_machine   EM_X86_64, or EM_386: entered with paging off
                 e_entry     the machine address to enter
    PT_NOTE      owner "Tightrope": type 1, what the rehearsal said; type 2, "kexec" or "crash";
                 type 3, who takes it, "xen" or "linux"; type 4, a digest; type 5, what each
                 segment is for people, a line each
    PT_LOAD ...  p_paddr, p_memsz   a segment's destination, whole pages
                 p_offset, p_filesz its bytes; without any, the image only wants to reach the pages

So `readelf -lW` shows what would be loaded.  The digest is SHA-256 in hexadecimal, of all bytes up
to the end of the last part, with its own digits as zeros: what is performed is what was rehearsed,
to the bit.

Rules: bytes to a value and back; nothing is asked of a machine.  A file that is read was not
necessarily written by us: what does not add up is a BadInput with its field and offset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING

from tightrope.abi import elf
from tightrope.abi.elf import EM_386, EM_X86_64, PT_LOAD, PT_NOTE
from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Extent, align_up

if TYPE_CHECKING:
    from tightrope.model import Segment

OWNER = b"Tightrope\0"
NOTE_OUTCOME, NOTE_KIND, NOTE_TAKER, NOTE_DIGEST, NOTE_NAMES = 1, 2, 3, 4, 5
NO_DIGEST = "0" * 64
HOLDS = "holds"
_BITS = 64
_HEADER, _SEGMENT, _NOTE = elf.HEADER[_BITS], elf.PROGRAM_HEADER[_BITS], elf.NOTE
_IDENT = _HEADER.pack(**elf.ident(_BITS))[:16]
_PF_R = 4
NOTHING = memoryview(b"")
_MOST_SEGMENTS = 64
"""Far above what any hypervisor takes."""


class Taker(StrEnum):
    """Whose system call takes a load."""

    XEN = "xen"
    """KEXEC_CMD_kexec_load, interface v2."""
    LINUX = "linux"
    """kexec_load(2)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadSegment:
    """`data` goes to `destination`, machine addresses of whole pages; empty: only to be reached."""

    destination: Extent
    data: memoryview
    name: str = ""
    """What people call it; "" where nothing says it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """A kexec image whose places are found, for a hypervisor or for Linux."""

    segments: tuple[LoadSegment, ...]
    entry: int
    legacy: bool
    """Entered with paging off."""
    crash: bool
    rehearsed: str
    """What the rehearsal said of it; "" when there was none."""
    taker: Taker


def ordered(segments: Iterable[Segment]) -> tuple[LoadSegment, ...]:
    """A plan's segments as a call takes them, the lowest first."""
    rows = (
        LoadSegment(
            destination=each.destination, data=memoryview(each.data).cast("B"), name=each.name
        )
        for each in segments
    )
    return tuple(sorted(rows, key=lambda each: each.destination.start))


def is_ours(head: bytes) -> bool:
    """Whether the first page of a file is that of one written here; `read` says what is wrong in
    it."""
    if len(head) < _HEADER.size + _SEGMENT.size or head[: len(_IDENT)] != _IDENT:
        return False
    row = _SEGMENT.unpack(head, _HEADER.size)
    owner = row["offset"] + _NOTE.size
    return row["type"] == PT_NOTE and head[owner : owner + len(OWNER)] == OWNER


def write(load: Load) -> bytes:
    """The ELF file."""
    kind = "crash" if load.crash else "kexec"
    notes = (
        _note(NOTE_OUTCOME, load.rehearsed)
        + _note(NOTE_KIND, kind)
        + _note(NOTE_TAKER, load.taker.value)
        + _note(NOTE_NAMES, "\n".join(each.name for each in load.segments))
        + _note(NOTE_DIGEST, NO_DIGEST)
    )
    count = 1 + len(load.segments)
    at = _HEADER.size + count * _SEGMENT.size
    noted = _SEGMENT.pack(type=PT_NOTE, flags=_PF_R, offset=at, filesz=len(notes), align=4)
    rows, parts = [noted], [notes]
    at += len(notes)
    for each in load.segments:
        gap = align_up(at, PAGE_SIZE) - at
        parts += [bytes(gap), bytes(each.data)]
        at += gap
        where = each.destination
        rows.append(
            _SEGMENT.pack(
                type=PT_LOAD,
                flags=elf.PF_RWX,
                offset=at,
                vaddr=where.start,
                paddr=where.start,
                filesz=len(each.data),
                memsz=where.size,
                align=PAGE_SIZE,
            )
        )
        at += len(each.data)
    machine = EM_386 if load.legacy else EM_X86_64
    header = _HEADER.pack(
        **elf.ident(_BITS),
        type=elf.ET_EXEC,
        machine=machine,
        version=elf.VERSION,
        entry=load.entry,
        phoff=_HEADER.size,
        ehsize=_HEADER.size,
        phentsize=_SEGMENT.size,
        phnum=count,
    )
    # The digest's digits are the last of the notes, which stand behind the rows.
    place = _HEADER.size + count * _SEGMENT.size + len(notes) - len(NO_DIGEST)
    data = bytearray(b"".join([header, *rows, *parts]))
    data[place : place + len(NO_DIGEST)] = _digest(memoryview(data), place).encode()
    return bytes(data)


def _digest(raw: memoryview, place: int) -> str:
    """The digest of a file whose digest's digits stand at `place`."""
    seen = hashlib.sha256(raw[:place])
    seen.update(NO_DIGEST.encode())
    seen.update(raw[place + len(NO_DIGEST) :])
    return seen.hexdigest()


def read(data: bytes | bytearray | memoryview, source: str) -> Load:
    """The load in a file.  Bytes behind its last part are not looked at.  Raises BadInput."""
    return identified(data, source)[0]


def identified(data: bytes | bytearray | memoryview, source: str) -> tuple[Load, str]:
    """The load in a file, and the digest in hexadecimal that it says of itself, which is right.

    The digest names what is loaded as well as one of the whole file would, and hashing it once more
    would be half of the time that a load takes.  Raises BadInput.
    """
    raw = memoryview(data)
    if len(raw) < _HEADER.size or bytes(raw[: len(_IDENT)]) != _IDENT:
        raise BadInput("is not a 64-bit ELF file: not written by --write", source=source, offset=0)
    header = _HEADER.unpack(raw)
    machine, count, table = header["machine"], header["phnum"], header["phoff"]
    ours = header["type"] == elf.ET_EXEC and machine in (EM_386, EM_X86_64)
    if not ours or header["phentsize"] != _SEGMENT.size:
        raise BadInput("is an ELF file of another kind", source=source, field="e_type", offset=16)
    if not 0 < count <= _MOST_SEGMENTS:
        raise BadInput(
            f"{count} program headers", source=source, field="e_phnum", limit=_MOST_SEGMENTS
        )
    notes: dict[int, str] = {}
    digest = end = 0
    segments: list[LoadSegment] = []
    for number in range(count):
        place = table + number * _SEGMENT.size
        if place + _SEGMENT.size > len(raw):
            raise BadInput("ends in its program headers", source=source, field="e_phoff", offset=32)
        row = _SEGMENT.unpack(raw, place)
        what, at, filesz = row["type"], row["offset"], row["filesz"]
        if at + filesz > len(raw):
            raise BadInput(
                "ends before its bytes do", source=source, field="p_offset", offset=place
            )
        end = max(end, at + filesz)
        if what == PT_NOTE:
            for kind, text, place_of_text in _notes(raw[at : at + filesz], source, at):
                notes[kind] = text
                digest = place_of_text if kind == NOTE_DIGEST else digest
        elif what == PT_LOAD:
            segments.append(
                _segment(raw[at : at + filesz], row["paddr"], row["memsz"], source, place)
            )
    if notes.get(NOTE_KIND) not in ("kexec", "crash") or not segments:
        raise BadInput("does not say what it is: not written by --write", source=source)
    if notes.get(NOTE_TAKER) not in list(Taker):
        raise BadInput("does not say who takes it: written by an older --write", source=source)
    said = notes.get(NOTE_DIGEST, "")
    if len(said) != len(NO_DIGEST) or _digest(raw[:end], digest) != said:
        raise BadInput(
            "is not as it was written: its digest differs"
            if said
            else "has no digest: written by an older --write",
            source=source,
            field="PT_NOTE",
        )
    load = Load(
        segments=_named(segments, notes.get(NOTE_NAMES), source),
        entry=header["entry"],
        legacy=machine == EM_386,
        crash=notes[NOTE_KIND] == "crash",
        rehearsed=notes.get(NOTE_OUTCOME, ""),
        taker=Taker(notes[NOTE_TAKER]),
    )
    return load, said


def _named(
    segments: Sequence[LoadSegment], names: str | None, source: str
) -> tuple[LoadSegment, ...]:
    """The segments with the names of a note; an older --write left none.  Raises BadInput."""
    if names is None:
        return tuple(segments)
    lines = names.split("\n")
    if len(lines) != len(segments) or not all(each.isprintable() for each in lines):
        raise BadInput("the names are not those of its segments", source=source, field="PT_NOTE")
    return tuple(replace(each, name=name) for each, name in zip(segments, lines, strict=True))


def _segment(data: memoryview, paddr: int, memsz: int, source: str, place: int) -> LoadSegment:
    problem = None
    if paddr % PAGE_SIZE or memsz % PAGE_SIZE:
        problem = f"{paddr:#x} + {memsz:#x} is not whole pages"
    elif not 0 < memsz < 1 << 52 or paddr + memsz > 1 << 52:
        problem = f"{paddr:#x} + {memsz:#x} is not memory of a PC"
    elif len(data) > memsz:
        problem = f"{len(data):#x} bytes for {memsz:#x}"
    if problem:
        raise BadInput(problem, source=source, field="p_memsz", offset=place)
    return LoadSegment(destination=Extent.sized(paddr, memsz), data=data)


def _note(kind: int, text: str) -> bytes:
    raw = text.encode()
    head = _NOTE.pack(namesz=len(OWNER), descsz=len(raw), type=kind)
    return (
        head + OWNER.ljust(align_up(len(OWNER), 4), b"\0") + raw.ljust(align_up(len(raw), 4), b"\0")
    )


def _notes(raw: memoryview, source: str, offset: int) -> Iterator[tuple[int, str, int]]:
    """Our notes: type, text, and where that stands in the file.  Raises BadInput."""
    at = 0
    while at + _NOTE.size <= len(raw):
        note = _NOTE.unpack(raw, at)
        names, size, kind = note["namesz"], note["descsz"], note["type"]
        name = at + _NOTE.size
        text = name + align_up(names, 4)
        if text + size > len(raw):
            raise BadInput("a note is cut off", source=source, field="PT_NOTE", offset=offset + at)
        if bytes(raw[name : name + names]) == OWNER:
            yield kind, bytes(raw[text : text + size]).decode("utf-8", "replace"), offset + text
        at = text + align_up(size, 4)


def check_pages(extents: Sequence[Extent], source: str) -> None:
    """Raise BadInput for two segments that overlap."""
    ordered = sorted(extents)
    for one, other in pairwise(ordered):
        if one.overlaps(other):
            raise BadInput(f"{one} and {other} overlap", source=source, field="segments")
