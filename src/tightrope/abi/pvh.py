"""Xen's direct boot (PVH) as data: what a kernel is handed at its PHYS32_ENTRY.

Source: Xen's xen/include/public/arch-x86/hvm/start_info.h; the CPU's state is in
docs/misc/pvh.pandoc: protected mode, paging off, ebx = the address of hvm_start_info, CR0 nothing
but PE, CR4 zero.

Rules: numbers only.  All addresses are physical and 64 bits wide.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

MAGIC = 0x336EC578
"""The first word: "xEn3" with the 0x80 bit of the "E" set."""
VERSION = 1
"""The version that has a memory map."""

START_INFO = Struct("<IIIIQQQQII")
"""magic, version, flags, nr_modules, modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr,
memmap_entries, reserved."""
MODULE = Struct("<QQQQ")
"""hvm_modlist_entry: paddr, size, cmdline_paddr, reserved."""
MEMORY = Struct("<QQII")
"""hvm_memmap_table_entry: addr, size, type, reserved."""


class Memory(IntEnum):
    """XEN_HVM_MEMMAP_TYPE_*: the e820 types; the last two are Linux's own (asm/e820/types.h)."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4
    UNUSABLE = 5
    PMEM = 7
    PRAM = 12
    SOFT_RESERVED = 0xEFFF_FFFF


if (START_INFO.size, MODULE.size, MEMORY.size) != (56, 32, 24):
    raise ValueError("a structure does not have the size that start_info.h gives it")
