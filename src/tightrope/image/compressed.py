"""A kernel file that is compressed as a whole, as Xen's is (xen-4.17.gz): unpacked in bounded
memory.

Rules: gzip alone, the one that distributions use for whole files; what is in it is not looked at.
"""

from __future__ import annotations

import zlib

from tightrope.errors import ImageError

_MAGIC = b"\x1f\x8b"
LARGEST = 1 << 30
"""Bytes that a file may unpack to; the largest kernels, with debugging information, have fewer."""


def is_compressed(data: memoryview) -> bool:
    """The file begins as a gzip file does (RFC 1952, section 2.3.1)."""
    return bytes(data[: len(_MAGIC)]) == _MAGIC


def inflate(data: memoryview, source: str, *, largest: int = LARGEST) -> memoryview:
    """What a gzip file unpacks to.

    Raises ImageError when it is corrupt, cut off, has bytes behind it, or unpacks to more than
    `largest` bytes.
    """
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        unpacked = decoder.decompress(data, largest + 1)
    except zlib.error as err:
        raise ImageError(f"is corrupt: {err}", source=source, field="gzip") from err
    if len(unpacked) > largest:
        raise ImageError("unpacks to too much", source=source, field="gzip", limit=largest)
    if not decoder.eof:
        problem = f"breaks off after {len(unpacked):#x} unpacked bytes"
        raise ImageError(problem, source=source, field="gzip", offset=len(data))
    if decoder.unused_data:
        at = len(data) - len(decoder.unused_data)
        problem = f"{len(decoder.unused_data)} unexplained bytes behind it"
        raise ImageError(problem, source=source, field="gzip", offset=at)
    return memoryview(unpacked)
