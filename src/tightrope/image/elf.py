"""Reading an ELF kernel: its PT_LOAD segments by physical address, its entry, its PVH note.

    PT_LOAD  p_offset, p_filesz in the file  ->  p_paddr, p_memsz in memory; the rest is zeros
    PT_NOTE  owner "Xen", type 18            ->  the physical address of the PVH entry

e_entry is a virtual address in the System V ABI and a physical one in a vmlinux.  It is taken as
virtual where an executable segment has it at p_vaddr (as GRUB and QEMU do), else as physical.

A note is looked at as far as it can be: one that runs over its segment is no reason to refuse a
kernel that needs no note, and is remarked on, because kexec-tools does refuse it
(kexec/kexec-elf.c).

Rules: this file knows ELF and the names of its fields; what an entry means is said in
executable.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tightrope.abi import elf
from tightrope.errors import ImageError
from tightrope.image.parts import PHYSICAL_LIMIT, Piece
from tightrope.memory import align_up

_MACHINES = frozenset({(elf.EM_386, 32), (elf.EM_X86_64, 64)})
"""e_machine and class; the class is also the mode that the entry runs in."""
_TYPES = (elf.ET_EXEC, elf.ET_DYN)
_MOST_PROGRAM_HEADERS = 1024
_MOST_NOTES = 64 << 10
"""Bytes of all PT_NOTE segments; Linux has 512."""
_BANNER = re.compile(rb"Linux version (\d[!-~]* \([\x20-\x7e]{1,400})")
"""linux_banner (Linux init/version.c), which every kernel prints first: release, who built it,
..."""
_PROGRAM = frozenset({elf.PT_INTERP, elf.PT_DYNAMIC, elf.PT_TLS})
"""What a program has that an operating system starts, and no kernel."""

Row = tuple[int, dict[str, int]]
"""A program header: its offset in the file, and its fields."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Executable:
    """What an ELF kernel asks for; addresses are physical.

    `linux` says that the kernel is Linux, `entry` and `pvh` are inside a piece's bytes.  `linked`
    is p_vaddr, p_paddr and p_filesz of each PT_LOAD; `behind` is what follows the section headers
    in the file, where Linux's build puts relocations.
    """

    bits: int
    linked: tuple[tuple[int, int, int], ...]
    behind: memoryview
    pieces: tuple[Piece, ...]
    entry: int
    pvh: int | None
    linux: bool
    version: str | None
    program: bool
    """It has what only a program has that an operating system starts."""
    fixed: bool
    """ET_EXEC: it says where it wants to lie."""
    remarks: tuple[str, ...]


def is_elf(data: memoryview) -> bool:
    """The file begins as an ELF file does."""
    return bytes(data[: len(elf.MAGIC)]) == elf.MAGIC


