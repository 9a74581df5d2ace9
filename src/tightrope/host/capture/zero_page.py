"""What the running kernel was booted with: the zero page in /sys/kernel/boot_params/data.

Rules: as `iomem`.  Offsets are those of zero-page.rst and bootparam.h; what is told is the boot
loader's word, not the kernel's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tightrope.abi import boot, efi
from tightrope.memory import TOP, Extent, Region, RegionKind, regions
from tightrope.model import EfiLoader, SecureBoot

SCREEN_INFO = slice(0, 0x40)


@dataclass(frozen=True, kw_only=True, slots=True)
class EfiInfo:
    """struct efi_info, and what stands beside it."""

    loader: EfiLoader
    system_table: int
    memory_map: tuple[int, int]
    """(physical, bytes)."""
    descriptor_size: int
    descriptor_version: int
    secure_boot: SecureBoot

    def places(self) -> Iterator[tuple[int, int, str]]:
        """(physical, bytes, what) of what it leads to."""
        for start, size, what in (
            (self.system_table, 4096, "EFI system table"),
            (*self.memory_map, "EFI memory map"),
        ):
            if start and size and start + size <= TOP:
                yield start, size, what


@dataclass(frozen=True, kw_only=True, slots=True)
class ZeroPage:
    """The memory map, the RSDP (0: none), EFI's tables and the screen."""

    regions: tuple[Region, ...]
    rsdp: int
    efi: EfiInfo | None
    screen: bytes
    """struct screen_info, empty where no loader filled it in."""


def zero_page(text: str) -> ZeroPage | None:
    """The page's facts, None where it is none."""
    data = text.encode("latin-1", "replace")
    if len(data) < boot.BOOT_PARAMS_SIZE:
        return None
    screen = data[SCREEN_INFO]
    return ZeroPage(
        regions=regions(
            (Extent.sized(start, size), RegionKind[kind])
            for start, size, kind in boot.e820_rows(data)
        ),
        rsdp=boot.field("acpi_rsdp_addr").read(data),
        efi=_efi(data),
        screen=screen if any(screen) else b"",
    )


def _efi(data: bytes) -> EfiInfo | None:
    signature, table, each, version, descriptors, size, table_high, high = efi.INFO.unpack_from(
        data, efi.EFI_INFO
    )
    loaders = {loader.value.encode(): loader for loader in EfiLoader}
    if signature not in loaders:
        return None
    known = dict(enumerate(SecureBoot))
    return EfiInfo(
        loader=loaders[signature],
        system_table=table | table_high << 32,
        memory_map=(descriptors | high << 32, size),
        descriptor_size=each,
        descriptor_version=version,
        secure_boot=known.get(boot.field("secure_boot").read(data), SecureBoot.UNKNOWN),
    )
