"""Whether a bzImage's bytes are those that were built, as far as the file itself can tell.

    checksum    the last word of the kernel is the CRC-32 of all before it: 2.08 to Linux 6.14
    signature   a signed kernel's certificates hold the digest of what was signed

A flipped bit of a payload that has no checksum of its own (lz4, lzma) is seen here and nowhere
else: the kernel's decompressor takes it.  Signing writes into two fields of the PE header after
the kernel was built and both leave them out: the checksum is made while they are zero, the digest
skips them.

Rules: no certificate is verified, and which algorithm signed is not asked: a digest of the file
stands in the certificates or it does not.  Sources: boot.rst, "The Image Checksum", and Linux
arch/x86/boot/tools/build.c, which wrote it until 6.14; Microsoft "Windows Authenticode Portable
Executable Signature Format", "Calculating the PE Image Hash".
"""

from __future__ import annotations

import re
import zlib
from itertools import pairwise

from tightrope.abi import boot
from tightrope.image.certificates import certificate_table, signed_fields
from tightrope.memory import Extent
from tightrope.model import Contents, Image

WITHOUT_CHECKSUM = (6, 15)
"""The first Linux that ends without one."""
_SINCE = 0x0208
_REST = 0xFFFF_FFFF
"""What zlib's CRC-32 gives for a kernel with its checksum: boot.rst's, which is 0, complemented."""
_DIGESTS = ("sha256", "sha1", "sha384", "sha512")
_WORD = 4


def kernel_unchanged(image: Image) -> Contents | None:
    """Whether the file is as it was built, or signed; None where it says nothing of itself."""
    whole = image.file
    if whole is None:
        return None
    end = boot.setup_size(image.setup_header) + _syssize(image)
    if _has_checksum(image, whole, end):
        where = f"the last {_WORD} bytes of the kernel, at offset {end - _WORD:#x}"
        return _answer("checksum", _checksum_fits(whole, end), where)
    table = certificate_table(whole)
    if table is None or table.end > len(whole):
        return None
    where = f"the certificates at offset {table.start:#x}"
    return _answer("signature", _is_signed(whole, table), where)


def _answer(what: str, fits: bool, where: str) -> Contents:
    if fits:
        return Contents(what=f"the kernel's file, by its {what}")
    return Contents(what="the kernel's file", flaw=f"its own {what} is of other bytes", where=where)


def _syssize(image: Image) -> int:
    header = image.setup_header
    at = boot.field("syssize").offset - boot.SETUP_HEADER
    return int.from_bytes(header[at : at + 4], "little") * boot.PARAGRAPH


def _has_checksum(image: Image, whole: memoryview, end: int) -> bool:
    """Old enough by its own version, and the word at its end is not empty, as a later kernel's
    is."""
    release = re.match(r"(\d{1,4})\.(\d{1,4})\b", image.version or "", re.ASCII)
    if release is None or image.protocol < _SINCE or not any(whole[end - _WORD : end]):
        return False
    return (int(release[1]), int(release[2])) < WITHOUT_CHECKSUM


def _checksum_fits(whole: memoryview, end: int) -> bool:
    crc = 0
    at = 0
    for field in signed_fields(whole):
        crc = zlib.crc32(bytes(field.size), zlib.crc32(whole[at : field.start], crc))
        at = field.end
    return zlib.crc32(whole[at:end], crc) == _REST


def _is_signed(whole: memoryview, table: Extent) -> bool:
    """Whether the certificates hold a digest of what lies before them."""
    import hashlib  # it loads OpenSSL, and only signed kernels want it

    certificates = bytes(whole[table.start : table.end])
    skipped = signed_fields(whole)
    edges = [0, *(edge for field in skipped for edge in (field.start, field.end)), table.start]
    kept = [whole[start:end] for start, end in list(pairwise(edges))[::2]]
    for name in _DIGESTS:
        digest = hashlib.new(name, usedforsecurity=False)
        for piece in kept:
            digest.update(piece)
        if digest.digest() in certificates:
            return True
    return False
