"""What the notes of a dead kernel's core say.

Rules: frozen, keyword-only, slotted; nouns only, see the package.  Standard library alone: a crash
kernel's initramfs reads notes too.

May import: nothing
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

EM_386, EM_X86_64 = 3, 62
"""e_machine (System V ABI, gABI chapter 4)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlRegisters:
    """What a note says of one CPU; `who` is the note's name."""

    who: str
    cr0: int
    cr3: int
    cr4: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes:
    """What the notes say.  `prstatus` has each NT_PRSTATUS as it is, one a CPU."""

    vmcoreinfo: Mapping[str, str]
    prstatus: tuple[bytes, ...]
    control: tuple[ControlRegisters, ...]

    @property
    def cpus(self) -> int:
        """How many CPUs left a note."""
        return len(self.prstatus)

    def number(self, key: str, base: int = 10) -> int | None:
        """A VMCOREINFO value as a number, None when it is missing or none.

        Linux prints NUMBER() in decimal and SYMBOL() and KERNELOFFSET in bare hexadecimal.
        """
        text = self.vmcoreinfo.get(key)
        try:
            return None if text is None else int(text, base)
        except ValueError:
            return None
