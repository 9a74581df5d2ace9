"""What do these bytes look like?  Answers in words, for people who passed the wrong file.

Rules: only the first bytes are looked at, and nothing is refused here: `read` refuses, with the
words of this file.  A guess is worded as one.
"""

from __future__ import annotations

from tightrope.abi import boot
from tightrope.errors import MissingPart
from tightrope.image.certificates import pe_header
from tightrope.image.streams import Stream, StreamError, compression_of

WANTED = "a bzImage, an ELF vmlinux, a Multiboot kernel or a unified kernel image is wanted"
_SHORTEST = 2 * boot.SECTOR
"""A bzImage has a boot sector and at least one sector of setup (kexec-bzimage64.c asks the
same)."""
_ARCHIVES = (b"070701", b"070702", b"070707")
_OLD_ARCHIVE = b"\xc7\x71"
"""newc, crc, odc; the binary one (cpio(5))."""


def has_linux_header(data: memoryview) -> bool:
    """The letters "HdrS" are where boot.rst has them; all else about the header may be wrong."""
    at = boot.field("header")
    return len(data) >= at.end and at.read(data) == boot.HEADER_MAGIC


def looks_like(data: memoryview) -> str:
    """One clause about bytes that no reader here knows, and what to do about it."""
    if not len(data):
        return f"an empty file; {WANTED}"
    if pe_header(data) is not None:
        return f"a PE file without a Linux setup header or a .linux section{_cut(data)}"
    if _is_archive(data):
        return "an initrd (a cpio archive) and no kernel: it is given with --initrd"
    compression = compression_of(data)
    if compression is not None:
        if _is_archive(_begins(compression, data)):
            what = f"an initrd ({compression}, a cpio archive in it)"
            return f"{what} and no kernel: it is given with --initrd"
        return f"a file packed with {compression}: unpack it first"
    if len(data) >= boot.SECTOR and boot.field("boot_flag").read(data) == boot.BOOT_FLAG:
        return f"a boot sector without a Linux setup header, such as a disk image{_cut(data)}"
    head = bytes(data[: boot.SECTOR])
    if not any(head):
        return f"nothing but zeros where a kernel would begin; {WANTED}"
    if is_text(head):
        return f"a text file; {WANTED}"
    return f"no kernel image that is known here (it begins with {head[:8].hex(' ')}); {WANTED}"


def _is_archive(data: memoryview) -> bool:
    """A cpio archive begins here, of a kind that Linux unpacks or not."""
    return bytes(data[:6]) in _ARCHIVES or bytes(data[:2]) == _OLD_ARCHIVE


def _begins(compression: str, data: memoryview) -> memoryview:
    """The first bytes that come out of a stream; nothing where none do."""
    try:
        return memoryview(next(iter(Stream(compression, data, most=boot.SECTOR)), b""))
    except (StreamError, MissingPart):
        return memoryview(b"")


def is_text(head: bytes) -> bool:
    """The bytes are printable ASCII and white space."""
    return all(32 <= byte < 127 or byte in b"\t\n\f\r" for byte in head)


def _cut(data: memoryview) -> str:
    return f", or a kernel cut off after {len(data)} bytes" if len(data) < _SHORTEST else ""
