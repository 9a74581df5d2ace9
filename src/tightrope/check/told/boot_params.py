"""boot_params, read back: where each field is, and what a Linux kernel takes from it.

Rules: written apart from `abi.boot` and `plan.boot_params`, which made the page, and without their
numbers.  Source: struct boot_params and struct setup_header in Linux
arch/x86/include/uapi/asm/bootparam.h, struct setup_data in asm/setup_data.h (in bootparam.h until
6.8); how they are read: arch/x86/kernel/setup.c (get_ramdisk_image, get_cmd_line_ptr,
parse_setup_data) and arch/x86/kernel/e820.c (e820__memory_setup_extended).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain

from tightrope.check.told.memory import Garbled, Row, Told, string
from tightrope.memory import Extent
from tightrope.model import Memory

SIZE = 0x1000
HEADER, HEADER_END = 0x1F1, 0x290
MAP, MAP_ROWS = 0x2D0, 128
ROW = struct.Struct("<QQI")
NODE = struct.Struct("<QII")
"""A node of setup_data: the next one's address, its type, the bytes of data behind it."""
MOST_OF_A_NODE = 1 << 18
"""Bytes of its data that are read: 13,107 rows of a memory map, where Linux takes 3,200 at most
(E820_MAX_ENTRIES with 1,024 nodes of NUMA, asm/e820/types.h)."""
E820_EXT = 1
"""The node with the rows of the memory map that the page has no room for."""
HDRS = b"HdrS"


@dataclass(frozen=True, slots=True)
class Place:
    """A field, or what lies between two: `size` bytes at `at`."""

    name: str
    at: int
    size: int


PLACES = tuple(
    Place(*row)
    for row in (
        ("screen_info", 0x000, 0x40),
        ("apm_bios_info", 0x040, 0x14),
        ("_pad2", 0x054, 4),
        ("tboot_addr", 0x058, 8),
        ("ist_info", 0x060, 0x10),
        ("acpi_rsdp_addr", 0x070, 8),
        ("_pad3", 0x078, 8),
        ("hd0_info", 0x080, 0x10),
        ("hd1_info", 0x090, 0x10),
        ("sys_desc_table", 0x0A0, 0x10),
        ("olpc_ofw_header", 0x0B0, 0x10),
        ("ext_ramdisk_image", 0x0C0, 4),
        ("ext_ramdisk_size", 0x0C4, 4),
        ("ext_cmd_line_ptr", 0x0C8, 4),
        ("_pad4", 0x0CC, 0x70),
        ("cc_blob_address", 0x13C, 4),
        ("edid_info", 0x140, 0x80),
        ("efi_info", 0x1C0, 0x20),
        ("alt_mem_k", 0x1E0, 4),
        ("scratch", 0x1E4, 4),
        ("e820_entries", 0x1E8, 1),
        ("eddbuf_entries", 0x1E9, 1),
        ("edd_mbr_sig_buf_entries", 0x1EA, 1),
        ("kbd_status", 0x1EB, 1),
        ("secure_boot", 0x1EC, 1),
        ("_pad5", 0x1ED, 2),
        ("sentinel", 0x1EF, 1),
        ("_pad6", 0x1F0, 1),
        ("setup_sects", 0x1F1, 1),
        ("root_flags", 0x1F2, 2),
        ("syssize", 0x1F4, 4),
        ("ram_size", 0x1F8, 2),
        ("vid_mode", 0x1FA, 2),
        ("root_dev", 0x1FC, 2),
        ("boot_flag", 0x1FE, 2),
        ("jump", 0x200, 2),
        ("header", 0x202, 4),
        ("version", 0x206, 2),
        ("realmode_swtch", 0x208, 4),
        ("start_sys_seg", 0x20C, 2),
        ("kernel_version", 0x20E, 2),
        ("type_of_loader", 0x210, 1),
        ("loadflags", 0x211, 1),
        ("setup_move_size", 0x212, 2),
        ("code32_start", 0x214, 4),
        ("ramdisk_image", 0x218, 4),
        ("ramdisk_size", 0x21C, 4),
        ("bootsect_kludge", 0x220, 4),
        ("heap_end_ptr", 0x224, 2),
        ("ext_loader_ver", 0x226, 1),
        ("ext_loader_type", 0x227, 1),
        ("cmd_line_ptr", 0x228, 4),
        ("initrd_addr_max", 0x22C, 4),
        ("kernel_alignment", 0x230, 4),
        ("relocatable_kernel", 0x234, 1),
        ("min_alignment", 0x235, 1),
        ("xloadflags", 0x236, 2),
        ("cmdline_size", 0x238, 4),
        ("hardware_subarch", 0x23C, 4),
        ("hardware_subarch_data", 0x240, 8),
        ("payload_offset", 0x248, 4),
        ("payload_length", 0x24C, 4),
        ("setup_data", 0x250, 8),
        ("pref_address", 0x258, 8),
        ("init_size", 0x260, 4),
        ("handover_offset", 0x264, 4),
        ("kernel_info_offset", 0x268, 4),
        ("what follows the setup header", 0x26C, 0x24),
        ("edd_mbr_sig_buffer", 0x290, 0x40),
        ("e820_table", 0x2D0, 0xA00),
        ("_pad8", 0xCD0, 0x30),
        ("eddbuf", 0xD00, 0x1EC),
        ("_pad9", 0xEEC, 0x114),
    )
)
"""All of the page, in order, without a gap."""
BY_NAME = {each.name: each for each in PLACES}


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroPage:
    """The page as it lies in memory, and what hangs on it."""

    at: int
    page: bytes
    nodes: tuple[tuple[int, int, bytes], ...]
    """setup_data: (address, type, data) of each node, in order."""
    rows: tuple[Row, ...]
    """The memory map, with what a setup_data node adds to it."""

    def field(self, name: str) -> int:
        """A field's value."""
        place = BY_NAME[name]
        return int.from_bytes(self.page[place.at : place.at + place.size], "little")

    def wide(self, low: str, high: str) -> int:
        """A value whose upper half lies elsewhere."""
        return self.field(low) | self.field(high) << 32

    @property
    def command_line(self) -> int:
        """Where the command line lies (get_cmd_line_ptr)."""
        return self.wide("cmd_line_ptr", "ext_cmd_line_ptr")

    @property
    def ramdisk(self) -> Extent | None:
        """The initrd's very bytes (get_ramdisk_image, get_ramdisk_size); None without a size."""
        size = self.wide("ramdisk_size", "ext_ramdisk_size")
        start = self.wide("ramdisk_image", "ext_ramdisk_image")
        return Extent.sized(start, size) if size else None

    def line(self, memory: Memory) -> bytes:
        """The command line.  Raises Garbled where it does not end, MachineError outside memory."""
        return string(memory, self.command_line) if self.command_line else b""

    def told(self, memory: Memory) -> Told:
        """The whole of it.  Raises as `line`."""
        ramdisk = self.ramdisk
        return Told(
            line=self.line(memory),
            modules=(ramdisk,) if ramdisk else (),
            rows=self.rows,
        )


