"""Reading an ELF kernel: its PT_LOAD segments by physical address, its entry, its PVH note.

    PT_LOAD  p_offset, p_filesz in the file  ->  p_paddr, p_memsz in memory; the rest is zeros
    PT_NOTE  owner "Xen", type 18            ->  the physical address of the PVH entry

e_entry is a virtual address in the System V ABI and a physical one in a vmlinux.  It is taken as
virtual where an executable segment has it at p_vaddr (as GRUB and QEMU do), else as physical.

pyelftools reads the fields.  It is given the bytes of the headers and of the notes and no others, so
that no file can make it read much; what it raises about them becomes an ImageError.

Rules: this file knows ELF and the names of its fields; what an entry means is said in executable.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar

from tightrope.abi import elf
from tightrope.errors import ImageError, MissingPart
from tightrope.image.parts import PHYSICAL_LIMIT, Piece

if TYPE_CHECKING:
    from elftools.elf.elffile import ELFFile

_MACHINES = frozenset({("EM_386", 32), ("EM_X86_64", 64)})
"""e_machine and class; the class is also the mode that the entry runs in."""
_TYPES = ("ET_EXEC", "ET_DYN")
_MOST_PROGRAM_HEADERS = 1024
_MOST_NOTES = 64 << 10
"""Bytes of all PT_NOTE segments; Linux has 512, and pyelftools takes its time over each note."""
_BANNER = re.compile(rb"Linux version (\d[\x20-\x7e]{1,400})")
"""linux_banner (Linux init/version.c), which every kernel prints first."""

_Answer = TypeVar("_Answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Executable:
    """What an ELF kernel asks for; addresses are physical.

    `linux` says that the kernel is Linux, `entry` and `pvh` are inside a piece's bytes.  `linked` is
    p_vaddr, p_paddr and p_filesz of each PT_LOAD; `behind` is what follows the section headers in the
    file, where Linux's build puts relocations.
    """

    bits: int
    linked: tuple[tuple[int, int, int], ...]
    behind: memoryview
    pieces: tuple[Piece, ...]
    entry: int
    pvh: int | None
    linux: bool
    version: str | None


def is_elf(data: memoryview) -> bool:
    """The file begins as an ELF file does."""
    return bytes(data[: len(elf.MAGIC)]) == elf.MAGIC


def read(data: memoryview, source: str) -> Executable:
    """The kernel in an ELF file.

    Raises ImageError, with field and offset, when it is none that can be loaded; MissingPart without
    pyelftools.
    """
    file = _File(data, source)
    pieces = file.pieces()
    owners, pvh = file.notes()
    banners = _BANNER.findall(data)
    # The last one: Linux is linked in steps, and an earlier one has a banner without its number.
    version = banners[-1].decode("ascii") if banners else None
    return Executable(
        bits=file.bits,
        linked=file.linked(),
        behind=file.behind(),
        pieces=pieces,
        entry=file.entry(pieces),
        pvh=pvh if pvh is None else file.inside(pieces, pvh, "Xen note, PHYS32_ENTRY", None),
        linux=version is not None or "Linux" in owners,
        version=version,
    )


class _File:
    """The headers of one file, and refusals that know where a field lies."""

    def __init__(self, data: memoryview, source: str) -> None:
        try:
            from elftools.elf.elffile import ELFFile
        except ImportError as err:
            problem = "pyelftools is needed to read an ELF kernel: pip install 'tightrope[inspect]'"
            raise MissingPart(problem) from err
        self.data = data
        self.source = source
        self.bits = self._class()
        head = BytesIO(data[: elf.HEADER_SIZE[self.bits]])
        self._elf: ELFFile = self._parsed("ELF header", 0, ELFFile, head)
        self._header: Mapping[str, Any] = self._elf.header
        self._judge()
        self._table = self._program_headers()

    def refusal(self, field: str, problem: str, limit: int | None = None) -> ImageError:
        """An error about a field of the ELF header."""
        offset = elf.HEADER_OFFSETS[self.bits][field]
        return ImageError(problem, source=self.source, field=field, offset=offset, limit=limit)

    def _class(self) -> int:
        """Bits of an address; also that there is a whole header, and that it is little-endian."""
        ident = bytes(self.data[:6])
        bits = elf.CLASS_BITS.get(ident[elf.IDENT_CLASS]) if len(ident) > elf.IDENT_CLASS else None
        if bits is None or len(self.data) < elf.HEADER_SIZE[bits]:
            problem = f"an ELF file cut off after {len(self.data)} bytes, or of an unknown class"
            raise ImageError(problem, source=self.source, field="e_ident", offset=0)
        if ident[5] != 1:
            problem = f"data encoding {ident[5]}: x86 is little-endian (1)"
            raise ImageError(problem, source=self.source, field="e_ident", offset=5)
        return bits

    def _parsed(
        self, what: str, offset: int, parse: Callable[..., _Answer], *arguments: object
    ) -> _Answer:
        """What pyelftools makes of bytes that may be anything: its errors are of many types."""
        try:
            return parse(*arguments)
        except Exception as err:
            problem = f"cannot be read: {str(err) or type(err).__name__}"
            raise ImageError(problem, source=self.source, field=what, offset=offset) from err

    def _judge(self) -> None:
        kind, machine = self._header["e_type"], self._header["e_machine"]
        if kind not in _TYPES:
            raise self.refusal("e_type", f"{kind} is not {' or '.join(_TYPES)}: it cannot be run")
        if (machine, self.bits) not in _MACHINES:
            raise self.refusal(
                "e_machine", f"an ELF{self.bits} file for {machine} is no x86 kernel"
            )

    # ------------------------------------------------------------------------------ the segments

    def _program_headers(self) -> list[tuple[int, Mapping[str, Any]]]:
        """Offset and values of each program header."""
        from elftools.common.utils import struct_parse

        count, size = self._header["e_phnum"], self._header["e_phentsize"]
        start = self._header["e_phoff"]
        if not 0 < count <= _MOST_PROGRAM_HEADERS:
            problem = f"{count} program headers"
            raise self.refusal("e_phnum", problem, _MOST_PROGRAM_HEADERS)
        expected = elf.PROGRAM_HEADER_SIZE[self.bits]
        if size != expected:
            raise self.refusal("e_phentsize", f"program headers of {size} bytes", expected)
        if start + count * size > len(self.data):
            problem = f"{count} program headers from {start:#x} are not inside the file"
            raise self.refusal("e_phoff", problem, len(self.data))
        table = BytesIO(self.data[start : start + count * size])
        layout = self._elf.structs.Elf_Phdr
        return [
            (
                start + at,
                self._parsed("program header", start + at, struct_parse, layout, table, at),
            )
            for at in range(0, count * size, size)
        ]

    def _of_type(self, name: str) -> list[tuple[int, Mapping[str, Any]]]:
        """The program headers of one type, each one's bytes checked to be inside the file."""
        found = [(at, header) for at, header in self._table if header["p_type"] == name]
        for at, header in found:
            start, size = header["p_offset"], header["p_filesz"]
            if size and start + size > len(self.data):
                problem = f"{size:#x} bytes from {start:#x} are not inside the file"
                raise self._segment_refusal(at, name, "p_filesz", problem, len(self.data))
        return found

    def _segment_refusal(
        self, at: int, name: str, field: str, problem: str, limit: int
    ) -> ImageError:
        offset = at + elf.PROGRAM_HEADER_OFFSETS[self.bits][field]
        place = f"{name} {field}"
        return ImageError(problem, source=self.source, field=place, offset=offset, limit=limit)

    def pieces(self) -> tuple[Piece, ...]:
        """What PT_LOAD segments put where; not sorted, empty ones left out."""
        pieces = []
        for at, header in self._of_type("PT_LOAD"):
            size, in_memory = header["p_filesz"], header["p_memsz"]
            if size > in_memory:
                problem = f"{size:#x} bytes of file for {in_memory:#x} of memory"
                raise self._segment_refusal(at, "PT_LOAD", "p_filesz", problem, in_memory)
            start = header["p_paddr"]
            if start + in_memory > PHYSICAL_LIMIT:
                problem = f"{start:#x} + p_memsz is no physical address"
                raise self._segment_refusal(at, "PT_LOAD", "p_paddr", problem, PHYSICAL_LIMIT)
            if in_memory:
                pieces.append(
                    Piece(
                        start=start,
                        end=start + in_memory,
                        data=self.data[header["p_offset"] : header["p_offset"] + size],
                        field="PT_LOAD p_paddr",
                        offset=at + elf.PROGRAM_HEADER_OFFSETS[self.bits]["p_paddr"],
                    )
                )
        if not pieces:
            raise self.refusal("e_phnum", "no PT_LOAD segment: there is nothing to load")
        return tuple(pieces)

    def linked(self) -> tuple[tuple[int, int, int], ...]:
        """p_vaddr, p_paddr, p_filesz of each PT_LOAD."""
        return tuple(
            (header["p_vaddr"], header["p_paddr"], header["p_filesz"])
            for _, header in self._of_type("PT_LOAD")
        )

    def behind(self) -> memoryview:
        """What follows the section headers, which an ELF file of Linux has last; else nothing."""
        header = self._header
        end = header["e_shoff"] + header["e_shnum"] * header["e_shentsize"]
        return self.data[end:] if header["e_shoff"] else self.data[:0]

    # ------------------------------------------------------------------------------- the entries

    def entry(self, pieces: tuple[Piece, ...]) -> int:
        """e_entry as a physical address."""
        address: int = self._header["e_entry"]
        offset = elf.HEADER_OFFSETS[self.bits]["e_entry"]
        for _, header in self._of_type("PT_LOAD"):
            executable = header["p_flags"] & elf.PF_X
            if executable and 0 <= address - header["p_vaddr"] < header["p_filesz"]:
                physical: int = address - header["p_vaddr"] + header["p_paddr"]
                return self.inside(pieces, physical, "e_entry", offset)
        return self.inside(pieces, address, "e_entry", offset)

    def inside(
        self, pieces: tuple[Piece, ...], address: int, field: str, offset: int | None
    ) -> int:
        """The physical address; ImageError when no piece has bytes of the file there."""
        if not any(piece.holds(address) for piece in pieces):
            problem = f"{address:#x} is in no PT_LOAD segment's bytes"
            raise ImageError(problem, source=self.source, field=field, offset=offset)
        return address

    def notes(self) -> tuple[frozenset[str], int | None]:
        """Who has notes in the file, and the address in Xen's PHYS32_ENTRY."""
        owners: set[str] = set()
        pvh: int | None = None
        left = _MOST_NOTES
        for at, header in self._of_type("PT_NOTE"):
            start, size = header["p_offset"], header["p_filesz"]
            left -= size
            if left < 0:
                problem = f"{size:#x} bytes of notes are more than any kernel has"
                raise self._segment_refusal(at, "PT_NOTE", "p_filesz", problem, _MOST_NOTES)
            notes = BytesIO(self.data[start : start + size])
            for note in self._parsed("PT_NOTE", start, self._notes_in, notes, size):
                owners.add(note["n_name"] or "")
                if (note["n_name"], note["n_type"]) == (
                    elf.XEN_OWNER,
                    elf.XEN_ELFNOTE_PHYS32_ENTRY,
                ):
                    pvh = self._physical_entry(note["n_descdata"], start + note["n_offset"])
        return frozenset(owners), pvh

    def _notes_in(self, stream: BytesIO, size: int) -> list[Mapping[str, Any]]:
        from elftools.elf.notes import iter_notes

        self._elf.stream = stream
        return list(iter_notes(self._elf, 0, size))

    def _physical_entry(self, description: bytes, offset: int) -> int:
        if len(description) not in elf.XEN_NOTE_SIZES:
            problem = f"{len(description)} bytes are no address"
            field = "Xen note, PHYS32_ENTRY"
            raise ImageError(problem, source=self.source, field=field, offset=offset)
        return int.from_bytes(description, "little")
