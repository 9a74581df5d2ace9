"""Who signed a kernel image: the Authenticode signature behind its PE file, as Linux reads it.

    MZ ... PE header ---- directory entry 4 ----> WIN_CERTIFICATE --> PKCS#7 SignedData
                                                                       |- the image's digest
                                                                       |- certificates: subject, key identifiers
    /proc/keys: "Debian Secure Boot CA: 6ccece7e...: X509.rsa"  --the same identifier?--> trusted

Sources: Microsoft's PE/COFF specification and "Windows Authenticode Portable Executable Signature
Format"; RFC 2315, RFC 5280; crypto/asymmetric_keys/{verify_pefile,pkcs7_trust,x509_public_key}.c
for what is compared with what: a certificate of the message is a key itself, or its authority is.

Rules: bytes to a value; what cannot be read is said in the value.  The RSA signature itself is not
verified: a key that the kernel lacks and a digest that is wrong are what happens in practice.  Only
the standard library: this runs in an initramfs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Read = Callable[[int, int], bytes]
"""(bytes, offset) -> so many bytes of the image from there, fewer at its end: `os.pread` of a descriptor."""

PE32, PE32_PLUS = 0x10B, 0x20B
DIRECTORY = {PE32: 128, PE32_PLUS: 144}
"""Where the certificate table's entry lies in the optional header; the check sum is at 64 in
both."""
CHECKSUM = 64
PKCS7 = 2
"""WIN_CERT_TYPE_PKCS_SIGNED_DATA."""
MOST = 1 << 16
"""Bytes of a certificate table that are read; Debian's have 1,472."""
BLOCK = 1 << 20

