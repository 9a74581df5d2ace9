"""A page of a compressed dump, unpacked: zlib, lzo, snappy and zstd, bounded by what a page is.

    zlib     the standard library
    zstd     the `zstandard` package (extra `inspect`)
    lzo      LZO1X, decoded here     Linux Documentation/staging/lzo.rst
    snappy   decoded here            google/snappy, format_description.txt

lzo and snappy are read here because a page is small and most of it are long runs: a package for
each would be one more that has to be there on the day of a crash.

Rules: any bytes in, `size` bytes or a ValueError out; nothing is ever made that is larger than a
page and one instruction of its stream.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping

from tightrope.errors import MissingPart
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


def _repeated(out: bytearray, distance: int, length: int, most: int) -> None:
    """Append `length` bytes that begin `distance` before the end, which may be the new ones."""
    if not 0 < distance <= len(out):
        raise ValueError(f"a repetition of what lies {distance:,} bytes back, of {len(out):,}")
    if len(out) + length > most:
        raise ValueError(f"more than a page's {most:,} bytes")
    piece = bytes(out[-distance:][:length])
    out += (piece * -(-length // len(piece)))[:length]


def _literal(out: bytearray, data: bytes, at: int, length: int, most: int) -> int:
    """Append `length` bytes of the stream; where it goes on."""
    if at + length > len(data):
        raise IndexError
    if len(out) + length > most:
        raise ValueError(f"more than a page's {most:,} bytes")
    out += data[at : at + length]
    return at + length


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
            at = _literal(out, data, at + extra, length + 1, size)
            continue
        width = (0, 1, 2, 4)[kind]
        if at + width > len(data):
            raise IndexError
        distance = int.from_bytes(data[at : at + width], "little")
        length = upper + 1
        if kind == 1:
            length, distance = (upper & 7) + 4, distance | tag >> 5 << 8
        at += width
        _repeated(out, distance, length, size)
    return bytes(out)


_LZO_STARTS_WITH_LITERALS = 17
_LZO_LONG_RUN, _LZO_FIRST = 4, 0
"""States of LZO1X: after a long run of literals, and before anything; 1 to 3: after so many."""


def _lzo(data: bytes, size: int) -> bytes:
    out, at, state = bytearray(), 0, _LZO_FIRST
    if data[0] > _LZO_STARTS_WITH_LITERALS:
        length = data[0] - _LZO_STARTS_WITH_LITERALS
        at = _literal(out, data, 1, length, size)
        state = min(length, _LZO_LONG_RUN)

    def counted(short: int, bits: int, base: int) -> int:
        """A length: `short`, or where it is 0, 255 for each zero and the byte that ends them."""
        nonlocal at
        if short:
            return base + short
        zeros = at
        while not data[at]:
            at += 1
        at += 1
        return base + bits + (at - 1 - zeros) * 255 + data[at - 1]

    while True:
        code = data[at]
        at += 1
        if code < 16 and state == _LZO_FIRST:
            length = counted(code, 15, 3)
            at = _literal(out, data, at, length, size)
            state = _LZO_LONG_RUN
            continue
        if code >= 64:
            length = 5 + (code >> 5 & 3) if code >= 128 else 3 + (code >> 5 & 1)
            distance, low = (data[at] << 3) + (code >> 2 & 7) + 1, code
            at += 1
        elif code >= 16:
            length = counted(code & 31, 31, 2) if code >= 32 else counted(code & 7, 7, 2)
            low = data[at]
            word = low | data[at + 1] << 8
            at += 2
            distance = (word >> 2) + 1
            if code < 32:
                distance = (1 << 14) + ((code & 8) << 11) + (word >> 2)
                if distance == 1 << 14:
                    return bytes(out)  # the end's own mark
        else:
            far = state == _LZO_LONG_RUN
            length, low = (3, code) if far else (2, code)
            distance = (data[at] << 2) + (code >> 2 & 3) + (2049 if far else 1)
            at += 1
        _repeated(out, distance, length, size)
        state = low & 3
        at = _literal(out, data, at, state, size)


_CODECS: Mapping[Compression, Callable[[bytes, int], bytes]] = {
    Compression.ZLIB: _zlib,
    Compression.LZO: _lzo,
    Compression.SNAPPY: _snappy,
    Compression.ZSTD: _zstd,
}
