"""image.read on what is no kernel image: the error says what the bytes look like.

The bytes are made by the programs and libraries that own the formats, or by hand from their manuals.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.bzimage import bzimage, put, vmlinux, with_certificate_table
from tests.makers.cpio import initrd
from tests.makers.lzo import lzop
from tests.makers.pe import pe
from tightrope import image
from tightrope.errors import ImageError

MULTIBOOT_1 = struct.pack("<III", 0x1BADB002, 0, -0x1BADB002 & 0xFFFFFFFF)
MULTIBOOT_2 = struct.pack("<IIII", 0xE85250D6, 0, 16, -(0xE85250D6 + 16) & 0xFFFFFFFF)
NO_HEADER = put(bzimage(), "header", 0)

CASES = {
    "empty": (b"", "an empty file; a bzImage, an ELF vmlinux, a Multiboot kernel or a uni"),
    "ELF cut off": (vmlinux(16), "e_ident at offset 0x0: an ELF file cut off after 16 bytes"),
    "Multiboot at its last place": (
        b"\0" * 8180 + MULTIBOOT_1,
        "Multiboot header at offset 0x1ff4",
    ),
    "Multiboot too far": (b"\0" * 8184 + MULTIBOOT_1, "nothing but zeros"),
    "Multiboot 2 too far": (b"\0" * 32760 + MULTIBOOT_2, "nothing but zeros"),
    "Multiboot 2 unaligned": (b"\0" * 68 + MULTIBOOT_2, "no kernel image"),
    "Multiboot 2 without an end": (b"\0" * 64 + MULTIBOOT_2, "Multiboot2 tags at offset 0x50"),
    "Multiboot without its checksum": (b"\0" * 64 + MULTIBOOT_1[:8] + b"\0" * 4, "no kernel image"),
    "PE": (
        with_certificate_table(NO_HEADER, 0, 0),
        "a PE file without a Linux setup header or a .linux section",
    ),
    "PE cut off": (
        with_certificate_table(NO_HEADER, 0, 0)[:300],
        "a PE file .*, or a kernel cut off after 300 bytes",
    ),
    "boot sector": (NO_HEADER, "a boot sector without a Linux setup header"),
    "kernel cut off": (bzimage()[:512], "a boot sector .*, or a kernel cut off after 512 bytes"),
    "gzip": (gzip.compress(bytes(600)), "nothing but zeros"),
    "gzip twice": (
        gzip.compress(gzip.compress(b"kernel")),
        "a file packed with gzip: unpack it first",
    ),
    "an initrd": (
        initrd(3000),
        "an initrd .a cpio archive. and no kernel: it is given with --initrd",
    ),
    "an old archive": (b"070707" + bytes(600), "an initrd"),
    "an old archive in binary": (b"\xc7\x71" + bytes(600), "an initrd"),
    "a gzip initrd": (gzip.compress(initrd(3000)), "an initrd"),
    "an xz initrd": (
        lzma.compress(initrd(3000)),
        "an initrd .xz, a cpio archive in it. and no kernel",
    ),
    "a zstd initrd": (zstandard.ZstdCompressor().compress(initrd(3000)), "an initrd .zstd"),
    "an lzo initrd": (lzop(initrd(3000)), "an initrd .lzo"),
    "a zstd stream cut off": (
        zstandard.ZstdCompressor().compress(initrd(3000))[:9],
        "a file packed with zstd",
    ),
    "bzip2": (bz2.compress(b"kernel"), "a file packed with bzip2"),
    "xz": (lzma.compress(b"kernel"), "a file packed with xz"),
    "lzma": (lzma.compress(b"kernel", format=lzma.FORMAT_ALONE), "a file packed with lzma"),
    "zstd": (zstandard.ZstdCompressor().compress(b"kernel"), "a file packed with zstd"),
    "arm64": (b"MZ" + bytes(0x36) + b"ARM\x64" + bytes(600), "an arm64 kernel"),
    "riscv": (bytes(0x30) + b"RISCV\0\0\0RSC\x05" + bytes(600), "a riscv kernel"),
    "armhf": (bytes(0x24) + b"\x18\x28\x6f\x01" + bytes(600), "an arm kernel .zImage."),
    "zboot": (
        (b"MZ\0\0zimg" + bytes(16) + b"gzip\0").ljust(600, b"\0"),
        "a kernel for another architecture, packed for EFI .zboot, gzip.",
    ),
    "EFI for arm64": (
        pe([(".text", b"code")]).replace(b"PE\0\0\x64\x86", b"PE\0\0\x64\xaa"),
        "an EFI program for arm64, and this is x86",
    ),
    "unified Xen": (
        pe([(".text", b"code"), (".config", b"[global]"), (".kernel", bzimage())]),
        "Xen with its dom0 in one file .unified xen.efi.: only EFI starts it",
    ),
    "xen.efi": (pe([(".rodata", b"Xen version %d.%d%s")]), "Xen .xen.efi.: only EFI starts it"),
    "zeros": (b"\0" * 4096, "nothing but zeros"),
    "text": (b"title Linux\nlinux /vmlinuz\n", "a text file; a bzImage, .* is wanted"),
    "unknown": (bytes(range(128, 256)), "no kernel image .* begins with 80 81 82 83 84 85 86 87"),
}


@pytest.mark.parametrize(("data", "words"), CASES.values(), ids=CASES)
def test_the_error_says_what_the_bytes_look_like(data: bytes, words: str) -> None:
    with pytest.raises(ImageError, match=rf"^file( \(unpacked\))?: {words}"):
        image.read(data, "file")


@given(st.sampled_from(sorted(CASES)), st.binary(max_size=600), st.integers(0, 600))
def test_any_mixture_of_them_is_refused_in_words(name: str, more: bytes, length: int) -> None:
    with pytest.raises(ImageError, match=r"^file( \(unpacked\))?: \w+"):
        image.read(CASES[name][0][:length] + more, "file")
