"""What an EFI machine left: addresses as firmware has them, and a map of two runtime services."""

from __future__ import annotations

from tightrope.memory import Phys
from tightrope.model import Efi, EfiLoader, EfiRange, SecureBoot

EFI_AT = 0xFFFF_FFFE_8000_0000
"""Where the old kernel calls it, less its physical address."""
EFI = Efi(
    loader=EfiLoader.EL64,
    system_table=Phys(0x1_7F00_0018),
    descriptor_version=1,
    descriptor_size=48,
    config_table=Phys(0x7F9E_E018),
    fw_vendor=Phys(0x7F00_1234),
    smbios=Phys(0x7F9F_0000),
    secure_boot=SecureBoot.ENABLED,
    runtime=tuple(
        EfiRange(type=kind, phys=Phys(at), virt=EFI_AT + at, pages=pages, attribute=15)
        for kind, at, pages in ((5, 0x7F10_0000, 16), (6, 0x7F20_0000, 8))
    ),
)
