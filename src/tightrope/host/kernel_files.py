"""What the files of /proc and /sys say, file by file: text in, facts out, None where they say nothing.

    /proc/iomem, /sys/firmware/memmap, boot_params   physical memory (Linux kernel/resource.c,
                                                      drivers/firmware/memmap.c, zero-page.rst)
    /proc/kallsyms, /proc/kcore                       where the kernel is mapped (kernel/kallsyms.c,
                                                      fs/proc/kcore.c)
    /proc/cpuinfo, /proc/meminfo                      the CPU, how much memory is in use

Rules: bytes arrive as text, one character each (Latin-1), so that nothing is undecodable.  A kernel
prints zeros to those who may not know (kptr_restrict, resource_list without CAP_SYS_ADMIN): such
values are `HIDDEN`, never addresses.  Nothing is assumed here; no file is opened.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from tightrope.abi import boot
from tightrope.memory import Extent, Region, RegionKind, subtract
from tightrope.x86 import cpu as x86


class Hidden(Enum):
    """The type of HIDDEN."""

    HIDDEN = "hidden"


HIDDEN: Final = Hidden.HIDDEN
"""The kernel shows zeros instead."""

START_KERNEL_MAP = 0xFFFF_FFFF_8000_0000
_MOST_LINES = 1 << 16
_TOP = 1 << 52

_KINDS = {
    "system ram": RegionKind.RAM,
    "acpi tables": RegionKind.ACPI,
    "acpi non-volatile storage": RegionKind.NVS,
    "unusable memory": RegionKind.UNUSABLE,
    "persistent memory": RegionKind.PMEM,
    "persistent memory (legacy)": RegionKind.PMEM,
    "reserved": RegionKind.RESERVED,
}
"""Names of e820 types (arch/x86/kernel/e820.c, e820_type_to_string); others are reserved."""

_ALWAYS_CR4 = ("PSE", "PAE", "MCE", "PGE", "OSFXSR", "OSXMMEXCPT")
_CR4_BY_FLAG = {
    "umip": "UMIP", "fsgsbase": "FSGSBASE", "pcid": "PCIDE", "xsave": "OSXSAVE", "smep": "SMEP",
    "smap": "SMAP", "ospke": "PKE",
}  # fmt: skip
_SCE = 1
_BELIEVED_FIRST = (
    RegionKind.UNUSABLE,
    RegionKind.NVS,
    RegionKind.ACPI,
    RegionKind.PMEM,
    RegionKind.RESERVED,
    RegionKind.RAM,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    """A line of /proc/iomem; `depth` counts the resources around it."""

    depth: int
    extent: Extent
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelPlace:
    """What /proc/kcore's program headers say; None where they do not."""

    text: tuple[int, int, int] | None
    """(linear, physical, bytes)."""
    direct_map: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class BootParams:
    """What the old kernel was booted with: its e820 table, RSDP and EFI tables (0: none)."""

    regions: tuple[Region, ...]
    rsdp: int
    efi: tuple[tuple[int, int, str], ...]
    """(physical, bytes, what)."""


def regions(rows: Iterable[tuple[Extent, RegionKind]]) -> tuple[Region, ...]:
    """Sorted regions without overlap; where two rows disagree, what is not RAM is believed."""
    by_kind: dict[RegionKind, list[Extent]] = {kind: [] for kind in _BELIEVED_FIRST}
    for extent, kind in rows:
        if extent.end <= _TOP:
            by_kind[kind].append(extent)
    taken: list[Extent] = []
    out: list[Region] = []
    for kind, extents in by_kind.items():
        pieces = subtract(extents, taken)
        out += [Region(piece, kind) for piece in pieces]
        taken += pieces
    return tuple(sorted(out))


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
    """The memory map as far as /proc/iomem tells it: its top level, without buses and devices."""
    return regions(
        (each.extent, _KINDS[each.name.lower()])
        for each in resources
        if each.depth == 0 and each.name.lower() in _KINDS
    )


def firmware_regions(files: Mapping[str, str]) -> tuple[Region, ...] | Hidden | None:
    """The map in /sys/firmware/memmap; `files` has "0/start", "0/end", "0/type" and so on."""
    rows: list[tuple[Extent, RegionKind]] = []
    for number in sorted({name.partition("/")[0] for name in files}):
        start, last = (_hexadecimal(files.get(f"{number}/{key}")) for key in ("start", "end"))
        if start is None or last is None or last < start or len(rows) >= _MOST_LINES:
            return None
        kind = _KINDS.get(files.get(f"{number}/type", "").strip().lower(), RegionKind.RESERVED)
        rows.append((Extent(start, last + 1), kind))
    if len(rows) > 1 and all(extent == Extent(0, 1) for extent, _ in rows):
        return HIDDEN
    return regions(rows) or None