def read(memory: Memory, at: int) -> ZeroPage:
    """The page at an address.  Raises Garbled for a list that does not end and for a map of too
    many rows, MachineError outside memory."""
    page = bytes(memory.read(Extent.sized(at, SIZE)))
    nodes: list[tuple[int, int, bytes]] = []
    place = BY_NAME["setup_data"]
    node = int.from_bytes(page[place.at : place.at + place.size], "little")
    while node:
        if len(nodes) > MAP_ROWS:
            raise Garbled(f"the list of setup_data does not end: it is at {node:#x} again")
        following, kind, size = NODE.unpack(memory.read(Extent.sized(node, NODE.size)))
        if size > MOST_OF_A_NODE:
            raise Garbled(f"the setup_data node at {node:#x} has {size:#x} bytes")
        data = bytes(memory.read(Extent.sized(node + NODE.size, size)))
        nodes.append((node, kind, data))
        node = following
    return ZeroPage(at=at, page=page, nodes=tuple(nodes), rows=_rows(page, nodes))


def _rows(page: bytes, nodes: Sequence[tuple[int, int, bytes]]) -> tuple[Row, ...]:
    count = page[BY_NAME["e820_entries"].at]
    if count > MAP_ROWS:
        raise Garbled(f"e820_entries is {count}, and the table has {MAP_ROWS} rows")
    more = [data for _, kind, data in nodes if kind == E820_EXT]
    return tuple(chain(*map(_listed, (page[MAP : MAP + count * ROW.size], *more))))


@lru_cache(maxsize=16)
def _listed(table: bytes) -> tuple[Row, ...]:
    """The rows of one table.  Read as loaded and at the entry, and alike in every handover of a
    host."""
    # Linux takes the rows that are whole (e820__memory_setup_extended).
    whole = ROW.iter_unpack(table[: len(table) // ROW.size * ROW.size])
    return tuple(Row(extent=Extent.sized(start, size), type=kind) for start, size, kind in whole)
