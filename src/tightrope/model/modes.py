"""The paging modes: what each demands of the control registers, its tables, and what kernels do in
it.

Rules: one row a mode; whoever asks "which mode is this", "which bits does it need" or "what is
particular about it" reads it here, and names no mode.  Sources: SDM volume 3, 4.1.1 (the paging
modes); Linux Documentation/arch/x86/x86_64/mm.rst (where the direct map begins without KASLR).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tightrope.choices import Paging
from tightrope.memory import PAGE_SIZE, Virt
from tightrope.x86 import cpu as x86
from tightrope.x86.paging import FORMATS, Format

LONG = x86.EFER_LMA | x86.EFER_LME


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A paging mode: which bits have to be on and off for it, and what it brings along."""

    format: Format
    cr4_on: int = 0
    cr4_off: int = 0
    efer_on: int = 0
    efer_off: int = 0
    feature: str | None = None
    """The field of `Cpu`, and the flag in /proc/cpuinfo, that a CPU needs for it."""
    direct_map: Virt
    """Where Linux maps all RAM without KASLR; 0 where the memory split says it."""
    reads_root: bool = False
    """A new kernel reads the table that it is entered with, and the one behind its first entry, by
    their own addresses: initialize_identity_maps() and paging_prepare() in Linux
    arch/x86/boot/compressed, ident_map_64.c and pgtable_64.c."""
    under_xen: bool = True
    """There has been a Xen that runs in it."""
    example_cr4: int
    """CR4 of the example host."""
    pc_cr4: int
    """The same without PCIDE, which the CPU that QEMU's TCG plays does not have."""

    @property
    def levels(self) -> int:
        """Tables on the way to a 4 KiB page."""
        return len(self.format.levels)


MODES: Mapping[Paging, Mode] = {
    Paging.I386: Mode(
        format=FORMATS["i386"],
        cr4_off=x86.CR4_PAE | x86.CR4_LA57 | x86.CR4_PCIDE,
        efer_off=LONG | x86.EFER_NXE,
        direct_map=Virt(0),
        example_cr4=0x6D0,
        pc_cr4=0x6D0,
    ),
    Paging.PAE: Mode(
        format=FORMATS["pae"],
        cr4_on=x86.CR4_PAE,
        cr4_off=x86.CR4_LA57 | x86.CR4_PCIDE,
        efer_off=LONG,
        direct_map=Virt(0),
        example_cr4=0x6F0,
        pc_cr4=0x6F0,
    ),
    Paging.X86_64: Mode(
        format=FORMATS["x86_64"],
        cr4_on=x86.CR4_PAE,
        cr4_off=x86.CR4_LA57,
        efer_on=LONG,
        direct_map=Virt(0xFFFF_8880_0000_0000),
        example_cr4=0x37_06F0,
        pc_cr4=0x35_06F0,
    ),
    Paging.LA57: Mode(
        format=FORMATS["la57"],
        cr4_on=x86.CR4_PAE | x86.CR4_LA57,
        efer_on=LONG,
        feature="la57",
        direct_map=Virt(0xFF11_0000_0000_0000),
        reads_root=True,
        under_xen=False,
        example_cr4=0x37_16F0,
        pc_cr4=0x35_16F0,
    ),
}


def mode_of(cr4: int, efer: int) -> Paging:
    """The mode that the control registers say, with paging on: the last one that has all its
    bits."""
    return next(
        paging
        for paging, mode in reversed(list(MODES.items()))
        if not (mode.cr4_on & ~cr4 or mode.efer_on & ~efer)
    )


def text_page_size(paging: Paging, *, pse: bool) -> int:
    """Bytes of the pages that the old kernel's text is mapped in: the mode's large ones below 1
    GiB."""
    if paging is Paging.I386 and not pse:
        return PAGE_SIZE
    return MODES[paging].format.page_sizes(gbpages=False)[0]
