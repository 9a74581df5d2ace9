"""A maker of PE files and unified kernel images, for the tests of every room.

Written from Microsoft's "PE Format" (COFF file header, section table) with its own offsets.

    0x000  "MZ"; at 0x3c the offset of "PE"
    0x040  "PE", COFF header, an optional header of zeros, the section table
    0x400  the sections' bytes, each padded to 0x200 as a linker does
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tests.makers.bzimage import bzimage

TABLE = 0x40 + 24 + 240
"""Offset of the section table: behind "PE", the COFF header, and a PE32+ optional header's 240 bytes."""
FIRST_BYTE = 0x400
ALIGNMENT = 0x200


def pe(sections: Sequence[tuple[str, bytes]]) -> bytes:
    """A PE file for x86-64 with these sections, at most eight."""
    table, body = b"", b""
    for name, data in sections:
        padded = data.ljust((len(data) + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT, b"\0")
        table += struct.pack(
            "<8sIIIIIIHHI",
            name.encode(),
            len(data),
            0x10000 + len(body),
            len(padded),
            FIRST_BYTE + len(body),
            0,
            0,
            0,
            0,
            0x40000040,
        )
        body += padded
    coff = struct.pack("<HHIIIHH", 0x8664, len(sections), 0, 0, 0, 240, 0x22E)
    stub = (b"MZ".ljust(0x3C, b"\0") + struct.pack("<I", 0x40)).ljust(0x40, b"\0")
    head = stub + b"PE\0\0" + coff + bytes(240) + table
    return head.ljust(FIRST_BYTE, b"\0") + body


def unified(
    *,
    linux: bytes | None = None,
    initrd: bytes | None = b"070701 an archive",
    cmdline: bytes | None = b"console=ttyS0 quiet\n",
    uname: bytes | None = b"6.1.0-test",
    more: Sequence[tuple[str, bytes]] = (),
) -> bytes:
    """A unified kernel image; None leaves a section out."""
    named = [
        (".osrel", b"ID=test\n"),
        (".uname", uname),
        (".cmdline", cmdline),
        (".initrd", initrd),
        (".linux", bzimage() if linux is None else linux),
    ]
    return pe([(name, data) for name, data in named if data is not None] + list(more))


def put_section(image: bytes, number: int, name: str, value: int) -> bytes:
    """The image with one field of a section's row changed."""
    offset = TABLE + 40 * number + {"size": 8, "raw_size": 16, "raw_offset": 20}[name]
    return image[:offset] + struct.pack("<I", value) + image[offset + 4 :]
