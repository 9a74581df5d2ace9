"""A maker of cpio archives, as Linux's Documentation/driver-api/early-userspace/buffer-format.rst has them.

header   "070701" (or "070702", with a sum of the data), 13 numbers of 8 hexadecimal digits
name     with a zero, then zeros up to a multiple of 4
data     then zeros up to a multiple of 4
"""

from __future__ import annotations

from collections.abc import Mapping

REGULAR, DIRECTORY, SYMLINK = 0o100644, 0o040755, 0o120777


def entry(
    name: str,
    data: bytes = b"",
    *,
    mode: int = REGULAR,
    magic: bytes = b"070701",
    name_size: int | None = None,
    size: int | None = None,
    checksum: int | None = None,
) -> bytes:
    """One entry, good unless the keywords make it bad."""
    raw = name.encode() + b"\0"
    if checksum is None:
        checksum = sum(data) & 0xFFFF_FFFF if magic == b"070702" else 0
    numbers = [
        721,
        mode,
        0,
        0,
        1,
        0,
        len(data) if size is None else size,
        8,
        1,
        0,
        0,
        len(raw) if name_size is None else name_size,
        checksum,
    ]
    header = magic + b"".join(b"%08x" % number for number in numbers)
    named = header + raw
    return pad(pad(named) + data)


def pad(data: bytes, to: int = 4) -> bytes:
    """Zeros up to a multiple."""
    return data + bytes(-len(data) % to)


TRAILER = entry("TRAILER!!!", mode=0)


def archive(files: Mapping[str, bytes] | None = None, *, magic: bytes = b"070701") -> bytes:
    """A whole archive: a directory, a symbolic link, the files, and the entry that ends it."""
    files = {"init": b"#!/bin/sh\n"} if files is None else files
    made = [entry("etc", mode=DIRECTORY, magic=magic), entry("etc/rc", b"../init", mode=SYMLINK)]
    made += [entry(name, data, magic=magic) for name, data in files.items()]
    return b"".join(made) + TRAILER


def initrd(size: int, body: bytes | None = None) -> bytes:
    """An initrd of just `size` bytes, a multiple of 4, no two pages alike; `body` is what its file repeats."""
    empty = len(archive({"body": b""}))
    wanted = size - empty
    if wanted < 0 or wanted % 4:
        raise ValueError(f"{size} bytes are too few, or no multiple of 4")
    if body is None:
        body = b"".join(number.to_bytes(8, "little") for number in range(wanted // 8 + 1))
    return archive({"body": (body * (wanted // len(body) + 1))[:wanted]})
