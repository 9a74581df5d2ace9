"""The x86 Linux boot protocol as data: where each field is, how wide, since when.

Sources, named by their short names below: "boot.rst" is Linux Documentation/arch/x86/boot.rst,
"zero-page.rst" the file beside it, "bootparam.h" arch/x86/include/uapi/asm/bootparam.h.

    kernel file                              boot_params ("zero page"), 4096 bytes
    0x000 +----------------------+           0x000 +----------------------+
          | boot sector          |                 | filled in by the     |
    0x1f1 +----------------------+  copied   0x1f1 | loader               |
          | setup header         | --------> ----- | setup header         |
      end +----------------------+  as it is   end +----------------------+
          | setup code           |           0x2d0 | e820_table           |
          | (setup_sects + 1)    |           0xcd0 +----------------------+
          |  * 512 bytes         |
          +----------------------+
          | protected-mode part  |  copied to the load address
          | syssize * 16 bytes   |
          +----------------------+
          | PE certificates      |  signed kernels only
          +----------------------+

Rules: numbers only.  A setup header field has the same offset in the file and in boot_params, so
one declaration serves a reader and a loader.  This file judges nothing but whether a value fits a
field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from struct import Struct
from types import MappingProxyType

# ------------------------------------------------------------------------------------ the fields


@dataclass(frozen=True, slots=True)
class Field:
    """A little-endian unsigned integer: `offset` and `size` in bytes, `since` a protocol version.

    The offset counts from the start of the kernel file, which is also that of boot_params.
    """

    name: str
    offset: int
    size: int
    since: int

    @property
    def end(self) -> int:
        """The offset of the first byte behind the field."""
        return self.offset + self.size

    def read(self, buffer: bytes | bytearray | memoryview, base: int = 0) -> int:
        """The field's value.  `base` is the offset that the buffer's first byte has in the file.

        Raises ValueError when the field is not wholly inside the buffer.
        """
        return int.from_bytes(buffer[self._inside(len(buffer), base)], "little")

    def write(self, buffer: bytearray | memoryview, value: int, base: int = 0) -> None:
        """Put a value; ValueError when it is negative, needs more bytes, or the buffer is short."""
        if not 0 <= value < 1 << 8 * self.size:
            raise ValueError(f"{self.name}: {value:#x} does not fit into {self.size} bytes")
        buffer[self._inside(len(buffer), base)] = value.to_bytes(self.size, "little")

    def _inside(self, length: int, base: int) -> slice:
        if not base <= self.offset <= self.end <= base + length:
            raise ValueError(
                f"{self.name}: [{self.offset:#x}, {self.end:#x}) is not inside "
                f"[{base:#x}, {base + length:#x})"
            )
        return slice(self.offset - base, self.end - base)


def check_layout(fields: Iterable[Field], *, end: int, gaps: bool) -> None:
    """Raise ValueError unless fields are sorted, do not overlap and stop at or before `end`.

    With `gaps` false each field has to begin where the one before it ends.
    """
    before: Field | None = None
    for one in fields:
        if before is not None and (
            one.offset < before.end or (one.offset > before.end and not gaps)
        ):
            raise ValueError(
                f"{one.name} at {one.offset:#x}: {before.name} ends at {before.end:#x}"
            )
        if one.size <= 0 or one.end > end:
            raise ValueError(f"{one.name} ends at {one.end:#x}, the layout at {end:#x}")
        before = one


SETUP_HEADER = 0x1F1
"""Offset of the setup header in the file and in boot_params (boot.rst)."""
SETUP_HEADER_LIMIT = 0x290
"""Where boot_params goes on after the hole kept for the setup header (bootparam.h)."""
BOOT_PARAMS_SIZE = 4096

_V200 = 0x0200
"""Fields that boot.rst marks ALL are given 2.00, the oldest version that has a version field."""

SETUP_HEADER_FIELDS = (
    Field("setup_sects", 0x1F1, 1, _V200),
    Field("root_flags", 0x1F2, 2, _V200),
    Field("syssize", 0x1F4, 4, 0x0204),
    Field("ram_size", 0x1F8, 2, _V200),
    Field("vid_mode", 0x1FA, 2, _V200),
    Field("root_dev", 0x1FC, 2, _V200),
    Field("boot_flag", 0x1FE, 2, _V200),
    Field("jump", 0x200, 2, _V200),
    Field("header", 0x202, 4, _V200),
    Field("version", 0x206, 2, _V200),
    Field("realmode_swtch", 0x208, 4, _V200),
    Field("start_sys_seg", 0x20C, 2, _V200),
    Field("kernel_version", 0x20E, 2, _V200),
    Field("type_of_loader", 0x210, 1, _V200),
    Field("loadflags", 0x211, 1, _V200),
    Field("setup_move_size", 0x212, 2, _V200),
    Field("code32_start", 0x214, 4, _V200),
    Field("ramdisk_image", 0x218, 4, _V200),
    Field("ramdisk_size", 0x21C, 4, _V200),
    Field("bootsect_kludge", 0x220, 4, _V200),
    Field("heap_end_ptr", 0x224, 2, 0x0201),
    Field("ext_loader_ver", 0x226, 1, 0x0202),
    Field("ext_loader_type", 0x227, 1, 0x0202),
    Field("cmd_line_ptr", 0x228, 4, 0x0202),
    Field("initrd_addr_max", 0x22C, 4, 0x0203),
    Field("kernel_alignment", 0x230, 4, 0x0205),
    Field("relocatable_kernel", 0x234, 1, 0x0205),
    Field("min_alignment", 0x235, 1, 0x020A),
    Field("xloadflags", 0x236, 2, 0x020C),
    Field("cmdline_size", 0x238, 4, 0x0206),
    Field("hardware_subarch", 0x23C, 4, 0x0207),
    Field("hardware_subarch_data", 0x240, 8, 0x0207),
    Field("payload_offset", 0x248, 4, 0x0208),
    Field("payload_length", 0x24C, 4, 0x0208),
    Field("setup_data", 0x250, 8, 0x0209),
    Field("pref_address", 0x258, 8, 0x020A),
    Field("init_size", 0x260, 4, 0x020A),
    Field("handover_offset", 0x264, 4, 0x020B),
    Field("kernel_info_offset", 0x268, 4, 0x020F),
)
"""The setup header (boot.rst, "The Real-Mode Kernel Header"): no gap, no overlap."""

BOOT_PARAMS_FIELDS = (
    Field("acpi_rsdp_addr", 0x070, 8, _V200),
    Field("ext_ramdisk_image", 0x0C0, 4, 0x020C),
    Field("ext_ramdisk_size", 0x0C4, 4, 0x020C),
    Field("ext_cmd_line_ptr", 0x0C8, 4, 0x020C),
    Field("e820_entries", 0x1E8, 1, _V200),
    Field("secure_boot", 0x1EC, 1, _V200),
    Field("sentinel", 0x1EF, 1, _V200),
)
"""What a kexec loader fills in before the setup header (zero-page.rst).

