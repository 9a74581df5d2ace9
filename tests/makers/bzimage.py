"""A maker of tiny bzImages, for the tests of every room.

Written from Linux's Documentation/arch/x86/boot.rst with its own offsets: it shares no number with
`tightrope.abi.boot`, so a wrong offset there cannot hide behind the same mistake here.

    0x000  "MZ", then zeros; with a signature also "PE" and the optional header that names it
    0x1f1  setup header
    0x300  version string
    0x400  (with setup_sects=1) the protected-mode part:
             +0x000 startup_32, +0x200 startup_64, +0x400 kernel_info, +0x410 payload, zeros
    end    the signature, when there is one

Use `bzimage()` for a good one, keywords for another good one, and `put(image, "init_size", 0)` to
break a field of one.
"""

from __future__ import annotations

import gzip
import struct

OFFSETS: dict[str, tuple[int, int]] = {
    "setup_sects": (0x1F1, 1),
    "syssize": (0x1F4, 4),
    "boot_flag": (0x1FE, 2),
    "jump": (0x200, 2),
    "header": (0x202, 4),
    "version": (0x206, 2),
    "kernel_version": (0x20E, 2),
    "type_of_loader": (0x210, 1),
    "loadflags": (0x211, 1),
    "code32_start": (0x214, 4),
    "initrd_addr_max": (0x22C, 4),
    "kernel_alignment": (0x230, 4),
    "relocatable_kernel": (0x234, 1),
    "min_alignment": (0x235, 1),
    "xloadflags": (0x236, 2),
    "cmdline_size": (0x238, 4),
    "hardware_subarch": (0x23C, 4),
    "payload_offset": (0x248, 4),
    "payload_length": (0x24C, 4),
    "setup_data": (0x250, 8),
    "pref_address": (0x258, 8),
    "init_size": (0x260, 4),
    "handover_offset": (0x264, 4),
    "kernel_info_offset": (0x268, 4),
}
"""boot.rst's table of the setup header: offset and size in bytes, as far as tests need them."""

HALT_LOOP = b"\xf4\xeb\xfd"
"""hlt; jmp back: the same bytes in 32-bit and 64-bit mode."""
PAYLOAD_AT = 0x410


def put(image: bytes, name: str, value: int) -> bytes:
    """The image with one setup header field changed."""
    offset, size = OFFSETS[name]
    return image[:offset] + value.to_bytes(size, "little") + image[offset + size :]


def vmlinux(size: int = 5000) -> bytes:
    """The first bytes of an ELF64 file and a tail that does not compress to nothing."""
    tail = b"".join(struct.pack("<I", (i * 2654435761) & 0xFFFFFFFF) for i in range(size // 4))
    return b"\x7fELF\x02\x01\x01" + b"\0" * 9 + tail[: size - 16]


def packed_gzip(kernel: bytes) -> bytes:
    """As Linux's build packs with gzip: the size is the stream's own last four bytes."""
    return gzip.compress(kernel, mtime=0)


def with_size(stream: bytes, kernel: bytes) -> bytes:
    """As Linux's build ends every other stream: the unpacked size, four bytes, little-endian."""
    return stream + struct.pack("<I", len(kernel))


def bzimage(
    *,
    protocol: int = 0x020F,
    setup_sects: int = 1,
    code32: bytes = HALT_LOOP,
    code64: bytes = HALT_LOOP,
    payload: bytes | None = None,
    version: str | None = "6.1.0-test (maker@tests) #1",
    relocatable: bool = True,
    pref_address: int = 0x1000000,
    init_size: int = 0x200000,
    alignment: int = 0x200000,
    min_alignment: int = 21,
    xloadflags: int = 0b0111_1111,
    cmdline_size: int = 2047,
    initrd_addr_max: int = 0x7FFFFFFF,
    kernel_size: int = 0,
    signature: bytes = b"",
) -> bytes:
    """A kernel file, good unless the keywords make it bad.

    `payload` is what lies there, packed (default: a packed `vmlinux()`; b"" for none), `kernel_size`
    the least size of the protected-mode part, `min_alignment` a power of two's exponent.  The last four
    bytes are zeros, where older kernels have a checksum: `with_checksum` fills it in.
    """
    if payload is None:
        payload = packed_gzip(vmlinux())
    kernel = bytearray(max(kernel_size, PAYLOAD_AT + len(payload) + 4) + 31 & ~31)
    kernel[: len(code32)] = code32
    kernel[0x200 : 0x200 + len(code64)] = code64
    kernel[0x400:0x410] = b"LToP" + struct.pack("<III", 16, 16, 0x80000009)
    kernel[PAYLOAD_AT : PAYLOAD_AT + len(payload)] = payload

    setup = bytearray(((setup_sects or 4) + 1) * 512)
    if version is not None:
        text = version.encode() + b"\0"
        setup[0x300 : 0x300 + len(text)] = text
    # The header ends behind handover_offset before 2.15, behind kernel_info_offset since.
    header_end = 0x26C if protocol >= 0x020F else 0x268
    setup[0x1EF] = 0xFF
    image = bytes(setup)
    for name, value in {
        "setup_sects": setup_sects,
        "syssize": len(kernel) // 16,
        "boot_flag": 0xAA55,
        "jump": 0xEB | (header_end - 0x202) << 8,
        "header": int.from_bytes(b"HdrS", "little"),
        "version": protocol,
        "kernel_version": 0x100 if version is not None else 0,
        "loadflags": 1,
        "code32_start": 0x100000,
        "initrd_addr_max": initrd_addr_max,
        "kernel_alignment": alignment,
        "relocatable_kernel": int(relocatable),
        "min_alignment": min_alignment,
        "xloadflags": xloadflags if protocol >= 0x020C else 0,
        "cmdline_size": cmdline_size,
        "payload_offset": PAYLOAD_AT if payload else 0,
        "payload_length": len(payload),
        "pref_address": pref_address,
        "init_size": init_size,
        "kernel_info_offset": 0x400 if protocol >= 0x020F else 0,
    }.items():
        image = put(image, name, value)
    image = b"MZ" + image[2:] + bytes(kernel)
    return sign(image, signature) if signature else image


def with_checksum(image: bytes) -> bytes:
    """The unsigned image with the CRC-32 of all before it in its last word (boot.rst, "The Image Checksum").

    A polynomial division bit by bit, so that it shares nothing with zlib's.
    """
    rest = 0xFFFFFFFF
    for byte in image[:-4]:
        rest ^= byte
        for _ in range(8):
            rest = rest >> 1 ^ (0xEDB88320 if rest & 1 else 0)
    return image[:-4] + struct.pack("<I", rest)


def sign(image: bytes, signature: bytes) -> bytes:
    """Append a certificate table as a PE signer does: padded to 8 bytes, entered in the header."""
    padded = image + b"\0" * (-len(image) % 8)
    return with_certificate_table(padded, len(padded), len(signature)) + signature


def with_certificate_table(image: bytes, start: int, size: int) -> bytes:
    """The image with a PE32+ header at 0x40 whose certificate table is [start, start + size)."""
    header = bytearray(image)
    header[0x3C:0x40] = struct.pack("<I", 0x40)
    header[0x40:0x44] = b"PE\0\0"
    optional = 0x40 + 24
    header[optional : optional + 2] = struct.pack("<H", 0x20B)
    header[optional + 108 : optional + 112] = struct.pack("<I", 6)
    header[optional + 144 : optional + 152] = struct.pack("<II", start, size)
    return bytes(header)
