"""EFI as a kernel that kexec starts is told of it.

    boot_params.efi_info    where the system table and the map of runtime services lie
    setup_data, SETUP_EFI   what is physical still, of what SetVirtualAddressMap made virtual

Sources: Linux arch/x86/include/uapi/asm/bootparam.h (struct efi_info), asm/setup_data.h,
arch/x86/include/asm/efi.h (struct efi_setup_data); UEFI 2.10, 7.2 (EFI_MEMORY_DESCRIPTOR).

Rules: numbers only.
"""

from __future__ import annotations

from struct import Struct

EFI_INFO = 0x1C0
"""Offset in boot_params."""
INFO = Struct("<4s7I")
"""efi_loader_signature, efi_systab, efi_memdesc_size, efi_memdesc_version, efi_memmap,
efi_memmap_size, efi_systab_hi, efi_memmap_hi."""
SETUP_EFI = 4
"""Type of the node of setup_data."""
SETUP_DATA = Struct("<4Q64x")
"""fw_vendor, a word that nobody reads, tables (the array of configuration tables), smbios; eight
reserved words."""
DESCRIPTOR = Struct("<I4xQQQQ")
"""Type, physical address, virtual address, pages of 4 KiB, attribute; what follows is the
firmware's own."""
