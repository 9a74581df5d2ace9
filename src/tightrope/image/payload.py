"""The compressed kernel inside a bzImage: which compression, and unpacking it in bounded memory.

    payload_offset ->  +------------------------+
                       | compressed stream      |
                       +------------------------+
                       | unpacked size, 4 bytes |  little-endian; for gzip it is the stream's own end
                       +------------------------+  <- payload_offset + payload_length

Linux's build appends the size to every stream that does not end with it (scripts/Makefile.lib,
`size_append`); its decompressor reads it there (arch/x86/boot/compressed/mkpiggy.c).

Rules: never more bytes are unpacked than the appended size says, and never more than init_size: the
decompressor unpacks into that much memory (arch/x86/boot/header.S, INIT_SIZE).  lz4 and zstandard
are imported only when a payload needs them.  Where a stream has no checksum (lzma, lz4) a changed
byte can go unseen, as it would in the kernel's own decompressor.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Mapping
from types import MappingProxyType

from tightrope.abi import boot
from tightrope.errors import ImageError, MissingPart
from tightrope.model import Image

_MAGICS: Mapping[str, bytes] = MappingProxyType(
    {
        "gzip": b"\x1f\x8b",
        "bzip2": b"BZh",
        "lzma": b"\x5d\0\0",
        "xz": b"\xfd7zXZ\0",
        "lzo": b"\x89LZO",
        "lz4": b"\x02\x21\x4c\x18",
        "zstd": b"\x28\xb5\x2f\xfd",
        "none": b"\x7fELF",
    }
)
"""boot.rst, payload_offset; lzo from Linux lib/decompress.c.  "none" is an ELF file as it is."""

_LONGEST_MAGIC = max(len(magic) for magic in _MAGICS.values())
_SIZE_BYTES = 4

_LZMA_MEMORY = 512 << 20
"""Bytes a decoder may take.  Linux packs with dictionaries of up to 128 MiB (scripts/xz_wrap.sh)."""
_ZSTD_WINDOW = 128 << 20
"""Bytes; what `zstd -22 --ultra` asks for, which is how Linux packs (scripts/Makefile.lib)."""
_ZSTD_STEP = 1024
"""Bytes fed at a time.  A block of 4 bytes can mean 128 KiB: the overshoot is at most 32 MiB."""
_LZ4_BLOCK = 8 << 20
"""Bytes that one block of an LZ4 legacy frame unpacks to, at most (LZ4 Frame Format, "Legacy frame")."""
_LZ4_BLOCK_PACKED = _LZ4_BLOCK + _LZ4_BLOCK // 255 + 16
"""Bytes of such a block packed, at most (lz4.h, LZ4_COMPRESSBOUND)."""


class _WrongStreamError(Exception):
    """A compressed stream that does not unpack as promised; `unpack` says where it lies."""


def compression_of(data: memoryview) -> str | None:
    """The compression that `data` begins with, "none" for a bare ELF file; None when unknown."""
    head = bytes(data[:_LONGEST_MAGIC])
    return next((name for name, magic in _MAGICS.items() if head.startswith(magic)), None)


def unpack(image: Image) -> bytes:
    """The kernel inside: an ELF file, with relocations behind it where Linux needs them.

    Raises ImageError when there is no payload, or it does not unpack to the size at its end, or to no
    ELF file, or is lzo; MissingPart when its compression needs a package that is not installed.
    """
    payload = image.payload
    if payload is None:
        raise ImageError("names no payload, so there is nothing to unpack", source=image.source)
    packed = image.parts[0].data[payload.offset : payload.offset + payload.size]
    # A unified kernel image has its bzImage in a section: offsets count from that.
    inside = image.format != "bzImage"

    def refusal(problem: str, limit: int | None = None) -> ImageError:
        return ImageError(
            f"{payload.compression}: {problem}",
            source=image.source,
            field=".linux payload" if inside else "payload",
            offset=boot.setup_size(image.setup_header) + payload.offset,
            limit=limit,
        )

    if payload.compression == "none":
        return bytes(packed)
    if payload.compression not in _STREAMS:
        raise refusal("this compression is recognised, but not unpacked here")
    if len(packed) <= _SIZE_BYTES:
        raise refusal(f"{len(packed)} bytes are too few for a stream and its size")
    promised = int.from_bytes(packed[-_SIZE_BYTES:], "little")
    if not 0 < promised <= image.init_size:
        raise refusal(
            f"promises {promised:#x} bytes, which is not within init_size", image.init_size
        )
    stream = packed if payload.compression == "gzip" else packed[:-_SIZE_BYTES]
    try:
        unpacked = _STREAMS[payload.compression](stream, promised)
    except _WrongStreamError as err:
        raise refusal(str(err)) from err
    if len(unpacked) != promised:
        raise refusal(f"unpacks to {len(unpacked):#x} bytes, but promises {promised:#x}")
    if not unpacked.startswith(_MAGICS["none"]):
        raise refusal(f"unpacks to no ELF file (it begins with {unpacked[:4].hex(' ')})")
    return unpacked


# ------------------------- one function a compression: (stream, promised size in bytes) -> the bytes
#
# Each asks for one byte more than promised, so that a stream which holds more is seen to.


def _gzip(stream: memoryview, promised: int) -> bytes:
    decoder = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        unpacked = decoder.decompress(stream, promised + 1)
    except zlib.error as err:
        raise _WrongStreamError(f"is corrupt: {err}") from err
    _ended(decoder.eof, len(unpacked), promised, len(decoder.unused_data))
    return unpacked


def _bzip2(stream: memoryview, promised: int) -> bytes:
    decoder = bz2.BZ2Decompressor()
    try:
        unpacked = decoder.decompress(stream, promised + 1)
    except OSError as err:
        raise _WrongStreamError(f"is corrupt: {err}") from err
    _ended(decoder.eof, len(unpacked), promised, len(decoder.unused_data))
    return unpacked


def _xz(stream: memoryview, promised: int) -> bytes:
    return _liblzma(stream, promised, lzma.FORMAT_XZ)


def _lzma(stream: memoryview, promised: int) -> bytes:
    return _liblzma(stream, promised, lzma.FORMAT_ALONE)


def _liblzma(stream: memoryview, promised: int, container: int) -> bytes:
    decoder = lzma.LZMADecompressor(format=container, memlimit=_LZMA_MEMORY)
    try:
        unpacked = decoder.decompress(stream, promised + 1)
    except lzma.LZMAError as err:
        raise _WrongStreamError(f"is corrupt: {err}") from err
    _ended(decoder.eof, len(unpacked), promised, len(decoder.unused_data))
    return unpacked


def _zstd(stream: memoryview, promised: int) -> bytes:
    try:
        import zstandard
    except ImportError as err:
        raise _missing("zstandard", "zstd") from err
    decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()
    pieces: list[bytes] = []
    size = fed = 0
    while fed < len(stream) and size <= promised and not decoder.eof:
        try:
            pieces.append(decoder.decompress(stream[fed : fed + _ZSTD_STEP]))
        except zstandard.ZstdError as err:
            raise _WrongStreamError(f"is corrupt: {err}") from err
        size += len(pieces[-1])
        fed = min(fed + _ZSTD_STEP, len(stream))
    _ended(decoder.eof, size, promised, len(decoder.unused_data) + len(stream) - fed)
    return b"".join(pieces)


def _lz4(stream: memoryview, promised: int) -> bytes:
    """Unwrap an LZ4 legacy frame: magic, then blocks, each its packed size (4 bytes) and its bytes."""
    try:
        import lz4.block
    except ImportError as err:
        raise _missing("lz4", "lz4") from err
    pieces: list[bytes] = []
    size, at = 0, len(_MAGICS["lz4"])
    while at < len(stream):
        packed = int.from_bytes(stream[at : at + 4], "little")
        block = stream[at + 4 : at + 4 + packed]
        if not 0 < packed <= _LZ4_BLOCK_PACKED or len(block) < packed:
            raise _WrongStreamError(
                f"is corrupt: a block of {packed:#x} bytes at {at:#x} of the stream"
            )
        room = min(_LZ4_BLOCK, promised - size)
        if not room:
            _ended(True, size, promised, len(stream) - at)
        try:
            pieces.append(lz4.block.decompress(block, uncompressed_size=room))
        except lz4.block.LZ4BlockError as err:
            raise _WrongStreamError(
                f"is corrupt, or unpacks to more than its end promises: {err}"
            ) from err
        size += len(pieces[-1])
        at += 4 + packed
    return b"".join(pieces)


def _ended(ended: bool, size: int, promised: int, behind: int) -> None:
    """Raise _WrongStreamError unless a stream came to its end, and to that of its bytes."""
    if size > promised:
        raise _WrongStreamError(f"unpacks to more than the {promised:#x} bytes that it promises")
    if not ended:
        raise _WrongStreamError(f"breaks off after {size:#x} unpacked bytes")
    if behind:
        raise _WrongStreamError(f"has {behind} unexplained bytes behind the stream")


def _missing(package: str, compression: str) -> MissingPart:
    return MissingPart(
        f"{package} is needed to unpack a {compression} payload: pip install 'tightrope[inspect]'"
    )


_STREAMS: Mapping[str, Callable[[memoryview, int], bytes]] = MappingProxyType(
    {"gzip": _gzip, "bzip2": _bzip2, "lzma": _lzma, "xz": _xz, "lz4": _lz4, "zstd": _zstd}
)
