"""A maker of what lzop writes: LZO1X packed by a packer of its own, in a file's header and blocks.

Written from Linux Documentation/staging/lzo.rst and lib/decompress_unlzo.c; nothing of tightrope is used.
"""

from __future__ import annotations

import struct
import zlib

BLOCK = 256 << 10
MAGIC = b"\x89LZO\0\r\n\x1a\n"


def _count(short: int, length: int) -> bytes:
    """A length above `short`: zeros of 255 each, and the rest."""
    zeros, rest = divmod(length - short - 1, 255)
    return bytes(zeros) + bytes([rest + 1])


def _run(data: bytes, at: int) -> tuple[int, int]:
    """Where, four literals or more on, a byte is repeated, and how often; the end where none is.

    Four bytes at least are left for the literals behind it, or none.
    """
    for start in range(at + 4, len(data) - 5):
        byte = data[start - 1 : start]
        if data[start : start + 5] == byte * 5:
            same = len(data[start:]) - len(data[start:].lstrip(byte))
            left = len(data) - start - same
            same -= 4 - left if 0 < left < 4 else 0
            if same >= 5:
                return start, same
    return len(data), 0


def block(data: bytes) -> bytes:
    """LZO1X: literals, and a repetition wherever a run of one byte is long enough; any bytes go in."""
    out = bytearray()
    at = 0
    while at < len(data):
        start, same = _run(data, at)
        literals = data[at:start]
        if at == 0 and len(literals) <= 238:
            out.append(17 + len(literals))
        elif len(literals) <= 18:
            out.append(len(literals) - 3)
        else:
            out += b"\0" + _count(15, len(literals) - 3)
        out += literals
        at = start + same
        if same:
            # Distance 1, in the form of 0 0 1 L L L L L.
            out += bytes([32 | (same - 2)]) if same - 2 <= 31 else b"\x20" + _count(31, same - 2)
            out += b"\0\0"
    return bytes(out) + b"\x11\0\0"


def lzop(
    data: bytes, *, version: int = 0x1040, check: str = "adler32", filtered: bool = False
) -> bytes:
    """As `lzop -9` packs a kernel: blocks of 256 KiB, each with a checksum of what comes out."""
    flags = {"adler32": 1, "crc32": 0x100, "none": 0}[check] | (0x800 if filtered else 0)
    wide = version >= 0x0940
    out = MAGIC + struct.pack(">HHHB", version, 0x20A0, 0x0940, 3) + (b"\x09" if wide else b"")
    out += struct.pack(">I", flags) + (bytes(4) if filtered else b"")
    out += struct.pack(">II", 0o644, 0) + (bytes(4) if wide else b"")
    out += b"\x03bin" + bytes(4)
    for at in range(0, len(data), BLOCK):
        piece = data[at : at + BLOCK]
        packed = block(piece) if len(piece) >= 8 else piece
        packed = packed if len(packed) < len(piece) else piece
        checksum = zlib.crc32(piece) if check == "crc32" else zlib.adler32(piece)
        out += struct.pack(">III", len(piece), len(packed), checksum) + packed
    return out + bytes(4)
