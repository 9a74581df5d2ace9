"""Compressed streams, unpacked a piece at a time: in bounded memory, and off the interpreter's
lock.

    data   | stream | what follows it |
             ------ -> pieces of at most a few MiB; the count of the stream's bytes at their end

Everything compressed that a kernel is handed goes through here: its own payload, an initrd, a
kernel file that is gzip as a whole.  Each stream is unpacked to its own end and no further, as the
kernel's decompressors do: what follows is the caller's.

Rules: no more than `most` bytes come out, and a caller that stops asking stops the unpacking.  A
checksum that a stream has is checked (gzip, bzip2, xz, and zstd and lzo where it was written); lzma
and lz4 have none.  lz4 and zstandard are imported only where a stream needs them.  Errors say what
is wrong and not where: the caller knows what the stream is of.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from types import MappingProxyType

from tightrope.errors import MissingPart
from tightrope.lzo import lzo1x

MAGICS: Mapping[str, bytes] = MappingProxyType(
    {
        "gzip": b"\x1f\x8b",
        "bzip2": b"BZh",
        "lzma": b"\x5d\0\0",
        "xz": b"\xfd7zXZ\0",
        "lzo": b"\x89LZO",
        "lz4": b"\x02\x21\x4c\x18",
        "zstd": b"\x28\xb5\x2f\xfd",
    }
)
"""What each stream begins with (boot.rst, payload_offset; lzo from Linux lib/decompress.c)."""
_LONGEST_MAGIC = max(len(magic) for magic in MAGICS.values())

_STEP = 4 << 20
"""Bytes fed at a time.  Each time is a wait for the interpreter's lock where another thread is
busy."""
_PIECE = 16 << 20
"""Bytes that come out at a time, where a decoder can be told.

A decoder of Python's grows what comes out in steps, and each is such a wait as well: fewer and
larger pieces have fewer.
"""
_LZMA_MEMORY = 512 << 20
"""Bytes a decoder may take.  Linux packs with dictionaries of up to 128 MiB
(scripts/xz_wrap.sh)."""
_ZSTD_WINDOW = 128 << 20
"""Bytes; what `zstd -22 --ultra` asks for, which is how Linux packs (scripts/Makefile.lib), and
the most that Linux unpacks (lib/decompress_unzstd.c, ZSTD_WINDOWSIZE_MAX)."""
_ZSTD_STEP = 1024
"""Bytes fed at a time where blocks cannot be counted.  One of 4 bytes can mean 128 KiB: the
overshoot is at most 32 MiB."""
_ZSTD_BLOCKS = 32
"""Blocks fed at a time, each of which unpacks to 128 KiB at most (RFC 8878, 3.1.1.2.4)."""
_LZ4_BLOCK = 8 << 20
"""Bytes that one block of an LZ4 legacy frame unpacks to, at most (LZ4 Frame Format, "Legacy
frame")."""
_LZ4_BLOCK_PACKED = _LZ4_BLOCK + _LZ4_BLOCK // 255 + 16
"""Bytes of such a block packed, at most (lz4.h, LZ4_COMPRESSBOUND)."""

_LZOP_MAGIC = b"\x89LZO\0\r\n\x1a\n"
_LZOP_WIDE = 0x0940
"""The version from which on the header has a level, and all of the time."""
_LZOP_FILTER, _LZOP_ADLER32, _LZOP_CRC32 = 0x800, 0x1, 0x100
"""Flags of the header: it has a filter; blocks have such a checksum of what comes out of them."""
_LZO_BLOCK = 256 << 10
"""Bytes that a block unpacks to, at most (lib/decompress_unlzo.c, LZO_BLOCK_SIZE)."""

Pieces = Generator[bytes, None, int]
"""What comes out, piece by piece; returns how many bytes of the data the stream was."""


class StreamError(Exception):
    """A stream that does not unpack; the words say why."""


def compression_of(data: memoryview) -> str | None:
    """The compression that `data` begins with; None when it is none of `MAGICS`."""
    head = bytes(data[:_LONGEST_MAGIC])
    return next((name for name, magic in MAGICS.items() if head.startswith(magic)), None)


class Stream:
    """The stream that `data` begins with; iterating unpacks it.

    Not much more than `most` bytes come out: then it stops without a word, and `size` says so.
    """

    def __init__(self, compression: str, data: memoryview, *, most: int) -> None:
        self.size = 0
        """Bytes that have come out."""
        self.used = 0
        """Bytes of the data that were the stream, once it has come to its end."""
        self._compression, self._data, self._most = compression, data, most

    def __iter__(self) -> Iterator[bytes]:
        """The pieces; once.

        Raises StreamError when the stream is corrupt or breaks off, MissingPart when its package is
        not installed.
        """
        self.used = yield from self._counted(_DECODERS[self._compression](self._data, self._most))

    def _counted(self, pieces: Pieces) -> Pieces:
        while True:
            try:
                piece = next(pieces)
            except StopIteration as end:
                return int(end.value)
            self.size += len(piece)
            yield piece


# ---------------------------------------------------------------------- one function a compression


def _gzip(data: memoryview, most: int) -> Pieces:
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    size = fed = 0
    waiting: bytes | memoryview = b""
    while not decoder.eof and size <= most and (len(waiting) or fed < len(data)):
        if not len(waiting):
            waiting = data[fed : fed + _STEP]
            fed += len(waiting)
        try:
            piece = decoder.decompress(waiting, _PIECE)
        except zlib.error as err:
            raise StreamError(f"is corrupt: {err}") from err
        waiting = decoder.unconsumed_tail
        size += len(piece)
        yield piece
    return _used(decoder.eof, size, most, fed - len(decoder.unused_data))


def _bzip2(data: memoryview, most: int) -> Pieces:
    return _by_need(bz2.BZ2Decompressor(), data, most)


def _xz(data: memoryview, most: int) -> Pieces:
    return _by_need(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_LZMA_MEMORY), data, most)


