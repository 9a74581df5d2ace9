"""A maker of small ELF kernels, for the tests of every room.

Written from the System V ABI's tables with its own offsets: it shares no number with
`tightrope.abi.elf`, nor does it use the library that reads ELF files there.

    0x000  ELF header, program headers: the segments' first, then one PT_NOTE when there are notes
    0x800  the segments' bytes, one after the other, then the notes

Use `elf()` for a good 64-bit one, `put(image, "e_phnum", 0)` to break a field of one, and
`put(image, "p_paddr", 0, segment=1)` to break a segment's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

CODE = b"\xf4\xeb\xfd" + bytes(range(61))
"""hlt; jmp back; and something to tell one byte from the next."""
FIRST_BYTE = 0x800

HEADER = {
    32: {
        "e_type": (16, 2),
        "e_machine": (18, 2),
        "e_entry": (24, 4),
        "e_phoff": (28, 4),
        "e_phentsize": (42, 2),
        "e_phnum": (44, 2),
    },
    64: {
        "e_type": (16, 2),
        "e_machine": (18, 2),
        "e_entry": (24, 8),
        "e_phoff": (32, 8),
        "e_phentsize": (54, 2),
        "e_phnum": (56, 2),
    },
}
PROGRAM_HEADER = {
    32: {
        "p_type": (0, 4),
        "p_offset": (4, 4),
        "p_vaddr": (8, 4),
        "p_paddr": (12, 4),
        "p_filesz": (16, 4),
        "p_memsz": (20, 4),
        "p_flags": (24, 4),
    },
    64: {
        "p_type": (0, 4),
        "p_flags": (4, 4),
        "p_offset": (8, 8),
        "p_vaddr": (16, 8),
        "p_paddr": (24, 8),
        "p_filesz": (32, 8),
        "p_memsz": (40, 8),
    },
}
"""By class: offset and size of each field in bytes."""
HEADER_SIZE = {32: 52, 64: 64}
PROGRAM_HEADER_SIZE = {32: 32, 64: 56}


@dataclass(frozen=True)
class Segment:
    """`data` at the physical address `start`, `size` bytes in memory (default: as many as in the file).

    `virtual` is p_vaddr, the same as `start` by default; `flags` are p_flags, 5 is read and execute.
    """

    start: int
    data: bytes = CODE
    size: int | None = None
    virtual: int | None = None
    flags: int = 5


def bits_of(image: bytes) -> int:
    """32 or 64."""
    return {1: 32, 2: 64}[image[4]]


def put(image: bytes, name: str, value: int, segment: int = 0) -> bytes:
    """The image with one field changed: of the ELF header, or of a program header by its number."""
    bits = bits_of(image)
    if name.startswith("e_"):
        offset, size = HEADER[bits][name]
    else:
        offset, size = PROGRAM_HEADER[bits][name]
        offset += HEADER_SIZE[bits] + segment * PROGRAM_HEADER_SIZE[bits]
    return image[:offset] + value.to_bytes(size, "little") + image[offset + size :]


def note(owner: str, kind: int, description: bytes) -> bytes:
    """One note of a PT_NOTE segment: lengths, type, then name and description, each padded to 4."""
    name = owner.encode() + b"\0"
    head = struct.pack("<III", len(name), len(description), kind)
    return head + b"".join(part + bytes(-len(part) % 4) for part in (name, description))


def pvh_note(address: int, size: int = 8) -> bytes:
    """Xen's note 18: the physical address of the PVH entry."""
    return note("Xen", 18, address.to_bytes(size, "little"))


def elf(
    *segments: Segment,
    bits: int = 64,
    entry: int | None = None,
    notes: bytes = b"",
    machine: int | None = None,
    kind: int = 2,
) -> bytes:
    """A kernel file; without segments it has one of code at 16 MiB.  `entry` is the first's start."""
    segments = segments or (Segment(0x1000000),)
    count = len(segments) + bool(notes)
    headers, body = b"", b""
    for one in segments:
        headers += _program_header(
            bits,
            kind=1,
            offset=FIRST_BYTE + len(body),
            virtual=one.start if one.virtual is None else one.virtual,
            physical=one.start,
            in_file=len(one.data),
            in_memory=len(one.data) if one.size is None else one.size,
            flags=one.flags,
        )
        body += one.data
    if notes:
        body += bytes(-len(body) % 4)
        at = FIRST_BYTE + len(body)
        headers += _program_header(
            bits,
            kind=4,
            offset=at,
            virtual=0,
            physical=0,
            in_file=len(notes),
            in_memory=len(notes),
            flags=4,
        )
        body += notes
    ident = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    layout = "<HHIQQQIHHHHHH" if bits == 64 else "<HHIIIIIHHHHHH"
    header = ident + struct.pack(
        layout,
        kind,
        machine if machine is not None else {32: 3, 64: 62}[bits],
        1,
        segments[0].start if entry is None else entry,
        HEADER_SIZE[bits],
        0,
        0,
        HEADER_SIZE[bits],
        PROGRAM_HEADER_SIZE[bits],
        count,
        0,
        0,
        0,
    )
    return (header + headers).ljust(FIRST_BYTE, b"\0") + body


def _program_header(
    bits: int,
    *,
    kind: int,
    offset: int,
    virtual: int,
    physical: int,
    in_file: int,
    in_memory: int,
    flags: int,
) -> bytes:
    if bits == 64:
        return struct.pack(
            "<IIQQQQQQ", kind, flags, offset, virtual, physical, in_file, in_memory, 4096
        )
    return struct.pack("<8I", kind, offset, virtual, physical, in_file, in_memory, flags, 4096)
