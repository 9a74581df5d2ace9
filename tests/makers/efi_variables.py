"""Variables of an EFI firmware, put into a store that has none yet: what `db` says its owner trusts.

    firmware volume header | store header | (header, name, data)* | erased flash, 0xff

Rules: bytes in, bytes out; the store that is given is one that Debian's ovmf ships, without a `db`.
Source: MdeModulePkg/Include/Guid/VariableFormat.h of edk2 (AUTHENTICATED_VARIABLE_HEADER); UEFI 2.10, 32.4.1
(EFI_SIGNATURE_LIST).
"""

from __future__ import annotations

import struct
from uuid import UUID

VOLUME, STORE = 0x48, 28
"""Bytes of the two headers."""
HEADER = struct.Struct("<HBBIQ16sIII16s")
START, ADDED, ERASED = 0x55AA, 0x3F, 0xFFFF
AUTHENTICATED = 0x27
"""Kept over a reset, for boot services and at run time, written by whoever signs with a later time."""
DATABASE = UUID("d719b2cb-3d3a-4596-a3bc-dad00e67656f")
X509 = UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
OWNER = UUID("5a1b0c3e-3f1c-4c8f-9a4e-2d7f0d4c9e11")


def with_trusted(store: bytes, certificate: bytes) -> bytes:
    """A variable store whose `db` has one certificate, in DER."""
    row = OWNER.bytes_le + certificate
    data = X509.bytes_le + struct.pack("<III", 28 + len(row), 0, len(row)) + row
    return with_variable(store, "db", DATABASE, data)


def with_variable(store: bytes, name: str, vendor: UUID, data: bytes) -> bytes:
    """A variable store with another variable behind those that it has."""
    at = VOLUME + STORE
    while (head := HEADER.unpack_from(store, at))[0] == START:
        at += HEADER.size + head[7] + head[8]
        at += -at % 4
    assert head[0] == ERASED
    said = name.encode("utf-16-le") + b"\0\0"
    row = HEADER.pack(
        START, ADDED, 0, AUTHENTICATED, 0, bytes(16), 0, len(said), len(data), vendor.bytes_le
    )
    new = row + said + data
    return store[:at] + new + store[at + len(new) :]