The sentinel is 0xff in a kernel file and has to be 0 in boot_params: a loader that copies more of
the file than the setup header is found out by it.
"""

check_layout(SETUP_HEADER_FIELDS, end=SETUP_HEADER_LIMIT, gaps=False)
check_layout(BOOT_PARAMS_FIELDS, end=SETUP_HEADER, gaps=True)

_BY_NAME: Mapping[str, Field] = MappingProxyType(
    {one.name: one for one in (*BOOT_PARAMS_FIELDS, *SETUP_HEADER_FIELDS)}
)


def field(name: str) -> Field:
    """The field with the boot protocol's own name; KeyError when there is none."""
    return _BY_NAME[name]


def header_end(protocol: int) -> int:
    """The offset behind the last setup header field that a protocol version has."""
    return max(one.end for one in SETUP_HEADER_FIELDS if one.since <= protocol)


def setup_size(setup_header: bytes) -> int:
    """Bytes of boot sector and setup code: what comes before the protected-mode part in the file.

    `setup_header` begins at SETUP_HEADER; ValueError when it has no setup_sects.
    """
    sectors = field("setup_sects").read(setup_header, SETUP_HEADER)
    return ((sectors or DEFAULT_SETUP_SECTS) + 1) * SECTOR


# --------------------------------------------------------------- magic numbers and flags (boot.rst)

BOOT_FLAG = 0xAA55
HEADER_MAGIC = 0x53726448
"""The letters "HdrS"."""
JUMP_OPCODE = 0xEB
"""A short jump: its operand, at 0x201, counts from 0x202 and so tells where the header ends."""
JUMP_BASE = 0x202
JUMP_REACH = 0x7F
"""The operand is a signed byte, and the header lies before the code."""
SECTOR = 512
"""Bytes of a sector; the boot sector comes before the setup_sects sectors of setup code."""
DEFAULT_SETUP_SECTS = 4
"""What setup_sects = 0 means."""
PARAGRAPH = 16
"""Bytes of one unit of syssize."""
KERNEL_VERSION_BASE = 0x200
"""The kernel_version field counts from here."""
KERNEL_INFO_MAGIC = b"LToP"
KERNEL_INFO = Struct("<4sIII")
"""kernel_info, protocol 2.15: magic, size, size_total (bytes), setup_type_max."""


