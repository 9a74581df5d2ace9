"""The core header of a crash kernel, read back: whose dump it is, and where each byte of it is
found.

    command line   elfcorehdr=ADDRESS        (Linux kernel/crash_dump.c, setup_elfcorehdr)
    there          ELF header, PT_NOTE rows, PT_LOAD rows: p_paddr of the old kernel <- p_offset now

Rules: layouts are those of the System V ABI, written here once more.  It is read as
fs/proc/vmcore.c reads it, which believes every row; what they should say is asked in `dump`.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass

from tightrope.check.told.memory import Garbled
from tightrope.memory import Extent
from tightrope.model import Memory

EHDR_64, EHDR_32 = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<16sHHIIIIIHHHHHH")
PHDR_64, PHDR_32 = struct.Struct("<IIQQQQQQ"), struct.Struct("<8I")
CORE, CURRENT, LOAD, NOTE, RWX = 4, 1, 1, 4, 7
MACHINE_32, MACHINE_64 = 3, 62
MOST_ROWS = 0xFFFE
WORD = re.compile(rb"(?:^|\s)elfcorehdr=(\S+)")
NUMBER = re.compile(rb"0x[0-9a-f]+|0[0-7]*|[1-9][0-9]*", re.IGNORECASE)
UNITS = {bytes([suffix]): 10 * power for power, suffix in enumerate(b"kmgtpe", 1)}
"""Bits by which memparse() shifts a number with a letter behind it (Linux lib/cmdline.c)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderRow:
    """A program header: `size` bytes that were at `phys` and are read at `offset` now."""

    type: int
    flags: int
    offset: Extent
    virt: int
    phys: int
    memory_size: int
    alignment: int

    @property
    def old(self) -> Extent:
        """The old kernel's memory that it stands for."""
        return Extent.sized(self.phys, self.offset.size)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreHeader:
    """The header as it was read: `size` bytes with all of its rows."""

    ident: bytes
    type: int
    machine: int
    version: int
    rest: tuple[int, ...]
    """e_entry, e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize, e_shentsize, e_shnum,
    e_shstrndx."""
    size: int
    rows: tuple[HeaderRow, ...]

    @property
    def bits(self) -> int:
        """32 or 64, by EI_CLASS."""
        return 64 if self.ident[4] == 2 else 32


def named(line: bytes) -> int | None:
    """The address that a command line gives; the last one counts.  None without one, or for no
    number.

    `ADDRESS` or `SIZE@ADDRESS`, each with a unit or none: kexec-tools writes kilobytes.
    """
    words = WORD.findall(line)
    if not words:
        return None
    address: bytes = words[-1].rpartition(b"@")[2]
    number, rest = memparse(address) or (None, b"")
    return None if rest else number


def memparse(text: bytes) -> tuple[int, bytes] | None:
    """A number of 64 bits with a unit or none, as Linux reads it (lib/cmdline.c), and what is
    behind it; None where there is not a number."""
    found = NUMBER.match(text)
    if found is None:
        return None
    digits, rest = found[0].decode(), text[found.end() :]
    octal = digits.startswith("0") and digits.isdigit()
    unit = UNITS.get(rest[:1].lower(), 0)
    value = int(digits, 8 if octal else 0) << unit
    return value & (1 << 64) - 1, rest[1:] if unit else rest


def read(memory: Memory, at: int) -> CoreHeader:
    """The header at an address.  Raises Garbled for what is none, MachineError outside memory."""
    ident = bytes(memory.read(Extent.sized(at, 16)))
    if ident[:4] != b"\x7fELF" or ident[4] not in (1, 2):
        raise Garbled(f"there is no ELF header at {at:#x}: {ident.hex()}")
    head, row = (EHDR_64, PHDR_64) if ident[4] == 2 else (EHDR_32, PHDR_32)
    (
        _, kind, machine, version, entry, phoff, shoff, flags, ehsize, phentsize, count, *sections
    ) = head.unpack(memory.read(Extent.sized(at, head.size)))  # fmt: skip
    if count > MOST_ROWS or phoff != head.size or phentsize != row.size:
        raise Garbled(f"its {count} rows of {phentsize} bytes at {phoff:#x} are none")
    rows = []
    for fields in row.iter_unpack(memory.read(Extent.sized(at + phoff, count * row.size))):
        # p_flags stands second in 64 bits and behind the sizes in 32.
        if head is EHDR_64:
            what, rights, offset, virt, phys, filed, sized, alignment = fields
        else:
            what, offset, virt, phys, filed, sized, rights, alignment = fields
        rows.append(
            HeaderRow(
                type=what,
                flags=rights,
                offset=Extent.sized(offset, filed),
                virt=virt,
                phys=phys,
                memory_size=sized,
                alignment=alignment,
            )
        )
    return CoreHeader(
        ident=ident,
        type=kind,
        machine=machine,
        version=version,
        rest=(entry, phoff, shoff, flags, ehsize, phentsize, *sections),
        size=phoff + count * row.size,
        rows=tuple(rows),
    )
