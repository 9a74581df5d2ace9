"""Whether an initrd is what Linux unpacks: archives, compressed or not, one after the other.

    initramfs := (zeros | cpio archive | compressed cpio archive)*      (buffer-format.rst)

        | early microcode, a bare archive | zeros | archive, compressed | ...

What Linux does with other bytes (init/initramfs.c): it says "Initramfs unpacking failed: ...",
keeps the
files that it has, and goes on without an /init; or, where it was built with CONFIG_BLK_DEV_RAM=y, takes
the whole for an initrd of the old kind, the image of a file system, and panics later where it is
none.  Since nobody who hands over an initrd wants either, bytes that are none of these are a
flaw.  Where they are the image of a file system it cannot be told: that kernel might mount it.

Which compressions a kernel was built with (CONFIG_RD_GZIP and its like) is not asked: all are
taken.

Rules: bytes in, `Contents` out; the bytes are walked once and nothing of them is kept.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.abi import elf
from tightrope.errors import MissingPart
from tightrope.image import cpio, recognise, streams
from tightrope.model import Buffer, Contents

LARGEST = 1 << 30
"""Bytes that all compressed archives together may unpack to; beyond it nothing is told."""
_FILE_SYSTEMS = (
    ("squashfs", 0, b"hsqs"),
    ("romfs", 0, b"-rom1fs-"),
    ("cramfs", 0, b"\x45\x3d\xcd\x28"),
    ("EROFS", 0x400, b"\xe2\xe1\xf5\xe0"),
    ("ext2", 0x438, b"\x53\xef"),
    ("minix", 0x410, b"\x7f\x13"),
    ("minix", 0x410, b"\x8f\x13"),
    ("minix", 0x410, b"\x68\x24"),
    ("minix", 0x410, b"\x78\x24"),
)
"""Magic numbers and their places: what init/do_mounts_rd.c looks for (identify_ramdisk_image;
EROFS: init/initramfs.c), in include/uapi/linux/magic.h."""
_OTHERS = (
    (b"\x04\x22\x4d\x18", "an LZ4 frame: Linux unpacks LZ4's legacy frames alone (lz4 -l)"),
    (
        b"\xc7\x71",
        "a cpio archive in its old binary format: cpio -H newc makes the one that Linux reads",
    ),
    (b"PK\x03\x04", "a zip archive"),
    (b"\x50\x2a\x4d\x18", "a skippable frame of zstd, which Linux does not skip"),
    (b"!<arch>\n", "an ar archive, as a Debian package is"),
    (b"\x27\x05\x19\x56", "a U-Boot image (uImage): what is inside it is wanted"),
    (b"LUKS\xba\xbe", "an encrypted disk (LUKS)"),
)
_TAR = 0x101
"""Offset of the magic in a tar header (POSIX pax, ustar)."""
_XZ_CHECK = 7
"""Offset of the byte in an xz stream's header that names its check (The .xz File Format,
2.1.1.2)."""
_XZ_CHECKS = frozenset({0, 1})
"""None and CRC32: Linux refuses every other one (lib/xz/xz_dec_stream.c, dec_stream_header)."""
_XZ_BLOCK = 12
"""Offset of the first block's header in an xz stream (2.1.1)."""
_XZ_BCJ = range(0x04, 0x0C)
"""Filters for the code of one CPU or another, the x86 one first (5.3.2)."""


class _Untold(Exception):
    """It cannot be told whether the initrd is whole."""


class _Flaw(Exception):
    def __init__(self, problem: str, *, where: str = "", says: str = "") -> None:
        super().__init__(problem)
        self.where = where
        self.says = says


def initrd_contents(data: Buffer) -> Contents:
    """Whether Linux unpacks these bytes to their end."""
    seen: list[str] = []
    size = 0
    try:
        for member, unpacked in _members(memoryview(data).cast("B")):
            seen.append(member)
            size += unpacked
    except _Untold as answer:
        return Contents(what=_listed(seen), untold=str(answer))
    except _Flaw as answer:
        return Contents(what=_listed(seen), flaw=str(answer), where=answer.where, says=answer.says)
    if not seen:
        flaw = f"holds no archive: {len(data):#x} bytes of zeros and nothing else"
        return Contents(what=_listed(seen), flaw=flaw)
    return Contents(what=_listed(seen), size=size)


def _listed(seen: list[str]) -> str:
    return "the initrd" + (f", {', then '.join(seen)}" if seen else "")


def _members(data: memoryview) -> Iterator[tuple[str, int]]:
    """Walk the archives one by one: what each was, and its bytes unpacked.  Raises _Untold and
    _Flaw."""
    at = zeros = 0
    left, first, bare = LARGEST, True, False
    while at < len(data):
        supply = cpio.Supply.of([data[at:]], at)
        if data[at] == 0:
            supply.drop_zeros()
            zeros, at = at, supply.at
            continue
        if data[at] == ord("0") and at % cpio.ALIGNMENT == 0:
            entries = _archive(supply, f"the archive at {at:#x}")
            yield _counted(entries), supply.at - at
            zeros = at = supply.at
            first, bare = False, True
            continue
        compression = streams.compression_of(data[at:])
        if compression is None:
            raise _unknown(data, at, zeros, bare=bare)
        used, unpacked, entries = _compressed(data[at:], compression, at, left, first=first)
        first = bare = False
        yield f"{_counted(entries)} ({compression})", unpacked
        left -= unpacked
        at += used
        zeros = at