def boot_params(text: str) -> BootParams | None:
    """The zero page in /sys/kernel/boot_params/data (zero-page.rst; bootparam.h, struct efi_info)."""
    data = text.encode("latin-1", "replace")
    if len(data) < boot.BOOT_PARAMS_SIZE:
        return None
    count = min(boot.field("e820_entries").read(data), boot.E820_MAX_ENTRIES)
    rows: list[tuple[Extent, RegionKind]] = []
    for number in range(count):
        start, size, kind = boot.E820_ENTRY.unpack_from(
            data, boot.E820_TABLE + number * boot.E820_ENTRY.size
        )
        known = kind in {each.value for each in boot.E820Type}
        name = boot.E820Type(kind).name.lower() if known else "reserved"
        rows.append((Extent.sized(start, size), RegionKind(name)))
    efi: list[tuple[int, int, str]] = []
    loader, table, _, _, descriptors, size, table_high, high = struct.unpack_from(
        "<4s7I", data, 0x1C0
    )
    if loader in (b"EL64", b"EL32"):
        efi = [
            (table | table_high << 32, 4096, "EFI system table"),
            (descriptors | high << 32, size, "EFI memory map"),
        ]
    return BootParams(
        regions=regions(rows),
        rsdp=boot.field("acpi_rsdp_addr").read(data),
        efi=tuple(row for row in efi if row[0] and row[1]),
    )


def symbols(text: str, names: Iterable[str]) -> dict[str, int] | Hidden:
    """The kernel's own symbols of these names (not a module's), by name.  32-bit addresses included."""
    wanted = "|".join(map(re.escape, names))
    pattern = rf"^([0-9a-f]{{8}}|[0-9a-f]{{16}}) [A-Za-z] ({wanted})$"
    found = {match[2]: int(match[1], 16) for match in re.finditer(pattern, text, re.MULTILINE)}
    return HIDDEN if found and not any(found.values()) else found


def kcore(text: str) -> KernelPlace | None:
    """The program headers at the start of /proc/kcore (ELF64; kcore fills in p_paddr since 4.19)."""
    data = text.encode("latin-1", "replace")
    if len(data) < 64 or data[:5] != b"\x7fELF\x02":
        return None
    (first,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    place: tuple[int, int, int] | None = None
    direct: int | None = None
    for number in range(count if size == 56 else 0):
        at = first + number * size
        if at + size > len(data):
            break
        kind, _, _, virt, phys, _, memory = struct.unpack_from("<IIQQQQQ", data, at)
        if kind != 1 or not 0 < phys < _TOP:
            continue  # 0 (before 4.19) and -1: not told, or not a linear piece of memory
        if virt >= START_KERNEL_MAP and place is None:
            place = (virt, phys, memory)
        elif virt < START_KERNEL_MAP and direct is None and virt - phys >= 1 << 63:
            direct = virt - phys
    return KernelPlace(text=place, direct_map=direct)


def cpu_flags(text: str) -> frozenset[str] | None:
    """The flags of the first CPU in /proc/cpuinfo, None when this is not an x86's."""
    found = re.search(r"^flags\s*: ([^\n]*)$", text, re.MULTILINE)
    return frozenset(found[1].split()) if found else None


def control_registers(flags: frozenset[str]) -> dict[str, int]:
    """cr0, cr4 and efer as a 64-bit Linux sets them on a CPU with these flags.

    CR0_STATE in asm/processor-flags.h; arch/x86/kernel/cpu/common.c; secondary_startup_64.
    """
    names = [*_ALWAYS_CR4, *(bit for flag, bit in _CR4_BY_FLAG.items() if flag in flags)]
    return {
        "cr0": 0x8005_0033,  # PG AM WP NE ET MP PE
        "cr4": sum(x86.CR4_NAMES[name] for name in names),
        "efer": x86.EFER_LMA | x86.EFER_LME | _SCE | (x86.EFER_NXE if "nx" in flags else 0),
    }


def physical_bits(text: str) -> int | None:
    """MAXPHYADDR as /proc/cpuinfo prints it."""
    found = re.search(r"^address sizes\s*: (\d{1,2}) bits physical", text, re.MULTILINE)
    return int(found[1]) if found and 32 <= int(found[1]) <= 52 else None


def meminfo(text: str) -> dict[str, int]:
    """/proc/meminfo in bytes, by name."""
    rows = re.finditer(r"^(\w{1,40}):\s+(\d{1,12}) kB$", text, re.MULTILINE)
    return {match[1]: int(match[2]) << 10 for match in rows}


def _hexadecimal(text: str | None) -> int | None:
    found = re.fullmatch(r"0x([0-9a-f]{1,16})\s*", text or "")
    return int(found[1], 16) if found else None
