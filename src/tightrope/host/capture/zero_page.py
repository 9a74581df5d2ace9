"""What the running kernel was booted with: the zero page in /sys/kernel/boot_params/data.

Rules: as `iomem`.  Offsets are those of zero-page.rst and bootparam.h; what is told is the boot
loader's word, not the kernel's.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from tightrope.abi import boot
from tightrope.host.capture.iomem import TOP, regions
from tightrope.memory import Extent, Region, RegionKind

EFI_INFO, EFI_INFO_FORMAT = 0x1C0, "<4s7I"
"""struct efi_info: loader signature, system table, descriptor size and version, memory map and its
size, and the upper halves of the two addresses."""
SCREEN_INFO = slice(0, 0x40)
ORIG_VIDEO_IS_VGA = 0x0F
_KINDS = {each.value: RegionKind[each.name] for each in boot.E820Type}


@dataclass(frozen=True, kw_only=True, slots=True)
class ZeroPage:
    """The memory map, the RSDP (0: none), EFI's tables and the screen."""

    regions: tuple[Region, ...]
    rsdp: int
    efi: tuple[tuple[int, int, str], ...]
    """(physical, bytes, what)."""
    screen: bytes
    """struct screen_info, empty where no loader filled it in."""


def zero_page(text: str) -> ZeroPage | None:
    """The page's facts, None where it is none."""
    data = text.encode("latin-1", "replace")
    if len(data) < boot.BOOT_PARAMS_SIZE:
        return None
    count = min(boot.field("e820_entries").read(data), boot.E820_MAX_ENTRIES)
    rows: list[tuple[Extent, RegionKind]] = []
    for number in range(count):
        start, size, kind = boot.E820_ENTRY.unpack_from(
            data, boot.E820_TABLE + number * boot.E820_ENTRY.size
        )
        rows.append((Extent.sized(start, size), _KINDS.get(kind, RegionKind.RESERVED)))
    screen = data[SCREEN_INFO]
    return ZeroPage(
        regions=regions(rows),
        rsdp=boot.field("acpi_rsdp_addr").read(data),
        efi=tuple(_efi(data)),
        screen=screen if any(screen) else b"",
    )


def _efi(data: bytes) -> list[tuple[int, int, str]]:
    loader, table, _, _, descriptors, size, table_high, high = struct.unpack_from(
        EFI_INFO_FORMAT, data, EFI_INFO
    )
    if loader not in (b"EL64", b"EL32"):
        return []
    rows = (
        (table | table_high << 32, 4096, "EFI system table"),
        (descriptors | high << 32, size, "EFI memory map"),
    )
    return [row for row in rows if row[0] and row[1] and row[0] + row[1] <= TOP]