def _lzma(data: memoryview, most: int) -> Pieces:
    return _by_need(lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_LZMA_MEMORY), data, most)


def _by_need(
    decoder: bz2.BZ2Decompressor | lzma.LZMADecompressor, data: memoryview, most: int
) -> Pieces:
    """Unpack with a decoder that says when it wants more."""
    size = fed = 0
    while not decoder.eof and size <= most and (fed < len(data) or not decoder.needs_input):
        step = data[fed : fed + _STEP] if decoder.needs_input else b""
        fed += len(step)
        try:
            piece = decoder.decompress(step, _PIECE)
        except (OSError, lzma.LZMAError) as err:
            raise StreamError(f"is corrupt: {err}") from err
        size += len(piece)
        yield piece
    return _used(decoder.eof, size, most, fed - len(decoder.unused_data))


def _zstd(data: memoryview, most: int) -> Pieces:
    try:
        import zstandard
    except ImportError as err:
        raise _missing("zstandard", "zstd") from err
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    size = fed = 0
    ends = _zstd_ends(data)
    while not decoder.eof and size <= most and fed < len(data):
        step = data[fed : next(ends, fed + _ZSTD_STEP)]
        fed += len(step)
        try:
            piece = decoder.decompress(step)
        except zstandard.ZstdError as err:
            raise StreamError(f"is corrupt: {err}") from err
        size += len(piece)
        yield piece
    return _used(decoder.eof, size, most, fed - len(decoder.unused_data))


def _zstd_ends(data: memoryview) -> Iterator[int]:
    """Where to stop feeding a frame, after every so many blocks (RFC 8878, 3.1.1).

    Nothing more where the headers lead out of the data: then the decoder has to say what is wrong.
    """
    descriptor = data[4] if len(data) > 4 else 0
    single = descriptor >> 5 & 1
    content = (single, 2, 4, 8)[descriptor >> 6]
    at = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3] + content
    count = 0
    while at + 3 <= len(data):
        head = int.from_bytes(data[at : at + 3], "little")
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        at += 3 + (1 if kind == 1 else size)
        count += 1
        if at > len(data) or kind == 3:
            return
        if last or count % _ZSTD_BLOCKS == 0:
            yield at
        if last:
            return


