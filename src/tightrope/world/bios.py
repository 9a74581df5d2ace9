"""The two words of the BIOS data area that new kernels read before they read anything else.

    0x40e   the extended BIOS data area's segment    } where conventional memory ends, for kernels that
    0x413   KiB of conventional memory               } put a trampoline below it

Sources: Linux arch/x86/include/asm/bios_ebda.h and boot/compressed/pgtable_64.c; Xen
xen/arch/x86/boot/head.S.  The host file does not have them: they follow from its memory map, which
a BIOS reports from the same numbers.

Rules: a host without RAM at 0, or whose low memory does not end where a BIOS's can, has no such
words.
"""

from __future__ import annotations

from tightrope.memory import MemoryMap, Phys
from tightrope.model import Piece, PieceRole

EBDA_SEGMENT, BASE_MEMORY = 0x40E, 0x413
LOWEST_END, HIGHEST_END = 0x20000, 0xA0000
"""Below 128 KiB Linux does not believe it (BIOS_START_MIN); video memory begins at 640 KiB."""


def pieces(memory: MemoryMap) -> tuple[Piece, ...]:
    """The words as pieces, none where the memory map is not that of a BIOS."""
    end = memory.ram[0].end if memory.ram and memory.ram[0].start == 0 else 0
    if not LOWEST_END <= end <= HIGHEST_END:
        return ()
    return tuple(
        Piece(phys=Phys(at), data=value.to_bytes(2, "little"), role=PieceRole.BIOS)
        for at, value in ((EBDA_SEGMENT, end >> 4), (BASE_MEMORY, end >> 10))
    )
