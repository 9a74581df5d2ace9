"""What a kernel was handed when it was entered, as it lay in memory: the facts that it goes on
with.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.memory import Extent


@dataclass(frozen=True, kw_only=True, slots=True)
class Entered:
    """boot_params and what hangs on it, by what a kernel takes from there."""

    rows: tuple[tuple[Extent, int], ...]
    """The memory map, row by row: an extent and its type, a number of E820's."""
    setup_data: tuple[tuple[int, int], ...]
    """(type, bytes of data) of each node of the list, in its order."""
    rsdp: int
    screen: bytes
    """struct screen_info, 64 bytes."""
    efi: bytes
    """struct efi_info, 32 bytes; zeros where nothing of EFI is handed on."""
    command_line: bytes

    @property
    def ram(self) -> int:
        """Bytes that it takes for its RAM."""
        return sum(extent.size for extent, kind in self.rows if kind == RAM)


RAM = 1
"""The type of memory that may be used, in E820."""
