"""The compressed kernel inside a bzImage: which compression, and unpacking it in bounded memory.

    payload_offset ->  +------------------------+
                       | compressed stream      |
                       +------------------------+
                       | unpacked size, 4 bytes |  little-endian; for gzip it is the stream's own end
                       +------------------------+  <- payload_offset + payload_length

Linux's build appends the size to every stream that does not end with it (scripts/Makefile.lib,
`size_append`); its decompressor reads it there (arch/x86/boot/compressed/mkpiggy.c).

Rules: never more bytes are unpacked than the appended size says, and never more than init_size: the
decompressor unpacks into that much memory (arch/x86/boot/header.S, INIT_SIZE).  Where a stream has
no checksum (lzma, lz4) a changed byte can go unseen, as it would in the kernel's own decompressor.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.abi import boot, elf
from tightrope.errors import ImageError, MissingPart
from tightrope.image import streams
from tightrope.model import Contents, Image

_SIZE_BYTES = 4
LARGEST = 1 << 30
"""Bytes that a payload may unpack to; the largest kernels have a tenth."""
PLAIN = "none"
"""The payload is an ELF file as it is."""


def compression_of(data: memoryview) -> str | None:
    """The compression of a payload that begins so, `PLAIN` for a bare ELF file; None when
    unknown."""
    plain = bytes(data[: len(elf.MAGIC)]) == elf.MAGIC
    return PLAIN if plain else streams.compression_of(data)


def unpack(image: Image) -> bytes:
    """The kernel inside: an ELF file, with relocations behind it where Linux needs them.

    Raises ImageError when there is no payload, or it does not unpack to the size at its end, or to
    no ELF file; MissingPart when its compression needs a package that is not installed.
    """
    return b"".join(_pieces(image))


def beginning(image: Image) -> bytes:
    """The first bytes of the kernel inside, some KiB; empty where they cannot be had."""
    try:
        return next(_pieces(image), b"")
    except (ImageError, MissingPart):
        return b""


def payload_contents(image: Image) -> Contents:
    """Whether the payload unpacks to what it promises; unpacked and dropped piece by piece."""
    payload = image.payload
    if payload is None:
        return Contents(what="no payload", untold="the image names none")
    what = f"the {payload.compression} payload"
    try:
        size = sum(len(piece) for piece in _pieces(image))
    except ImageError as err:
        where = "" if err.offset is None else f"{err.field} at offset {err.offset:#x}"
        return Contents(what=what, flaw=err.problem, where=where)
    except MissingPart as err:
        return Contents(what=what, untold=str(err))
    return Contents(what=f"{what}, an ELF file of {size:#x} bytes", size=size)


def _pieces(image: Image) -> Iterator[bytes]:
    """The kernel inside, piece by piece; raises as `unpack` does, at the latest behind the last."""
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

    if payload.compression == PLAIN:
        yield bytes(packed)
        return
    if len(packed) <= _SIZE_BYTES:
        raise refusal(f"{len(packed)} bytes are too few for a stream and its size")
    promised = int.from_bytes(packed[-_SIZE_BYTES:], "little")
    if not 0 < promised <= image.init_size:
        problem = f"promises {promised:#x} bytes, which is not within init_size"
        raise refusal(problem, image.init_size)
    if promised > LARGEST:
        raise refusal(f"promises {promised:#x} bytes, more than any kernel has", LARGEST)
    # A gzip stream ends with the size itself.
    packed = packed if payload.compression == "gzip" else packed[:-_SIZE_BYTES]
    stream = streams.Stream(payload.compression, packed, most=promised)
    head = b""
    try:
        for piece in stream:
            if stream.size > promised:
                problem = f"unpacks to more than the {promised:#x} bytes that it promises"
                raise refusal(problem)
            head += piece[: len(elf.MAGIC) - len(head)]
            yield piece
    except streams.StreamError as err:
        raise refusal(str(err)) from err
    if stream.used < len(packed):
        raise refusal(f"has {len(packed) - stream.used} unexplained bytes behind the stream")
    if stream.size != promised:
        raise refusal(f"unpacks to {stream.size:#x} bytes, but promises {promised:#x}")
    if head != elf.MAGIC:
        raise refusal(f"unpacks to no ELF file (it begins with {head.hex(' ')})")
