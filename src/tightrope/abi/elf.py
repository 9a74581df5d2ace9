"""ELF kernels as data: where the fields lie that a loader judges, and the notes that it looks for.

Sources: System V ABI, chapters "Object Files" and "Program Loading" (the Linux names are those of
include/uapi/linux/elf.h); Xen's notes from xen/include/public/elfnote.h and docs/misc/pvh.pandoc.

    0x00 +-------------------+
         | ELF header        |  e_phoff, e_phnum --+
         +-------------------+                     |
         | program headers   |  <------------------+   PT_LOAD: p_offset, p_filesz -> p_paddr, p_memsz
         +-------------------+
         | what they load    |
         +-------------------+

Rules: numbers only.  A library reads the fields; their offsets are here so that an error can name one.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

MAGIC = b"\x7fELF"
IDENT_CLASS = 4
CLASS_BITS: Mapping[int, int] = MappingProxyType({1: 32, 2: 64})
"""e_ident[EI_CLASS]: bits of an address."""

HEADER_SIZE: Mapping[int, int] = MappingProxyType({32: 52, 64: 64})
"""Bytes of the ELF header by class."""
PROGRAM_HEADER_SIZE: Mapping[int, int] = MappingProxyType({32: 32, 64: 56})
"""Bytes of one program header by class."""

HEADER_OFFSETS: Mapping[int, Mapping[str, int]] = MappingProxyType(
    {
        32: {
            "e_ident": 0,
            "e_type": 16,
            "e_machine": 18,
            "e_entry": 24,
            "e_phoff": 28,
            "e_phentsize": 42,
            "e_phnum": 44,
        },
        64: {
            "e_ident": 0,
            "e_type": 16,
            "e_machine": 18,
            "e_entry": 24,
            "e_phoff": 32,
            "e_phentsize": 54,
            "e_phnum": 56,
        },
    }
)
"""By class: offsets of the header's fields, in bytes from the start of the file."""
PROGRAM_HEADER_OFFSETS: Mapping[int, Mapping[str, int]] = MappingProxyType(
    {
        32: {"p_offset": 4, "p_vaddr": 8, "p_paddr": 12, "p_filesz": 16, "p_memsz": 20},
        64: {"p_offset": 8, "p_vaddr": 16, "p_paddr": 24, "p_filesz": 32, "p_memsz": 40},
    }
)
"""By class: offsets of a program header's fields, in bytes from its start."""

PF_X = 1
"""p_flags: the segment may be executed."""
PN_XNUM = 0xFFFF
"""e_phnum: the number does not fit and stands in a section header."""

XEN_OWNER = "Xen"
XEN_ELFNOTE_PHYS32_ENTRY = 18
"""The physical address of the PVH entry; 4 bytes, or 8 in Linux's 64-bit kernels
(arch/x86/platform/pvh/head.S, _ASM_PTR)."""
XEN_NOTE_SIZES = frozenset({4, 8})

COMMAND_LINE_SIZE = 2048
"""Bytes of command line with its terminating zero (Linux arch/x86/include/asm/setup.h)."""
INITRD_ADDR_MAX: Mapping[int, int] = MappingProxyType({32: 0x37FF_FFFF, 64: 0x7FFF_FFFF})
"""By bits of the kernel, where no setup header says it: boot.rst (initrd_addr_max, the default of old
protocols) and what header.S has always had since."""
