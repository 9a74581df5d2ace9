"""Physical memory as the running kernel tells it: /proc/iomem, and the firmware's map in sysfs.

    /proc/iomem             what is where, nested; the kernel's own idea of RAM (kernel/resource.c)
    /sys/firmware/memmap    the firmware's map as it was handed over (drivers/firmware/memmap.c)

Rules: bytes arrive as text, one character each (Latin-1), so that nothing is undecodable.  A kernel
prints zeros to those who may not know (resource_list without CAP_SYS_ADMIN): such values are
`HIDDEN`, never addresses.  Nothing is assumed here; no file is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tightrope.memory import Extent, Region, RegionKind, regions


class Hidden(Enum):
    """The type of HIDDEN."""

    HIDDEN = "hidden"


HIDDEN: Final = Hidden.HIDDEN
"""The kernel shows zeros instead."""
TEXT_PIECES = ("Kernel code", "Kernel rodata", "Kernel data", "Kernel bss")
"""What /proc/iomem calls the kernel's image (arch/x86/kernel/setup.c)."""
CRASH_KERNEL = "Crash kernel"
RAM = "System RAM"
_MOST_LINES = 1 << 16
_KINDS = {
    "system ram": RegionKind.RAM,
    "acpi tables": RegionKind.ACPI,
    "acpi non-volatile storage": RegionKind.NVS,
    "unusable memory": RegionKind.UNUSABLE,
    "persistent memory": RegionKind.PMEM,
    "persistent memory (legacy)": RegionKind.PRAM,
    "soft reserved": RegionKind.SOFT_RESERVED,
    "reserved": RegionKind.RESERVED,
}
"""Names of e820 types (arch/x86/kernel/e820.c, e820_type_to_string); others are reserved.

Linux 7.x says "device reserved" in its log alone: both files keep the old words.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    """A line of /proc/iomem; `depth` counts the resources around it."""

    depth: int
    extent: Extent
    name: str


def has_ram(found: Iterable[Region]) -> bool:
    """Whether there is any."""
    return any(each.kind is RegionKind.RAM for each in found)


def iomem(text: str) -> tuple[Resource, ...] | Hidden | None:
    """The resources of /proc/iomem, in its order."""
    found: list[Resource] = []
    for match in re.finditer(
        r"^( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : ([^\n]*)$", text, re.MULTILINE
    ):
        start, last = int(match[2], 16), int(match[3], 16)
        if start <= last and len(found) < _MOST_LINES:
            extent = Extent(start, last + 1)
            found.append(Resource(depth=len(match[1]) // 2, extent=extent, name=match[4]))
    if found and all(each.extent == Extent(0, 1) for each in found):
        return HIDDEN
    return tuple(found) or None


def iomem_regions(resources: Iterable[Resource]) -> tuple[Region, ...]:
    """The memory map as far as /proc/iomem tells it, without buses and devices.

    A row of the firmware's map may lie in a device's (Soft Reserved in a CXL window, reserved
    memory in a bridge's) or in RAM; RAM itself is at the top level (kernel/resource.c).
    """
    return regions(
        (each.extent, _KINDS[name])
        for each in resources
        if (name := each.name.lower()) in _KINDS and (each.depth == 0 or name != "system ram")
    )


def named(resources: Iterable[Resource], *names: str) -> list[Extent]:
    """The extents of the resources with one of these names, at any depth, in order."""
    return sorted(each.extent for each in resources if each.name in names)


def firmware_regions(files: Mapping[str, str]) -> tuple[Region, ...] | Hidden | None:
    """The map in /sys/firmware/memmap; `files` has "0/start", "0/end", "0/type" and so on."""
    rows: list[tuple[Extent, RegionKind]] = []
    for number in sorted({name.partition("/")[0] for name in files}):
        start, last = (hexadecimal(files.get(f"{number}/{key}")) for key in ("start", "end"))
        if start is None or last is None or last < start or len(rows) >= _MOST_LINES:
            return None
        kind = _KINDS.get(files.get(f"{number}/type", "").strip().lower(), RegionKind.RESERVED)
        rows.append((Extent(start, last + 1), kind))
    if len(rows) > 1 and all(extent == Extent(0, 1) for extent, _ in rows):
        return HIDDEN
    return regions(rows) or None


def hexadecimal(text: str | None) -> int | None:
    """A number with 0x, as sysfs prints addresses; None where it is none."""
    found = re.fullmatch(r"0x([0-9a-f]{1,16})\s*", text or "")
    return int(found[1], 16) if found else None
