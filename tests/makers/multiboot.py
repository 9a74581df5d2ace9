"""A maker of Multiboot headers, for the tests of every room.

Written from the Multiboot Specification 0.6.96 (section 3.1) and the Multiboot2 Specification 2.0
(section 3.1): it shares no number with `tightrope.abi.multiboot`.

Use `header1()` and `header2(tag(...), ...)` inside a segment of `tests.makers.elf`, or `flat_kernel()`
for a file that is no ELF file and gives its own addresses.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

BASE = 0x100000
CODE = b"\xf4\xeb\xfd\x90"

REQUEST, ADDRESS, ENTRY, CONSOLE, FRAMEBUFFER, MODULES, EFI, EFI_I386, EFI_AMD64, RELOCATABLE = (
    range(1, 11)
)
"""Types of Multiboot2 header tags."""


def header1(flags: int = 3, addresses: Sequence[int] = ()) -> bytes:
    """A Multiboot header: `addresses` are header, load, load end, bss end, entry."""
    magic = 0x1BADB002
    return struct.pack(
        f"<{3 + len(addresses)}I", magic, flags, -(magic + flags) % (1 << 32), *addresses
    )


def tag(kind: int, *words: int, optional: bool = False, size: int | None = None) -> bytes:
    """A header tag of 32-bit words, padded to 8 bytes; `size` lies about its size."""
    true_size = 8 + 4 * len(words)
    head = struct.pack("<HHI", kind, int(optional), true_size if size is None else size)
    body = struct.pack(f"<{len(words)}I", *words)
    return (head + body).ljust((true_size + 7) & ~7, b"\0")


def header2(*tags: bytes, architecture: int = 0, end: bool = True) -> bytes:
    """A Multiboot2 header with the tags and, unless told otherwise, the end tag."""
    body = b"".join(tags) + (tag(0) if end else b"")
    magic, length = 0xE85250D6, 16 + len(body)
    checksum = -(magic + architecture + length) % (1 << 32)
    return struct.pack("<IIII", magic, architecture, length, checksum) + body


def flat_kernel(
    *,
    version: int = 1,
    before: int = 64,
    load: int = BASE,
    more: bytes = bytes(range(200)),
    bss: int = 0x3000,
    load_end: int | None = None,
    entry: int | None = None,
) -> bytes:
    """A file that is no ELF file: `before` bytes of rubbish, CODE, the header, `more`.

    It is loaded at `load` from CODE on; `bss` is the size in memory, 0 for no bss.
    """
    header_addr = load + len(CODE) + 4
    tail = load_end if load_end is not None else 0
    end = load + bss if bss else 0
    start = load if entry is None else entry
    if version == 1:
        header = header1(0x10003, (header_addr, load, tail, end, start))
    else:
        header = header2(tag(ADDRESS, header_addr, load, tail, end), tag(ENTRY, start))
    return b"\xcc" * before + CODE + bytes(4) + header + more
