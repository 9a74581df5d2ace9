"""Multiboot 1 and Multiboot 2 as data: what a kernel asks of its boot loader, and what it is
handed.

Sources: "Multiboot" is the Multiboot Specification version 0.6.96, sections 3.1.1 to 3.1.3, 3.2,
3.3; "Multiboot2" the Multiboot2 Specification version 2.0, sections 3.1.1 to 3.1.13, 3.3, 3.6.

    Multiboot, 4-byte aligned, in the first 8192 bytes    Multiboot2, 8-byte aligned, in the first 32768
      0 magic                                               0 magic
      4 flags                                               4 architecture
      8 checksum: the three sum to 0                        8 header_length
     12 header_addr                                        12 checksum: the four sum to 0
     16 load_addr        only where                        16 tags, each at a multiple of 8:
     20 load_end_addr    flags has                            0 type, 2 flags, 4 size, 8 ...
     24 bss_end_addr     ADDRESSES                            the last has type 0 and size 8
     28 entry_addr

Rules: numbers only.  All fields are 32-bit and little-endian unless said otherwise.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct

# ----------------------------------------------------------------------------------- Multiboot 1

MAGIC_1 = 0x1BADB002
ALIGNMENT_1 = 4
REACH_1 = 8192
"""The header lies wholly inside so many bytes of the file."""
HEADER_1 = Struct("<III")
"""magic, flags, checksum."""
ADDRESSES_1 = Struct("<IIIII")
"""Behind HEADER_1: header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr, all physical.
"""


class Flags(IntFlag):
    """The flags field: bits 0 to 15 are requirements, a loader ignores 16 to 31 that it does not
    know."""

    PAGE_ALIGN = 1 << 0
    MEMORY_INFO = 1 << 1
    VIDEO_MODE = 1 << 2
    ADDRESSES = 1 << 16


REQUIREMENTS = 0xFFFF

# ----------------------------------------------------------------------------------- Multiboot 2

MAGIC_2 = 0xE85250D6
ALIGNMENT_2 = 8
REACH_2 = 32768
HEADER_2 = Struct("<IIII")
"""magic, architecture, header_length (bytes, tags included), checksum."""
ARCHITECTURE_I386 = 0
"""32-bit protected mode of i386."""
TAG = Struct("<HHI")
"""type and flags (16 bits each), size in bytes without the padding behind the tag."""
TAG_OPTIONAL = 1
"""Bit 0 of a tag's flags: a loader may ignore it."""


class Tag(IntEnum):
    """Types of header tags."""

    END = 0
    INFORMATION_REQUEST = 1
    ADDRESS = 2
    ENTRY_ADDRESS = 3
    CONSOLE_FLAGS = 4
    FRAMEBUFFER = 5
    MODULE_ALIGNMENT = 6
    EFI_BOOT_SERVICES = 7
    ENTRY_ADDRESS_EFI_I386 = 8
    ENTRY_ADDRESS_EFI_AMD64 = 9
    RELOCATABLE = 10


TAG_FIELDS = {
    Tag.ADDRESS: Struct("<IIII"),
    Tag.ENTRY_ADDRESS: Struct("<I"),
    Tag.CONSOLE_FLAGS: Struct("<I"),
    Tag.RELOCATABLE: Struct("<IIII"),
}
"""Behind TAG.  ADDRESS: header_addr, load_addr, load_end_addr, bss_end_addr.  RELOCATABLE:
min_addr, max_addr, align, preference.  INFORMATION_REQUEST has a list of 32-bit Information types.
"""

FROM_THE_BEGINNING = 0xFFFF_FFFF
"""As load_addr: the file is loaded from its first byte on (Multiboot2, 3.1.5)."""
CONSOLE_REQUIRED = 1
"""Bit 0 of the console flags: at least one supported console has to be there."""


class Information(IntEnum):
    """Types of the tags that a loader hands over (Multiboot2, section 3.6)."""

    END = 0
    COMMAND_LINE = 1
    LOADER_NAME = 2
    MODULE = 3
    BASIC_MEMORY = 4
    BIOS_DEVICE = 5
    MEMORY_MAP = 6
    VBE = 7
    FRAMEBUFFER = 8
    ELF_SECTIONS = 9
    APM = 10
    EFI_32 = 11
    EFI_64 = 12
    SMBIOS = 13
    ACPI_OLD = 14
    ACPI_NEW = 15
    NETWORK = 16
    EFI_MEMORY_MAP = 17
    EFI_BOOT_SERVICES = 18
    EFI_32_HANDLE = 19
    EFI_64_HANDLE = 20
    LOAD_BASE = 21


# -------------------------------------------------------------------- what a kernel is entered with

LOADED_BY_1 = 0x2BADB002
"""eax at a Multiboot kernel's entry (Multiboot, 3.2); ebx is the address of its information."""
LOADED_BY_2 = 0x36D76289
"""eax at a Multiboot2 kernel's entry (Multiboot2, 3.3)."""

INFORMATION_1 = Struct("<7I16x7I44x")
"""The information structure (Multiboot, 3.3): flags, mem_lower and mem_upper (KiB), boot_device,
cmdline, mods_count, mods_addr; behind the symbols, from 44 on, mmap_length, mmap_addr,
drives_length, drives_addr, config_table, boot_loader_name, apm_table; symbols, VBE and framebuffer
are left zero."""


class Given(IntFlag):
    """The flags of INFORMATION_1: which of its fields are there."""

    MEMORY = 1 << 0
    COMMAND_LINE = 1 << 2
    MODULES = 1 << 3
    MEMORY_MAP = 1 << 6
    LOADER_NAME = 1 << 9


MODULE_1 = Struct("<IIII")
"""One module: its first byte, the byte behind its last, its string, and a reserved word."""
MEMORY_1 = Struct("<IQQI")
"""One memory map entry: its size without this word, base, length (bytes), type."""

INFORMATION_2 = Struct("<II")
"""Head of the tag list: bytes of all of it, and a reserved word."""
INFORMATION_TAG = Struct("<II")
"""Type and size of a tag, its padding to 8 bytes not counted."""
MODULE_2 = Struct("<II")
"""Behind the tag's head, before the string: first byte, the byte behind the last."""
BASIC_MEMORY_2 = Struct("<II")
"""mem_lower, mem_upper (KiB)."""
MEMORY_MAP_2 = Struct("<II")
"""Bytes of an entry, version (0)."""
MEMORY_2 = Struct("<QQII")
"""One memory map entry: base, length (bytes), type, a reserved word."""
LOAD_BASE_2 = Struct("<I")


class Memory(IntEnum):
    """Types of a memory map entry, the same in both versions; whatever is none of them is
    reserved."""

    AVAILABLE = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    DEFECTIVE = 5


LOWER_LIMIT = 640 << 10
"""mem_lower ends here at the latest; mem_upper counts from 1 MiB to the first hole."""

if INFORMATION_1.size != 116:
    raise ValueError(
        "Multiboot's information structure ends behind framebuffer's color_info, at 116"
    )