def _lz4(data: memoryview, most: int) -> Pieces:
    """Unwrap LZ4 legacy frames: magic, then blocks, each its packed size (4 bytes) and its bytes.

    A frame has no end of its own: the end of the data ends it, or a word of zeros, and the magic of
    another frame is passed over (Linux lib/decompress_unlz4.c).
    """
    try:
        import lz4.block
    except ImportError as err:
        raise _missing("lz4", "lz4") from err
    size, at = 0, len(MAGICS["lz4"])
    while at < len(data) and size < most:
        head = bytes(data[at : at + 4])
        packed = int.from_bytes(head, "little")
        if size and not packed:
            break
        if size and head == MAGICS["lz4"]:
            at += len(head)
            continue
        block = data[at + 4 : at + 4 + packed]
        if not 0 < packed <= _LZ4_BLOCK_PACKED or len(block) < packed:
            raise StreamError(f"is corrupt: a block of {packed:#x} bytes at {at:#x} of the stream")
        room = min(_LZ4_BLOCK, most - size)
        try:
            piece: bytes = lz4.block.decompress(block, uncompressed_size=room)
        except lz4.block.LZ4BlockError as err:
            more = "" if room == _LZ4_BLOCK else ", or unpacks to more than its end promises"
            raise StreamError(f"is corrupt{more}: {err}") from err
        size += len(piece)
        at += 4 + packed
        yield piece
    return at


def _lzo(data: memoryview, most: int) -> Pieces:
    """Unwrap what lzop writes: a header, then blocks, as Linux does (lib/decompress_unlzo.c).

    A block: its size unpacked, its size packed, one checksum; packed as large as unpacked, it is as
    it is.  Linux takes every block to have one checksum, whatever the header says, and skips it.
    """
    flags, at = _lzop_header(data)
    size = 0
    while size <= most:
        if at + 4 > len(data):
            raise StreamError(f"breaks off after {size:#x} unpacked bytes")
        unpacked = int.from_bytes(data[at : at + 4], "big")
        if not unpacked:
            return at + 4
        packed = int.from_bytes(data[at + 4 : at + 8], "big")
        check = int.from_bytes(data[at + 8 : at + 12], "big")
        block = bytes(data[at + 12 : at + 12 + packed])
        if not 0 < packed <= unpacked <= _LZO_BLOCK:
            raise StreamError(f"is corrupt: a block of {packed:#x} bytes at {at:#x} of the stream")
        if len(block) < packed:
            raise StreamError(f"breaks off after {size:#x} unpacked bytes")
        try:
            piece = block if packed == unpacked else lzo1x(block, unpacked)
        except IndexError as err:
            raise StreamError(f"is corrupt: the block at {at:#x} of it ends early") from err
        except ValueError as err:
            raise StreamError(f"is corrupt: the block at {at:#x} of it: {err}") from err
        sums = {_LZOP_ADLER32: zlib.adler32, _LZOP_CRC32: zlib.crc32}
        kept = next((each for flag, each in sums.items() if flags & flag), None)
        if len(piece) != unpacked or (kept is not None and kept(piece) != check):
            raise StreamError(f"is corrupt: the block at {at:#x} of it is not what was packed")
        size += len(piece)
        at += 12 + packed
        yield piece
    return at


def _lzop_header(data: memoryview) -> tuple[int, int]:
    """Its flags, and where it ends."""
    at = len(_LZOP_MAGIC)
    if bytes(data[:at]) != _LZOP_MAGIC:
        raise StreamError("is corrupt: it does not begin with the nine bytes of lzop")
    wide = int.from_bytes(data[at : at + 2], "big") >= _LZOP_WIDE
    # Version, the library's, the one that is needed, the method; then the level.
    at += 7 + wide
    flags = int.from_bytes(data[at : at + 4], "big")
    at += 8 if flags & _LZOP_FILTER else 4
    # Mode, the time's lower half and its upper one; then the name and a checksum.
    at += 8 + 4 * wide
    end = at + 1 + (data[at] if at < len(data) else 0) + 4
    if end > len(data):
        raise StreamError("breaks off inside its header")
    return flags, end


def _used(ended: bool, size: int, most: int, used: int) -> int:
    """The bytes of the stream.  Raises StreamError where it did not come to its end."""
    if not ended and size <= most:
        raise StreamError(f"breaks off after {size:#x} unpacked bytes")
    return used


def _missing(package: str, compression: str) -> MissingPart:
    return MissingPart(
        f"{package} is needed to unpack a {compression} stream: pip install 'tightrope[inspect]'"
    )


_DECODERS: Mapping[str, Callable[[memoryview, int], Pieces]] = MappingProxyType(
    {
        "gzip": _gzip,
        "bzip2": _bzip2,
        "lzma": _lzma,
        "xz": _xz,
        "lz4": _lz4,
        "lzo": _lzo,
        "zstd": _zstd,
    }
)