def read(data: memoryview, source: str) -> Executable:
    """The kernel in an ELF file.  Raises ImageError, with field and offset, when it cannot be
    loaded."""
    file = _File(data, source)
    pieces = file.pieces()
    notes = file.notes()
    banners = _BANNER.findall(data)
    # The last one: Linux is linked in steps, and an earlier one has a banner without its number.
    version = banners[-1].decode("ascii") if banners else None
    program = file.program or any(
        (each.owner, each.kind) == (elf.GNU_OWNER, elf.NT_GNU_ABI_TAG) for each in notes
    )
    named = version is not None or any(each.owner == "Linux" for each in notes)
    return Executable(
        bits=file.bits,
        linked=file.linked(),
        behind=file.behind(),
        pieces=pieces,
        entry=file.entry(pieces),
        pvh=file.pvh(notes, pieces),
        linux=named and file.fixed and not program,
        version=version,
        program=program,
        fixed=file.fixed,
        remarks=tuple(file.remarks),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Note:
    """One note; `offset` is its place in the file."""

    owner: str
    kind: int
    offset: int
    description: bytes


class _File:
    """The headers of one file, and refusals that know where a field lies."""

    def __init__(self, data: memoryview, source: str) -> None:
        self.data = data
        self.source = source
        self.remarks: list[str] = []
        self.bits = self._class()
        self._header = elf.HEADER[self.bits].unpack(data)
        self._judge()
        self._table = self._program_headers()

    def refusal(self, field: str, problem: str, limit: int | None = None) -> ImageError:
        """An error about a field of the ELF header."""
        offset = elf.HEADER[self.bits].offset(field)
        place = f"e_{field}"
        return ImageError(problem, source=self.source, field=place, offset=offset, limit=limit)

    def _class(self) -> int:
        """Bits of an address; also that there is a whole header, and that it is little-endian."""
        ident = bytes(self.data[:6])
        bits = elf.CLASS_BITS.get(ident[elf.IDENT_CLASS]) if len(ident) > elf.IDENT_CLASS else None
        if bits is None or len(self.data) < elf.HEADER[bits].size:
            problem = f"an ELF file cut off after {len(self.data)} bytes, or of an unknown class"
            raise ImageError(problem, source=self.source, field="e_ident", offset=0)
        if ident[elf.IDENT_DATA] != elf.LITTLE_ENDIAN:
            at = elf.HEADER[bits].offset("machine")
            known = elf.MACHINES.get(int.from_bytes(self.data[at : at + 2], "big"))
            of = f", and this is a file for {known[1]}" if known else ""
            problem = f"data encoding {ident[elf.IDENT_DATA]}: x86 is little-endian (1){of}"
            raise ImageError(problem, source=self.source, field="e_ident", offset=elf.IDENT_DATA)
        return bits

    def _judge(self) -> None:
        kind, machine = self._header["type"], self._header["machine"]
        if kind not in _TYPES:
            wanted = " or ".join(elf.TYPES[each] for each in _TYPES)
            name = elf.TYPES.get(kind, str(kind))
            raise self.refusal("type", f"{name} is not {wanted}: it cannot be run")
        if (machine, self.bits) not in _MACHINES:
            name, of = elf.MACHINES.get(machine, (f"machine {machine}", ""))
            whose = (
                f", a file for {of}," if of and machine not in (elf.EM_386, elf.EM_X86_64) else ""
            )
            problem = f"an ELF{self.bits} file for {name}{whose} is not an x86 kernel"
            raise self.refusal("machine", problem)

    # ------------------------------------------------------------------------------ the segments

    def _program_headers(self) -> list[Row]:
        layout = elf.PROGRAM_HEADER[self.bits]
        count, size = self._header["phnum"], self._header["phentsize"]
        start = self._header["phoff"]
        if not 0 < count <= _MOST_PROGRAM_HEADERS:
            problem = f"{count} program headers"
            raise self.refusal("phnum", problem, _MOST_PROGRAM_HEADERS)
        if size != layout.size:
            raise self.refusal("phentsize", f"program headers of {size} bytes", layout.size)
        if start + count * size > len(self.data):
            problem = f"{count} program headers from {start:#x} are not inside the file"
            raise self.refusal("phoff", problem, len(self.data))
        places = range(start, start + count * size, size)
        return [(at, layout.unpack(self.data, at)) for at in places]

    def _of_type(self, kind: int, name: str) -> list[Row]:
        """The program headers of one type, each one's bytes checked to be inside the file."""
        found = [(at, header) for at, header in self._table if header["type"] == kind]
        for at, header in found:
            start, size = header["offset"], header["filesz"]
            if size and start + size > len(self.data):
                problem = f"{size:#x} bytes from {start:#x} are not inside the file"
                raise self._segment_refusal(at, name, "filesz", problem, len(self.data))
        return found

    @cached_property
    def _loads(self) -> list[Row]:
        return self._of_type(elf.PT_LOAD, "PT_LOAD")

    def _segment_refusal(
        self, at: int, name: str, field: str, problem: str, limit: int
    ) -> ImageError:
        offset = at + elf.PROGRAM_HEADER[self.bits].offset(field)
        place = f"{name} p_{field}"
        return ImageError(problem, source=self.source, field=place, offset=offset, limit=limit)

    def pieces(self) -> tuple[Piece, ...]:
        """What PT_LOAD segments put where; not sorted, empty ones left out."""
        pieces = []
        for at, header in self._loads:
            size, in_memory = header["filesz"], header["memsz"]
            if size > in_memory:
                problem = f"{size:#x} bytes of file for {in_memory:#x} of memory"
                raise self._segment_refusal(at, "PT_LOAD", "filesz", problem, in_memory)
            start = header["paddr"]
            if start + in_memory > PHYSICAL_LIMIT:
                problem = f"{start:#x} + p_memsz is not a physical address"
                raise self._segment_refusal(at, "PT_LOAD", "paddr", problem, PHYSICAL_LIMIT)
            if in_memory:
                pieces.append(
                    Piece(
                        start=start,
                        end=start + in_memory,
                        data=self.data[header["offset"] : header["offset"] + size],
                        field="PT_LOAD p_paddr",
                        offset=at + elf.PROGRAM_HEADER[self.bits].offset("paddr"),
                    )
                )
        if not pieces:
            raise self.refusal("phnum", "no PT_LOAD segment: there is nothing to load")
        return tuple(pieces)

    def linked(self) -> tuple[tuple[int, int, int], ...]:
        """p_vaddr, p_paddr, p_filesz of each PT_LOAD."""
        return tuple((row["vaddr"], row["paddr"], row["filesz"]) for _, row in self._loads)

    def behind(self) -> memoryview:
        """What follows the section headers, which an ELF file of Linux has last; else nothing."""
        header = self._header
        end = header["shoff"] + header["shnum"] * header["shentsize"]
        return self.data[end:] if header["shoff"] else self.data[:0]

    @property
    def program(self) -> bool:
        """There are program headers that only a program has."""
        return any(header["type"] in _PROGRAM for _, header in self._table)

    @property
    def fixed(self) -> bool:
        """The file says where it wants to lie."""
        return self._header["type"] == elf.ET_EXEC

    # ------------------------------------------------------------------------------- the entries

    def entry(self, pieces: tuple[Piece, ...]) -> int:
        """e_entry as a physical address."""
        address = self._header["entry"]
        offset = elf.HEADER[self.bits].offset("entry")
        if not address:
            problem = "0x0 is in no PT_LOAD segment's bytes: a file without an entry has 0 there"
            raise ImageError(problem, source=self.source, field="e_entry", offset=offset)
        for _, header in self._loads:
            executable = header["flags"] & elf.PF_X
            if executable and 0 <= address - header["vaddr"] < header["filesz"]:
                physical = address - header["vaddr"] + header["paddr"]
                return self._inside(pieces, physical, "e_entry", offset)
        return self._inside(pieces, address, "e_entry", offset)

    def _inside(
        self, pieces: tuple[Piece, ...], address: int, field: str, offset: int | None
    ) -> int:
        """The physical address; ImageError when no piece has bytes of the file there."""
        if not any(piece.holds(address) for piece in pieces):
            problem = f"{address:#x} is in no PT_LOAD segment's bytes"
            raise ImageError(problem, source=self.source, field=field, offset=offset)
        return address

    def pvh(self, notes: tuple[_Note, ...], pieces: tuple[Piece, ...]) -> int | None:
        """The address in Xen's PHYS32_ENTRY, of the last such note."""
        field = "Xen note, PHYS32_ENTRY"
        address: int | None = None
        for note in notes:
            if (note.owner, note.kind) != (elf.XEN_OWNER, elf.XEN_ELFNOTE_PHYS32_ENTRY):
                continue
            if len(note.description) not in elf.XEN_NOTE_SIZES:
                problem = f"{len(note.description)} bytes are not an address"
                raise ImageError(problem, source=self.source, field=field, offset=note.offset)
            address = int.from_bytes(note.description, "little")
        return None if address is None else self._inside(pieces, address, field, None)

    def notes(self) -> tuple[_Note, ...]:
        """All notes; what runs over its segment is remarked on."""
        found: list[_Note] = []
        left = _MOST_NOTES
        for at, header in self._of_type(elf.PT_NOTE, "PT_NOTE"):
            start, size = header["offset"], header["filesz"]
            left -= size
            if left < 0:
                problem = f"{size:#x} bytes of notes are more than any kernel has"
                raise self._segment_refusal(at, "PT_NOTE", "filesz", problem, _MOST_NOTES)
            found += self._notes_in(start, start + size)
        return tuple(found)

    def _notes_in(self, at: int, end: int) -> Iterator[_Note]:
        while at + elf.NOTE.size <= end:
            head = elf.NOTE.unpack(self.data, at)
            name = at + elf.NOTE.size
            description = name + align_up(head["namesz"], elf.NOTE_ALIGNMENT)
            following = description + align_up(head["descsz"], elf.NOTE_ALIGNMENT)
            if following > end:
                self.remarks.append(
                    f"the note at {at:#x} runs over its segment: kexec-tools refuses such a file"
                )
            if description + head["descsz"] > end:
                return
            raw = bytes(self.data[name : name + head["namesz"]])
            yield _Note(
                owner=raw.rstrip(b"\0").decode("utf-8", "backslashreplace"),
                kind=head["type"],
                offset=at,
                description=bytes(self.data[description : description + head["descsz"]]),
            )
            at = following
