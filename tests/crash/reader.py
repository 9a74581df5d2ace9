"""The core header that a crash plan hands over, read back with pyelftools.

Rules: nothing of `tightrope.plan` is used: the segments' bytes and the boot_params page are read from
the System V ABI's, boot.rst's and zero-page.rst's descriptions.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import Any

from elftools.elf.elffile import ELFFile

from tightrope.memory import Extent
from tightrope.model import Plan, Segment


@dataclass(frozen=True)
class Row:
    """One program header."""

    kind: str
    offset: int
    virt: int
    phys: int
    file_size: int
    memory_size: int
    flags: int
    align: int

    @property
    def extent(self) -> Extent:
        """The physical memory that it names."""
        return Extent.sized(self.phys, self.memory_size)


@dataclass(frozen=True)
class CoreHeader:
    """What an ELF reader makes of the header."""

    bits: int
    kind: str
    machine: str
    rows: tuple[Row, ...]

    def of(self, kind: str) -> list[Row]:
        """The program headers of one type, in their order."""
        return [row for row in self.rows if row.kind == kind]


def segment(plan: Plan, name: str) -> Segment:
    """The one segment of that name."""
    (found,) = [each for each in plan.segments if each.name == name]
    return found


def core_header(data: bytes) -> CoreHeader:
    """The header in these bytes."""
    elf: Any = ELFFile(io.BytesIO(data))
    return CoreHeader(
        bits=elf.elfclass,
        kind=elf["e_type"],
        machine=elf["e_machine"],
        rows=tuple(
            Row(
                kind=each["p_type"],
                offset=each["p_offset"],
                virt=each["p_vaddr"],
                phys=each["p_paddr"],
                file_size=each["p_filesz"],
                memory_size=each["p_memsz"],
                flags=each["p_flags"],
                align=each["p_align"],
            )
            for each in elf.iter_segments()
        ),
    )


def header_of(plan: Plan) -> CoreHeader:
    """The core header of a crash plan."""
    return core_header(bytes(segment(plan, "core header").data))


E820 = {1: "ram", 2: "reserved", 3: "acpi", 4: "nvs", 5: "unusable", 7: "pmem"}


def e820(plan: Plan) -> list[tuple[Extent, str]]:
    """The memory map in boot_params: 20 bytes an entry from 0x2d0, their number at 0x1e8."""
    page = bytes(segment(plan, "boot_params").data)
    rows = [struct.unpack_from("<QQI", page, 0x2D0 + 20 * n) for n in range(page[0x1E8])]
    return [(Extent.sized(start, size), E820[kind]) for start, size, kind in rows]


def command_line(plan: Plan) -> str:
    """The text that boot_params points to (cmd_line_ptr, ext_cmd_line_ptr)."""
    page = bytes(segment(plan, "boot_params").data)
    low, high = struct.unpack_from("<I", page, 0x228)[0], struct.unpack_from("<I", page, 0xC8)[0]
    line = segment(plan, "command line")
    assert line.destination.start == high << 32 | low
    text, zero, rest = bytes(line.data).partition(b"\0")
    assert zero
    assert not rest
    return text.decode()
