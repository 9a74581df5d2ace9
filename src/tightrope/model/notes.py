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
PGD_SYMBOLS = ("swapper_pg_dir", "init_top_pgt", "init_level4_pgt")
"""The pgd's names in VMCOREINFO; the later ones are x86_64's, since 4.13 and before."""
CR0_PG = 1 << 31


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlRegisters:
    """What a note says of one CPU; `who` is the note's name."""

    who: str
    cr0: int
    cr3: int
    cr4: int

    @property
    def walks(self) -> bool:
        """CR3 leads to tables: a CPU that was never started, or is in firmware, has paging off."""
        return bool(self.cr3 and self.cr0 & CR0_PG)


@dataclass(frozen=True, kw_only=True, slots=True)
class Notes:
    """What the notes say.  `prstatus` has each NT_PRSTATUS as it is, one a CPU."""

    vmcoreinfo: Mapping[str, str]
    """One note's: what two of them say is never mixed."""
    prstatus: tuple[bytes, ...]
    control: tuple[ControlRegisters, ...]
    others: tuple[Mapping[str, str], ...] = ()
    """Further VMCOREINFO notes that say something else."""

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
