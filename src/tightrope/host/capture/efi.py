"""What the firmware left under /sys/firmware/efi: where the RSDP is, and the table of tables.

    /sys/firmware/efi/systab          ACPI20=0x7ff00014, ACPI=..., SMBIOS3=...  (one a line)
    /sys/firmware/efi/config_table    the physical address of the array of tables, in hex
    /sys/firmware/efi/fw_vendor       the address of the vendor's name
    /sys/firmware/efi/runtime         the address of the table of runtime services

Rules: as `iomem`.  Linux puts its own RSDP pointer into boot_params only when a loader did: a kernel
that EFI started finds it in the system table, and a kernel that kexec started has neither.  Sources:
drivers/firmware/efi/efi.c, arch/x86/platform/efi/efi.c; ABI/testing/sysfs-firmware-efi.
"""

from __future__ import annotations

import re

SYSTAB = "/sys/firmware/efi/systab"
CONFIG_TABLE = "/sys/firmware/efi/config_table"
TABLE_BYTES = 4096
"""Assumed of the array: no file says how many tables it has; 4 KiB are 170 of 24 bytes."""


def rsdp(text: str) -> tuple[int, str]:
    """The RSDP and its name in systab, ACPI 2.0's before the older one; 0 where there is none."""
    found = dict(re.findall(r"^([A-Z0-9_]{1,16})=0x([0-9a-f]{1,13})$", text, re.MULTILINE))
    for name in ("ACPI20", "ACPI"):
        if name in found:
            return int(found[name], 16), name
    return 0, ""


def config_table(text: str) -> int:
    """Where the array of configuration tables lies, 0 where nothing says."""
    found = re.fullmatch(r"0x([0-9a-f]{1,13})", text)
    return int(found[1], 16) if found else 0
