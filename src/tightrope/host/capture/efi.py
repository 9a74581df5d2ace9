"""What the firmware left under /sys/firmware/efi: where the RSDP is, and the table of tables.

    /sys/firmware/efi/systab          ACPI20=0x7ff00014, ACPI=..., SMBIOS3=...  (one a line)
    /sys/firmware/efi/config_table    the physical address of the array of tables, in hex
    /sys/firmware/efi/fw_vendor       the address of the vendor's name
    /sys/firmware/efi/runtime-map/N/  one descriptor of the map that runtime services were given: type,
                                      phys_addr, virt_addr, num_pages, attribute, each in hex

Rules: as `iomem`.  Linux puts its own RSDP pointer into boot_params only when a loader did: a
kernel that EFI started finds it in the system table, and a kernel that kexec started has neither.
Sources: drivers/firmware/efi/efi.c, arch/x86/platform/efi/efi.c; ABI/testing/sysfs-firmware-efi,
sysfs-firmware-efi-runtime-map.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tightrope.host.efi import RuntimeTable
from tightrope.memory import Extent

SYSTAB = "/sys/firmware/efi/systab"
CONFIG_TABLE = "/sys/firmware/efi/config_table"
FW_VENDOR = "/sys/firmware/efi/fw_vendor"
RUNTIME_MAP = "/sys/firmware/efi/runtime-map"
RUNTIME_KEYS = ("type", "phys_addr", "num_pages", "virt_addr", "attribute")
_RUNTIME = {5: "EFI runtime services' code", 6: "EFI runtime services' data"}
"""EFI_MEMORY_TYPE of what the firmware goes on to use (UEFI 2.10, 7.2)."""
_EFI_PAGE = 4096
_TOP = 1 << 52
TABLE_BYTES = 4096
"""Assumed of the array: no file says how many tables it has; 4 KiB are 170 of 24 bytes."""


def rsdp(text: str) -> tuple[int, str]:
    """The RSDP and its name in systab, ACPI 2.0's before the older one; 0 where there is none."""
    found = dict(re.findall(r"^([A-Z0-9_]{1,16})=0x([0-9a-f]{1,13})$", text, re.MULTILINE))
    for name in ("ACPI20", "ACPI"):
        if at := int(found.get(name, "0"), 16):
            return at, name
    return 0, ""


def smbios(text: str) -> int | None:
    """The SMBIOS entry point of 32 bits in systab, None without one."""
    found = re.search(r"^SMBIOS=0x([0-9a-f]{1,13})$", text, re.MULTILINE)
    return int(found[1], 16) or None if found else None


def address(text: str) -> int:
    """Where something lies that has a file of its own; 0 where nothing says."""
    found = re.fullmatch(r"0x([0-9a-f]{1,13})", text)
    return int(found[1], 16) if found else 0


def runtime(texts: Mapping[str, str]) -> Iterator[tuple[Extent, str]]:
    """Memory of EFI's runtime services, whichever kernel runs; what is odd is left out."""
    for row in _rows(texts):
        kind, start, pages = (row[key] for key in RUNTIME_KEYS[:3])
        if kind not in _RUNTIME or start is None or not pages:
            continue
        if start % _EFI_PAGE == 0 and start + pages * _EFI_PAGE <= _TOP:
            yield Extent.sized(start, pages * _EFI_PAGE), _RUNTIME[kind]


def runtime_map(texts: Mapping[str, str]) -> tuple[RuntimeTable, ...]:
    """The whole map, as it is handed on; nothing where a row lacks something or is odd."""
    out = []
    for row in _rows(texts):
        kind, phys, pages, virt, attribute = (row[key] for key in RUNTIME_KEYS)
        if kind is None or phys is None or not pages or virt is None or attribute is None:
            return ()
        if kind >> 32 or (phys | virt) % _EFI_PAGE or phys + pages * _EFI_PAGE > _TOP:
            return ()
        out.append(RuntimeTable(type=kind, phys=phys, virt=virt, pages=pages, attribute=attribute))
    return tuple(out)


def _rows(texts: Mapping[str, str]) -> Iterator[dict[str, int | None]]:
    """Each descriptor's files, by number; None where one says nothing."""
    numbers = [
        path.split("/")[-2] for path in texts if re.fullmatch(rf"{RUNTIME_MAP}/\d+/type", path)
    ]
    for number in sorted(numbers, key=int):
        yield {
            key: hex_number(texts.get(f"{RUNTIME_MAP}/{number}/{key}", "")) for key in RUNTIME_KEYS
        }


def hex_number(text: str) -> int | None:
    """A number as these files have one; None where it is none."""
    found = re.fullmatch(r"0x([0-9a-f]{1,16})\s*", text)
    return int(found[1], 16) if found else None
