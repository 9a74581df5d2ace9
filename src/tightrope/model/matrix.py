"""The matrix of configurations: what `deeds.matrix` makes and a report shows.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.model.host import FOUR_FOUR

if TYPE_CHECKING:
    from tightrope.choices import Paging, XenCrash
    from tightrope.model.verdict import Criterion, Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One configuration: `outcome` None where it does not exist, for the reason in `detail`."""

    paging: Paging
    page_offset: int | None
    """PAGE_OFFSET, the memory split; V is in the kernel's text, with the 4G/4G split in a fixmap.
    """
    crash: bool
    kernel: str
    machine: str
    xen: str | None
    """Under Xen the interface and dom0's width, "v2, 32-bit dom0"."""
    crashed: XenCrash | None
    """Under Xen, who dies in a crash kexec."""
    outcome: Outcome | None
    detail: str
    seconds: float
    asked: tuple[Criterion, ...] = ()
    """The rules that its rehearsal was asked; empty where there was none."""

    @property
    def split(self) -> str:
        """PAGE_OFFSET as people write it, a dash in the modes that have none."""
        if self.page_offset is None:
            return "-"
        return f"{self.page_offset:#010x}{' (4G/4G)' * (self.page_offset == FOUR_FOUR)}"
