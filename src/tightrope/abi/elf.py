"""ELF as data: headers, notes, and the numbers in them that a loader or a dump's reader judges.

Sources: System V ABI, chapters "Object Files" and "Program Loading" (the Linux names are those of
include/uapi/linux/elf.h and elf-em.h); Xen's notes from xen/include/public/elfnote.h and
docs/misc/pvh.pandoc.

    0x00 +-------------------+
         | ELF header        |  e_phoff, e_phnum --+
         +-------------------+                     |
         | program headers   |  <------------------+   PT_LOAD: p_offset, p_filesz -> p_paddr, p_memsz
         +-------------------+                         PT_NOTE: p_offset, p_filesz -> notes
         | what they load    |
         +-------------------+

Rules: numbers only, and no library: what performs on a real machine reads ELF with this file alone.
A field has its own name without the prefix (e_, p_, n_).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from types import MappingProxyType

MAGIC = b"\x7fELF"


@dataclass(frozen=True, slots=True)
class Layout:
    """A structure of little-endian unsigned integers without padding: name -> bytes, in order."""

    fields: Mapping[str, int]

    @property
    def _struct(self) -> Struct:
        codes = {1: "B", 2: "H", 4: "I", 8: "Q"}
        return Struct("<" + "".join(codes[size] for size in self.fields.values()))

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return sum(self.fields.values())

    def offset(self, name: str) -> int:
        """Bytes before a field.  Raises KeyError for a field that is not there."""
        names = list(self.fields)
        if name not in self.fields:
            raise KeyError(name)
        return sum(self.fields[each] for each in names[: names.index(name)])

    def unpack(self, data: bytes | bytearray | memoryview, at: int = 0) -> dict[str, int]:
        """The fields at an offset of `data`.  Raises struct.error where they are not all there."""
        return dict(zip(self.fields, self._struct.unpack_from(data, at), strict=True))

    def pack(self, **values: int) -> bytes:
        """The bytes; fields that are not given are 0.

        Raises KeyError for a field that is not there, struct.error for a value that does not fit.
        """
        if values.keys() - self.fields.keys():
            raise KeyError(", ".join(sorted(values.keys() - self.fields.keys())))
        return self._struct.pack(*(values.get(name, 0) for name in self.fields))


_IDENT = {"magic": 4, "class": 1, "data": 1, "ident_version": 1, "osabi": 1, "ident_rest": 8}
_COUNTS = ("ehsize", "phentsize", "phnum", "shentsize", "shnum", "shstrndx")


def _header(word: int) -> Layout:
    """The ELF header; `word` is the bytes of an address."""
    places = dict.fromkeys(("entry", "phoff", "shoff"), word)
    kind = {"type": 2, "machine": 2, "version": 4}
    return Layout({**_IDENT, **kind, **places, "flags": 4, **dict.fromkeys(_COUNTS, 2)})


HEADER: Mapping[int, Layout] = MappingProxyType({32: _header(4), 64: _header(8)})
"""The ELF header by class; its first 16 bytes, e_ident, are the same in both."""
_SEGMENT = ("offset", "vaddr", "paddr", "filesz", "memsz")
PROGRAM_HEADER: Mapping[int, Layout] = MappingProxyType(
    {
        32: Layout({"type": 4, **dict.fromkeys(_SEGMENT, 4), "flags": 4, "align": 4}),
        64: Layout({"type": 4, "flags": 4, **dict.fromkeys(_SEGMENT, 8), "align": 8}),
    }
)
"""A program header by class."""
NOTE = Layout({"namesz": 4, "descsz": 4, "type": 4})
"""Before a note's name and description, each of which is padded to a multiple of 4."""
NOTE_ALIGNMENT = 4

IDENT_CLASS = 4
CLASS_BITS: Mapping[int, int] = MappingProxyType({1: 32, 2: 64})
"""e_ident[EI_CLASS]: bits of an address."""
CLASS: Mapping[int, int] = MappingProxyType({bits: number for number, bits in CLASS_BITS.items()})
"""The other way round."""
IDENT_DATA = 5
LITTLE_ENDIAN = 1
VERSION = 1

ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
TYPES: Mapping[int, str] = MappingProxyType(
    {ET_REL: "ET_REL", ET_EXEC: "ET_EXEC", ET_DYN: "ET_DYN", ET_CORE: "ET_CORE"}
)
EM_386, EM_X86_64 = 3, 62
MACHINES: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        2: ("EM_SPARC", "sparc"),
        EM_386: ("EM_386", "i386"),
        8: ("EM_MIPS", "mips"),
        15: ("EM_PARISC", "hppa"),
        20: ("EM_PPC", "powerpc"),
        21: ("EM_PPC64", "ppc64"),
        22: ("EM_S390", "s390x"),
        40: ("EM_ARM", "arm"),
        42: ("EM_SH", "sh"),
        43: ("EM_SPARCV9", "sparc64"),
        50: ("EM_IA_64", "ia64"),
        EM_X86_64: ("EM_X86_64", "x86_64"),
        183: ("EM_AARCH64", "arm64"),
        243: ("EM_RISCV", "riscv"),
        258: ("EM_LOONGARCH", "loongarch"),
    }
)
"""e_machine: its name in elf-em.h, and what Debian or Linux calls the architecture."""
PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_NOTE, PT_TLS = 1, 2, 3, 4, 7
PF_X = 1
"""p_flags: the segment may be executed."""
PF_RWX = 7
PN_XNUM = 0xFFFF
"""e_phnum: the number does not fit and stands in a section header."""

GNU_OWNER = "GNU"
NT_GNU_ABI_TAG = 1
"""The note of a program that runs under an operating system."""
XEN_OWNER = "Xen"
XEN_ELFNOTE_PHYS32_ENTRY = 18
"""The physical address of the PVH entry; 4 bytes, or 8 in Linux's 64-bit kernels
(arch/x86/platform/pvh/head.S, _ASM_PTR)."""
XEN_NOTE_SIZES = frozenset({4, 8})

COMMAND_LINE_SIZE = 2048
"""Bytes of command line with its terminating zero (Linux arch/x86/include/asm/setup.h)."""
INITRD_ADDR_MAX: Mapping[int, int] = MappingProxyType({32: 0x37FF_FFFF, 64: 0x7FFF_FFFF})
"""By bits of the kernel, where no setup header says it: boot.rst (initrd_addr_max, the default of
old protocols) and what header.S has always had since."""

if (HEADER[32].size, HEADER[64].size) != (52, 64):
    raise ValueError("an ELF header does not have the size that the System V ABI gives it")
if (PROGRAM_HEADER[32].size, PROGRAM_HEADER[64].size) != (32, 56):
    raise ValueError("a program header does not have the size that the System V ABI gives it")


def ident(bits: int) -> dict[str, int]:
    """The fields of e_ident for a little-endian file of a class."""
    return {
        "magic": int.from_bytes(MAGIC, "little"),
        "class": CLASS[bits],
        "data": LITTLE_ENDIAN,
        "ident_version": VERSION,
    }