SEQUENCE, SET, OCTETS, OBJECT, INTEGER = 0x30, 0x31, 4, 6, 2
FIELD_0, FIELD_3, PLAIN_0 = 0xA0, 0xA3, 0x80
"""Context-specific tags: [0] and [3] constructed, [0] primitive."""
COMMON_NAME = bytes.fromhex("550403")
SUBJECT_KEY, AUTHORITY_KEY = bytes.fromhex("551d0e"), bytes.fromhex("551d23")
HASHES = {
    bytes.fromhex("2b0e03021a"): "sha1",
    bytes.fromhex("608648016503040201"): "sha256",
    bytes.fromhex("608648016503040202"): "sha384",
    bytes.fromhex("608648016503040203"): "sha512",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Certificate:
    """One of the message's.  Identifiers are lower-case hexadecimal, as /proc/keys has them."""

    subject: str
    """Its common name, "" without one."""
    issuer: str
    key: str
    """The subject key identifier, or the serial number: what Linux names the key by."""
    authority: str
    """The identifier of the key that signed it, "" where it does not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Signature:
    """What stands in a certificate table."""

    certificates: tuple[Certificate, ...]
    digest_right: bool | None
    """Whether the image is still what was signed; None where its hash is unknown here."""
    problem: str
    """Why it cannot be read, "" where it can."""

    def trusted_by(self, keys: frozenset[str]) -> bool:
        """Whether one of these keys, by their identifiers, vouches for the signer."""
        return any(
            each.key in keys or (each.authority and each.authority in keys)
            for each in self.certificates
        )

    @property
    def by(self) -> str:
        """The signer, and who vouches for it: a phrase."""
        if not self.certificates:
            return "nobody that can be told"
        first = self.certificates[0]
        return f"{first.subject!r} (key {first.key}), issued by {first.issuer!r}"


class _Unreadable(Exception):
    """The message, or the table, is not what it should be."""


def read(image: Read, size: int) -> Signature | None:
    """The signature of an image of `size` bytes; None where it has none, or is no PE file."""
    found = _table(image)
    if found is None:
        return None
    header, at, length = found
    try:
        if not 8 < length <= MOST or at + length > size:
            raise _Unreadable(f"its table of {length:#x} bytes at {at:#x} is not in the file")
        entry = image(length, at)
        own, kind = int.from_bytes(entry[:4], "little"), int.from_bytes(entry[6:8], "little")
        if kind != PKCS7 or not 8 < own <= length:
            raise _Unreadable(f"a certificate of type {kind} and {own:#x} bytes")
        name, said, certificates = _signed_data(entry[8:own])
    except _Unreadable as err:
        return Signature(certificates=(), digest_right=None, problem=str(err))
    right = None if name is None else _digest(image, header, at, name) == said
    return Signature(certificates=certificates, digest_right=right, problem="")


def is_pe(image: Read) -> bool:
    """Whether an image has a PE header at all."""
    return _optional_header(image) is not None


def _optional_header(image: Read) -> tuple[int, int] | None:
    """Where the optional header begins, and of which kind it is."""
    head = image(0x40, 0)
    if len(head) < 0x40 or head[:2] != b"MZ":
        return None
    pe = int.from_bytes(head[0x3C:], "little")
    row = image(26, pe)
    kind = int.from_bytes(row[24:26], "little")
    return (pe + 24, kind) if row[:4] == b"PE\0\0" and kind in DIRECTORY else None


def _table(image: Read) -> tuple[int, int, int] | None:
    """The optional header's offset, and where the certificate table lies and how long it is."""
    found = _optional_header(image)
    if found is None:
        return None
    header, kind = found
    entry = image(8, header + DIRECTORY[kind])
    at, length = int.from_bytes(entry[:4], "little"), int.from_bytes(entry[4:], "little")
    return (header, at, length) if length else None


def _digest(image: Read, header: int, table: int, name: str) -> bytes:
    """Authenticode's digest: the file without the check sum, the table's entry and the table."""
    kind = int.from_bytes(image(2, header), "little")
    entry = header + DIRECTORY[kind]
    seen = hashlib.new(name)
    for start, end in ((0, header + CHECKSUM), (header + CHECKSUM + 4, entry), (entry + 8, table)):
        while start < end and (block := image(min(BLOCK, end - start), start)):
            seen.update(block)
            start += len(block)
    return seen.digest()


def _signed_data(raw: bytes) -> tuple[str | None, bytes, tuple[Certificate, ...]]:
    """Hash, digest and certificates of a PKCS#7 message.  Raises _Unreadable."""
    content = _of(_of(raw, SEQUENCE), FIELD_0)
    fields = list(_all(_of(content, SEQUENCE)))
    signed = [value for tag, value in fields if tag == SEQUENCE]
    certificates = [value for tag, value in fields if tag == FIELD_0]
    if not signed:
        raise _Unreadable("no content in its PKCS#7 message")
    # ContentInfo: SpcIndirectDataContent, whose last member is DigestInfo.
    indirect = [v for t, v in _all(_of(_of(signed[0], FIELD_0), SEQUENCE)) if t == SEQUENCE]
    if not indirect:
        raise _Unreadable("no digest in its PKCS#7 message")
    algorithm = _of(_of(indirect[-1], SEQUENCE), OBJECT)
    rows = [v for _, v in _all(certificates[0])] if certificates else []
    return (
        HASHES.get(algorithm),
        _of(indirect[-1], OCTETS),
        tuple(map(_certificate, rows)),
    )


def _certificate(raw: bytes) -> Certificate:
    """Of TBSCertificate: version, serial, algorithm, issuer, validity, subject, key, extensions."""
    body = list(_all(_of(raw, SEQUENCE)))
    serial = next((value for tag, value in body if tag == INTEGER), b"")
    parts = [value for tag, value in body if tag == SEQUENCE]
    if len(parts) < 5:
        raise _Unreadable("a certificate of too few parts")
    extensions = dict(_extensions(body))
    subject_key = _of(extensions[SUBJECT_KEY], OCTETS) if SUBJECT_KEY in extensions else serial
    authority = b""
    if AUTHORITY_KEY in extensions:
        members = dict(_all(_of(extensions[AUTHORITY_KEY], SEQUENCE)))
        authority = members.get(PLAIN_0, b"")
    return Certificate(
        subject=_name(parts[3]),
        issuer=_name(parts[1]),
        key=subject_key.hex(),
        authority=authority.hex(),
    )


def _extensions(body: list[tuple[int, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """(object identifier, value) of each extension."""
    for tag, value in body:
        if tag == FIELD_3:
            for _, row in _all(_of(value, SEQUENCE)):
                yield _of(row, OBJECT), _of(row, OCTETS)


def _name(raw: bytes) -> str:
    """The common name in a distinguished name."""
    for _, group in _all(raw):
        for _, pair in _all(group):
            members = list(_all(pair))
            if len(members) == 2 and members[0][1] == COMMON_NAME:
                return members[1][1].decode("utf-8", "replace")
    return ""


def _of(raw: bytes, tag: int) -> bytes:
    """The first member with this tag.  Raises _Unreadable."""
    for kind, value in _all(raw):
        if kind == tag:
            return value
    raise _Unreadable(f"no member of type {tag:#x} where one has to be")


def _all(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, value) of each member of DER; one-byte tags, definite lengths.  Raises _Unreadable."""
    at = 0
    while at + 2 <= len(raw):
        tag, size = raw[at], raw[at + 1]
        at += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(raw[at : at + count], "big")
            at += count
            if not 0 < count <= 4:
                raise _Unreadable("a length that DER does not have")
        if at + size > len(raw):
            raise _Unreadable("its PKCS#7 message is cut off")
        yield tag, raw[at : at + size]
        at += size