class LoadFlags(IntFlag):
    """The loadflags field (boot.rst, bootparam.h)."""

    LOADED_HIGH = 1 << 0
    KASLR_FLAG = 1 << 1
    QUIET_FLAG = 1 << 5
    KEEP_SEGMENTS = 1 << 6
    CAN_USE_HEAP = 1 << 7


class XLoadFlags(IntFlag):
    """The xloadflags field, protocol 2.12 (boot.rst; bits 5 to 7: bootparam.h)."""

    XLF_KERNEL_64 = 1 << 0
    XLF_CAN_BE_LOADED_ABOVE_4G = 1 << 1
    XLF_EFI_HANDOVER_32 = 1 << 2
    XLF_EFI_HANDOVER_64 = 1 << 3
    XLF_EFI_KEXEC = 1 << 4
    XLF_5LEVEL = 1 << 5
    XLF_5LEVEL_ENABLED = 1 << 6
    XLF_MEM_ENCRYPTION = 1 << 7


# ---------------------------------------------------------------------------- entering the kernel

ENTRY_32_OFFSET = 0
"""startup_32, from the load address (boot.rst, "32-bit Boot Protocol"); a 64-bit kernel has it too.
"""
ENTRY_64_OFFSET = 0x200
"""startup_64, from the load address, where XLF_KERNEL_64 is set (boot.rst, "64-bit Boot Protocol").
"""
BOOT_CS = 0x10
BOOT_DS = 0x18
"""Selectors of flat 4 GiB segments; cs is BOOT_CS and ds, es, ss are BOOT_DS at either entry."""

TYPE_OF_LOADER_KEXEC = 0xD0
"""type_of_loader of kexec-tools, version 0; kexec_file_load writes it too (kexec-bzimage64.c)."""

VMLINUX_PROTOCOL = 0x0206
"""The protocol version that kexec-tools names in boot_params of a kernel without a setup header."""

# ------------------------------------------------------------------ memory map and setup_data lists

E820_TABLE = 0x2D0
E820_MAX_ENTRIES = 128
E820_ENTRY = Struct("<QQI")
"""One entry: address and size in bytes, type (bootparam.h, struct boot_e820_entry)."""


class E820Type(IntEnum):
    """Types of an entry; the names are those of `memory.RegionKind` (asm/e820/types.h)."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5
    PMEM = 7
    PRAM = 12
    SOFT_RESERVED = 0xEFFF_FFFF


def e820_rows(page: bytes) -> Iterator[tuple[int, int, str]]:
    """Start, size and the name of its type, "RESERVED" for one that is not known, of each row that
    boot_params has room for."""
    count = min(field("e820_entries").read(page), E820_MAX_ENTRIES)
    names = {each.value: each.name for each in E820Type}
    table = page[E820_TABLE : E820_TABLE + count * E820_ENTRY.size]
    for start, size, kind in E820_ENTRY.iter_unpack(table):
        yield start, size, names.get(kind, E820Type.RESERVED.name)


SETUP_DATA = Struct("<QII")
"""Head of a setup_data node: physical address of the next (0 ends the list), type, bytes behind it.
"""
SETUP_E820_EXT = 1
"""Type of the node that carries the memory map's entries beyond E820_MAX_ENTRIES."""
SETUP_RNG_SEED = 9
"""Type of the node with a seed for random numbers (asm/setup_data.h, Linux 6.0)."""

if E820_ENTRY.size != 20 or E820_TABLE + E820_MAX_ENTRIES * E820_ENTRY.size != 0xCD0:
    raise ValueError("the e820 table does not end where boot_params goes on (bootparam.h)")

# ---------------------------------- where Linux's own loader puts things (kexec-bzimage64.c, 6.1)

MIN_PURGATORY_ADDR = 0x3000
MIN_BOOTPARAM_ADDR = 0x3000
MIN_KERNEL_LOAD_ADDR = 0x100000
"""Lowest load address; a pref_address above it takes its place."""
MIN_INITRD_LOAD_ADDR = 0x1000000
MAX_ELFCOREHDR_STR_LEN = 30
"""Bytes of command line kept free for the "elfcorehdr=" of a crash kernel, at every load."""
