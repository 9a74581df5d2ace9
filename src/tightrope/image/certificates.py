"""Where a PE file keeps its certificates: what a signed kernel carries behind its last byte.

Source of every number: Microsoft "PE Format", sections "MS-DOS Stub", "COFF File Header", "Optional
Header" and "The Attribute Certificate Table".  A bzImage with an EFI stub is a PE file too, and
signing appends the table and enters it into the header.

Rules: only the way to the table is read here; no signature is verified, and nothing is refused.
"""

from __future__ import annotations

from tightrope.memory import Extent

ALIGNMENT = 8
"""The table begins at a multiple of this; a signer pads the file with zeros up to it."""

_PE_OFFSET = 0x3C
_OPTIONAL_HEADER = 4 + 20
"""From the letters "PE": the signature and the COFF header come first."""
_COUNT_AND_DIRECTORIES = {0x10B: (92, 96), 0x20B: (108, 112)}
"""By the optional header's magic (PE32, PE32+): offsets of NumberOfRvaAndSizes and of the
directories."""
_CHECKSUM = Extent.sized(64, 4)
"""CheckSum of the optional header, at the same place in both."""
_CERTIFICATE_TABLE = 4
"""Its place among the directories; the only one whose address is a file offset."""


def pe_header(data: memoryview) -> int | None:
    """The offset of the letters "PE", None when this is no PE file."""
    if bytes(data[:2]) != b"MZ":
        return None
    at = _u32(data, _PE_OFFSET)
    return at if at is not None and bytes(data[at : at + 4]) == b"PE\0\0" else None


def certificate_table(data: memoryview) -> Extent | None:
    """The file offsets that the header gives the certificate table, be they in the file or not.

    None when this is no PE file, or one that is not signed.
    """
    fields = signed_fields(data)
    if not fields:
        return None
    entry = fields[-1].start
    start, size = _u32(data, entry), _u32(data, entry + 4)
    if start is None or not size:
        return None
    return Extent.sized(start, size)


def signed_fields(data: memoryview) -> tuple[Extent, ...]:
    """What a signer writes into the header, in order: the file's checksum, where the certificates
    lie.

    Empty when this is no PE file, or one that has no place for certificates.
    """
    pe = pe_header(data)
    if pe is None:
        return ()
    optional = pe + _OPTIONAL_HEADER
    magic = int.from_bytes(data[optional : optional + 2], "little")
    if magic not in _COUNT_AND_DIRECTORIES:
        return ()
    count_at, directories = _COUNT_AND_DIRECTORIES[magic]
    count = _u32(data, optional + count_at)
    if count is None or count <= _CERTIFICATE_TABLE:
        return ()
    checksum = Extent.sized(optional + _CHECKSUM.start, _CHECKSUM.size)
    return checksum, Extent.sized(optional + directories + 8 * _CERTIFICATE_TABLE, 8)


def _u32(data: memoryview, at: int) -> int | None:
    return int.from_bytes(data[at : at + 4], "little") if at + 4 <= len(data) else None
