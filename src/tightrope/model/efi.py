"""What the firmware of an EFI machine left for whichever kernel runs.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tightrope.memory import Phys


class EfiLoader(StrEnum):
    """How wide the firmware is, as efi_loader_signature has it; the value is the host file's."""

    EL64 = "EL64"
    EL32 = "EL32"


class SecureBoot(StrEnum):
    """What the old kernel was told of secure boot; the value is the host file's."""

    UNSET = "unset"
    UNKNOWN = "unknown"
    DISABLED = "disabled"
    ENABLED = "enabled"

    @property
    def number(self) -> int:
        """As boot_params has it: enum efi_secureboot_mode (Linux include/linux/efi.h)."""
        return [*SecureBoot].index(self)


@dataclass(frozen=True, kw_only=True, slots=True)
class EfiRange:
    """A row of the map that runtime services were given: they are called at `virt`, for good.

    `type`, `attribute` are the firmware's numbers (UEFI 2.10, 7.2); `pages` are of 4 KiB.
    """

    type: int
    phys: Phys
    virt: int
    pages: int
    attribute: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Efi:
    """What a kernel needs to go on with runtime services that another one set up.

    SetVirtualAddressMap can be called once in a boot, so that a kernel which kexec starts has to be
    told where the first one put them (Linux arch/x86/platform/efi/efi.c, kexec_enter_virtual_mode).
    """

    loader: EfiLoader
    system_table: Phys
    descriptor_version: int
    descriptor_size: int
    """Bytes from one descriptor to the next: often more than the 40 that are used."""
    config_table: Phys
    fw_vendor: Phys
    smbios: Phys | None
    secure_boot: SecureBoot
    runtime: tuple[EfiRange, ...]
