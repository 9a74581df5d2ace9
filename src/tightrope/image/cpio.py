"""Reading cpio archives as Linux does when it fills its first file system: is this one whole?

    archive := (zeros | entry)*        entry := header, 110 bytes | name, 0 | pad to 4 | data | pad to 4
    header  := "070701" or "070702", then 13 numbers of 8 hexadecimal digits

Sources: Linux Documentation/driver-api/early-userspace/buffer-format.rst for the layout;
init/initramfs.c (6.1 to 7.x) for what is made of bytes that do not follow it, and for its words,
which are quoted here.

The format and the kernel differ in one thing that matters: an archive that breaks off is no error
to the kernel where it is not compressed.  It keeps the files that it has, the last one cut off.
Here it is a flaw.

Rules: nothing is kept of what is read but counts; a piece of an archive may be as small as a byte.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

ALIGNMENT = 4
"""Bytes: an entry begins at a multiple, counted from the archive's first byte or its stream's."""
HEADER = 110
_MAGIC = 6
_NUMBERS = 13
_MODE, _FILE_SIZE, _NAME_SIZE, _CHECKSUM = 1, 6, 11, 12
"""Which of the header's numbers."""
_PATH_MAX = 4096
"""Bytes of a name with its zero; an entry with a longer one is passed over (initramfs.c,
do_header)."""
_KIND, _REGULAR, _SYMLINK = 0o170000, 0o100000, 0o120000
"""Of st_mode (stat(2))."""
_SLICE = 1 << 20
"""Bytes looked at in one go."""


class ArchiveError(Exception):
    """An archive that is not whole: the words say why; `says` is what the kernel says, if
    anything."""

    def __init__(self, problem: str, *, at: int, says: str = "") -> None:
        super().__init__(problem)
        self.at = at
        self.says = says


@dataclass
class Supply:
    """Bytes that come in pieces: how far a reader is, and what it may still have."""

    pieces: Iterator[bytes | memoryview]
    at: int = 0
    """Bytes read so far."""
    _left: memoryview = field(default_factory=lambda: memoryview(b""))

    @classmethod
    def of(cls, pieces: Iterable[bytes | memoryview], at: int = 0) -> Supply:
        """All bytes of the pieces; the first of them is number `at`."""
        return cls(pieces=iter(pieces), at=at)

    def ahead(self) -> memoryview:
        """What is there without unpacking more, at least a byte; empty at the end."""
        while not len(self._left):
            piece = next(self.pieces, None)
            if piece is None:
                break
            self._left = memoryview(piece)
        return self._left

    def upto(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes, piece by piece; fewer at the end."""
        while size and len(ahead := self.ahead()):
            piece = ahead[: min(size, _SLICE)]
            self._left = ahead[len(piece) :]
            self.at += len(piece)
            size -= len(piece)
            yield piece

    def take(self, size: int) -> bytes:
        """The next `size` bytes, or what is left of them."""
        return b"".join(self.upto(size))

    def drop(self, size: int) -> int:
        """Pass over the next bytes; how many there were."""
        return sum(len(piece) for piece in self.upto(size))

    def drop_zeros(self) -> None:
        """Pass over bytes of zero."""
        while len(ahead := self.ahead()[:_SLICE]):
            zeros = len(ahead) - len(bytes(ahead).lstrip(b"\0"))
            self.drop(zeros)
            if zeros < len(ahead):
                return


def read(supply: Supply, *, padded: bool, first: bool) -> int:
    """Read entries and zeros up to another byte or the end; how many entries there were.

    The supply's place counts from where alignment does.  `padded`: the last entry's padding has to
    be there, as at the end of a stream.  `first`: no archive came before, so zeros are no padding
    yet.  Raises ArchiveError.
    """
    entries = 0
    while len(ahead := supply.ahead()):
        if ahead[0] == 0 and (entries or not first):
            supply.drop_zeros()
            continue
        if ahead[0] != ord("0"):
            return entries
        if supply.at % ALIGNMENT:
            problem = f"an entry begins at {supply.at:#x}, which is not a multiple of {ALIGNMENT}"
            raise ArchiveError(problem, at=supply.at, says="broken padding")
        _entry(supply, padded=padded)
        entries += 1
    return entries


def _entry(supply: Supply, *, padded: bool) -> None:
    """Read one entry."""
    start = supply.at
    numbers, checked = _header(supply.take(HEADER), start)
    name_size, size = numbers[_NAME_SIZE], numbers[_FILE_SIZE]
    kind = numbers[_MODE] & _KIND
    named = 0 < name_size <= _PATH_MAX
    name = supply.take(name_size) if named else b""
    if (len(name) if named else supply.drop(name_size)) < name_size:
        raise _broken_off(supply, start)
    # Only the names that the kernel collects are looked at; it passes over all other entries.
    collected = named and (kind == _REGULAR or not size or (kind == _SYMLINK and size <= _PATH_MAX))
    if collected and name[-1]:
        problem = f"the name of the entry at {start:#x} does not end with a zero"
        raise ArchiveError(problem, at=start, says="malformed archive")
    supply.drop(-(HEADER + name_size) % ALIGNMENT)
    end = name.rstrip(b"\0") == b"TRAILER!!!"
    summed = checked and kind == _REGULAR and collected and not end
    read, total = 0, 0
    for piece in supply.upto(size):
        read += len(piece)
        total += _sum(piece) if summed else 0
    if read < size:
        raise _broken_off(supply, start)
    if summed and total & 0xFFFF_FFFF != numbers[_CHECKSUM]:
        problem = f"the bytes of {shown(name)} sum to {total & 0xFFFF_FFFF:#x}, not {numbers[_CHECKSUM]:#x}"
        raise ArchiveError(problem, at=start, says="bad data checksum")
    padding = -supply.at % ALIGNMENT
    if supply.drop(padding) < padding and padded:
        raise _broken_off(supply, start)


def _header(header: bytes, at: int) -> tuple[tuple[int, ...], bool]:
    """The numbers of a header, and whether there is a checksum among them."""
    magic = header[:_MAGIC]
    if magic not in (b"070701", b"070702"):
        if len(header) < _MAGIC:
            raise ArchiveError(f"breaks off inside the header at {at:#x}", at=at)
        old = magic == b"070707"
        says = "incorrect cpio method used: use -H newc option" if old else "no cpio magic"
        kind = "cpio's old format (odc)" if old else "no cpio header"
        raise ArchiveError(f"{kind} at {at:#x}: {shown(magic)}", at=at, says=says)
    if len(header) < HEADER:
        raise ArchiveError(f"breaks off inside the header at {at:#x}", at=at)
    try:
        numbers = struct.unpack(f">{_NUMBERS}I", binascii.unhexlify(header[_MAGIC:]))
    except binascii.Error as err:
        problem = f"the header at {at:#x} has characters that are not hexadecimal digits"
        raise ArchiveError(problem, at=at, says="damaged header") from err
    return numbers, magic == b"070702"


def _broken_off(supply: Supply, start: int) -> ArchiveError:
    return ArchiveError(f"breaks off at {supply.at:#x}, inside the entry at {start:#x}", at=start)


def _sum(piece: memoryview) -> int:
    import numpy as np

    return int(np.frombuffer(piece, np.uint8).sum(dtype=np.uint64))


def shown(raw: bytes) -> str:
    """Bytes as a reader can see them, without the zeros at their end."""
    return repr(raw.rstrip(b"\0").decode("utf-8", "backslashreplace"))
