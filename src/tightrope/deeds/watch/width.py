"""What differs between a 64-bit Linux and a 32-bit one where its structures are read.

    struct resource       resource_size_t start, end; then six words: name, flags, desc, parent, sibling,
                          child; resource_size_t has 64 bits with PAE (CONFIG_PHYS_ADDR_T_64BIT)
    struct kexec_segment  buf, bufsz, mem, memsz: four words
    machine_kexec(image)  its argument in RDI (psABI), or in EAX (-mregparm=3, arch/x86/Makefile)

Source: Linux include/linux/ioport.h, include/linux/kexec.h.

Rules: layouts and names alone; who reads with them is another file's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Width:
    """The layouts of one kernel."""

    bits: int
    argument: str
    """gdb's name of the register that has a C function's first argument."""
    word: struct.Struct
    resource: struct.Struct
    row: struct.Struct
    """struct kexec_segment."""

    @property
    def size(self) -> int:
        """Bytes of a word."""
        return self.word.size


_ROW_32, _WORD_32 = struct.Struct("<4I"), struct.Struct("<I")
WIDE = Width(
    bits=64,
    argument="rdi",
    word=struct.Struct("<Q"),
    resource=struct.Struct("<8Q"),
    row=struct.Struct("<4Q"),
)
I386 = Width(bits=32, argument="rax", word=_WORD_32, resource=struct.Struct("<8I"), row=_ROW_32)
PAE = Width(bits=32, argument="rax", word=_WORD_32, resource=struct.Struct("<QQ6I"), row=_ROW_32)
