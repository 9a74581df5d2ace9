"""What each paging mode demands of the control registers, and its page-table format: data, asked by name.

Rules: one row a mode; whoever asks "which mode is this" or "which bits does it need" reads it here.
Source: SDM volume 3, 4.1.1 (the paging modes).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tightrope.memory import PAGE_SIZE
from tightrope.model.walk import Paging
from tightrope.x86 import cpu as x86
from tightrope.x86.paging import FORMATS, Format

LONG = x86.EFER_LMA | x86.EFER_LME


@dataclass(frozen=True, slots=True, kw_only=True)
class Mode:
    """A paging mode: which bits have to be on and off for it."""

    format: Format
    cr4_on: int = 0
    cr4_off: int = 0
    efer_on: int = 0
    efer_off: int = 0


MODES: Mapping[Paging, Mode] = {
    Paging.I386: Mode(
        format=FORMATS["i386"],
        cr4_off=x86.CR4_PAE | x86.CR4_LA57 | x86.CR4_PCIDE,
        efer_off=LONG | x86.EFER_NXE,
    ),
    Paging.PAE: Mode(
        format=FORMATS["pae"],
        cr4_on=x86.CR4_PAE,
        cr4_off=x86.CR4_LA57 | x86.CR4_PCIDE,
        efer_off=LONG,
    ),
    Paging.X86_64: Mode(
        format=FORMATS["x86_64"], cr4_on=x86.CR4_PAE, cr4_off=x86.CR4_LA57, efer_on=LONG
    ),
    Paging.LA57: Mode(format=FORMATS["la57"], cr4_on=x86.CR4_PAE | x86.CR4_LA57, efer_on=LONG),
}


def text_page_size(paging: Paging, *, pse: bool) -> int:
    """Bytes of the pages that the old kernel's text is mapped in: the mode's large ones below 1 GiB."""
    if paging is Paging.I386 and not pse:
        return PAGE_SIZE
    return MODES[paging].format.page_sizes(gbpages=False)[0]