def _counted(entries: int) -> str:
    return f"a cpio archive of {entries} {'entry' if entries == 1 else 'entries'}"


def _archive(supply: cpio.Supply, where: str) -> int:
    try:
        return cpio.read(supply, padded=False, first=True)
    except cpio.ArchiveError as err:
        raise _Flaw(f"{where}: {err}", where=where, says=err.says) from err


def _compressed(
    data: memoryview, compression: str, at: int, left: int, *, first: bool
) -> tuple[int, int, int]:
    """Unpack the stream that the data begins with: bytes of the stream, bytes unpacked, entries."""
    where = f"the {compression} stream at {at:#x}"
    if compression == "xz" and (unknown := _unknown_to_linux(data)):
        says = "Input was encoded with settings that are not supported by this XZ decoder"
        raise _Flaw(f"{where} has {unknown}", where=where, says=says)
    stream = streams.Stream(compression, data, most=left)
    supply = cpio.Supply.of(stream)
    head = b""
    try:
        head = bytes(supply.ahead()[:2048])
        entries = cpio.read(supply, padded=True, first=first)
        over = supply.ahead()
    except cpio.ArchiveError as err:
        _enough(stream.size, left)
        _mountable(head)
        raise _Flaw(f"{where} unpacks, and then: {err}", where=where, says=err.says) from err
    except streams.StreamError as err:
        raise _Flaw(f"{where} {err}", where=where) from err
    except MissingPart as err:
        raise _Untold(str(err)) from err
    _enough(stream.size, left)
    if len(over) or (not entries and first):
        _mountable(head)
        found = cpio.shown(head[:6]) if head else "nothing"
        problem = f"{where} unpacks to no cpio archive (it begins with {found})"
        if entries:
            problem = f"{where} unpacks to a cpio archive and {len(over):#x} bytes or more of something else"
        says = "junk within compressed archive" if entries else "no cpio magic"
        raise _Flaw(problem, where=where, says=says)
    return stream.used, stream.size, entries


def _unknown_to_linux(data: memoryview) -> str:
    """What an xz stream was packed with that Linux does not unpack; empty where there is nothing.

    A block is LZMA2, after at most one filter for machine code that begins at its first byte
    (lib/xz/xz_dec_stream.c, dec_block_header).  All blocks of a stream have the first one's
    filters, as every packer writes it.
    """
    if len(data) > _XZ_CHECK and data[_XZ_CHECK] not in _XZ_CHECKS:
        return "a check that Linux does not know: it wants xz --check=crc32"
    head = bytes(data[_XZ_BLOCK : _XZ_BLOCK + 32]).ljust(32, b"\0")
    if not head[0] or not head[1] & 3:
        return ""
    at = 2
    for _ in range((head[1] >> 6 & 1) + (head[1] >> 7)):  # the sizes, 7 bits a byte (1.2)
        at += 1 + next((n for n in range(9) if not head[at + n] & 0x80), 9)
    if head[1] & 3 > 1 or head[at] not in _XZ_BCJ or head[at + 1]:
        return "filters that Linux does not know: it wants --lzma2 alone, or one --x86 before it"
    return ""


def _enough(size: int, left: int) -> None:
    """Raise _Untold where the limit is why a stream stopped."""
    if size >= left:
        raise _Untold(f"it unpacks to more than {LARGEST:#x} bytes, and no more are looked at")


def _unknown(data: memoryview, at: int, zeros: int, *, bare: bool) -> Exception:
    """What to answer where bytes are that begin nothing.

    `zeros` is where the zeros before them begin; `bare`: a bare archive came before those.
    """
    for start in {at, zeros}:
        try:
            _mountable(bytes(data[start : start + 2048]))
        except _Untold as answer:
            return answer
    rest = data[at:]
    head = bytes(rest[:16])
    unaligned = bare and at % cpio.ALIGNMENT
    says = "broken padding" if unaligned else "invalid magic at start of compressed archive"
    known = next((words for magic, words in _OTHERS if head.startswith(magic)), None)
    if known is None and head[0] == ord("0"):
        known = f"an archive that does not begin at a multiple of {cpio.ALIGNMENT}"
    if known is None:
        known = _name(rest)
    return _Flaw(f"{known}, where an archive has to begin", where=f"at {at:#x}", says=says)


def _name(data: memoryview) -> str:
    """What bytes look like that somebody took for an initrd."""
    head = bytes(data[:256])
    if recognise.has_linux_header(data):
        return "a Linux kernel"
    if head.startswith(elf.MAGIC):
        return "an ELF file"
    if head.startswith(b"MZ"):
        return "a program for EFI (PE), as a unified kernel image is"
    if bytes(data[_TAR : _TAR + 5]) == b"ustar":
        return "a tar archive: cpio -H newc makes what Linux reads"
    if recognise.is_text(head):
        return "a text file"
    return f"bytes that begin no archive ({head[:6].hex(' ')})"


def _mountable(head: bytes) -> None:
    """Raise _Untold where the bytes begin a file system that Linux may take for an initrd."""
    for name, place, magic in _FILE_SYSTEMS:
        if head[place : place + len(magic)] == magic:
            raise _Untold(
                f"it looks like the image of a file system ({name}): "
                "only some kernels mount one (CONFIG_BLK_DEV_RAM=y, or CONFIG_INITRD_EROFS)"
            )
