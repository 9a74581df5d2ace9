"""A page of a compressed dump, unpacked: zlib, lzo, snappy and zstd, bounded by what a page is.

    zlib     the standard library
    zstd     the `zstandard` package (extra `inspect`)
    lzo      LZO1X, `tightrope.lzo`
    snappy   decoded here            google/snappy, format_description.txt

snappy is read here, as lzo is, because a page is small and most of it are long runs: a package
would be one more that has to be there on the day of a crash.

Rules: any bytes in, `size` bytes or a ValueError out; nothing is ever made that is larger than a
page and one instruction of its stream.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

from tightrope.errors import MissingPart
from tightrope.lzo import literal, lzo1x, repeated
from tightrope.model.dump import Compression


def unpack(how: Compression, data: bytes, size: int) -> bytes:
    """`size` bytes.  Raises ValueError for a stream that gives anything else, MissingPart for zstd
    where its package is not installed."""
    try:
        out = _CODECS[how](data, size)
    except IndexError as err:
        raise ValueError(f"{how.value}: the stream ends early") from err
    except ValueError as err:
        raise ValueError(f"{how.value}: {err}") from err
    if len(out) != size:
        raise ValueError(f"{how.value}: {len(out):,} bytes come out of it, and a page has {size:,}")
    return out


def _zlib(data: bytes, size: int) -> bytes:
    decoder = zlib.decompressobj()
    try:
        return decoder.decompress(data, size + 1)
    except zlib.error as err:
        raise ValueError(str(err)) from err


def _zstd(data: bytes, size: int) -> bytes:
    try:
        import zstandard
    except ImportError as err:
        raise MissingPart(
            "pages are compressed with zstd: pip install 'tightrope[inspect]' (zstandard)"
        ) from err
    try:
        # What the frame says of its size is made at once, whatever bound is given.
        if zstandard.frame_content_size(data) > size:
            raise ValueError(f"a frame says that it has more than a page's {size:,} bytes")
        return zstandard.ZstdDecompressor(max_window_size=1 << 23).decompress(data, size)
    except zstandard.ZstdError as err:
        raise ValueError(str(err)) from err


def _snappy(data: bytes, size: int) -> bytes:
    said, at, shift = 0, 0, 0
    while True:  # the length, seven bits a byte, the lowest first
        said |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if data[at - 1] < 0x80:
            break
        if shift > 28:
            raise ValueError("its length has more than 32 bits")
    if said != size:
        raise ValueError(f"says that it has {said:,} bytes, and a page has {size:,}")
    out = bytearray()
    while at < len(data):
        tag = data[at]
        at += 1
        kind, upper = tag & 3, tag >> 2
        if kind == 0:
            extra = max(upper - 59, 0)
            length = int.from_bytes(data[at : at + extra], "little") if extra else upper
            at = literal(out, data, at + extra, length + 1, size)
            continue
        width = (0, 1, 2, 4)[kind]
        if at + width > len(data):
            raise IndexError
        distance = int.from_bytes(data[at : at + width], "little")
        length = upper + 1
        if kind == 1:
            length, distance = (upper & 7) + 4, distance | tag >> 5 << 8
        at += width
        repeated(out, distance, length, size)
    return bytes(out)


_CODECS: Mapping[Compression, Callable[[bytes, int], bytes]] = {
    Compression.ZLIB: _zlib,
    Compression.LZO: lzo1x,
    Compression.SNAPPY: _snappy,
    Compression.ZSTD: _zstd,
}
