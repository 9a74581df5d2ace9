"""What hangs on boot_params: a list of nodes, and what their fields lead to.

    SETUP_E820_EXT    rows of the memory map that boot_params has no room for
    SETUP_EFI         what EFI's runtime services need besides
    runtime map       no node: boot_params.efi_info leads there

Rules: as `boot_params`; one piece of memory, whose size does not depend on where it lies.  Of EFI
is handed on what kexec_file_load hands on (kexec-bzimage64.c, setup_efi_state), and where
kexec-tools does: to a kernel that says so in its header.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tightrope.abi import boot
from tightrope.abi import efi as abi
from tightrope.memory import MemoryMap, Phys, Region, align_up
from tightrope.model import Efi, EfiLoader, Image
from tightrope.plan.boot_params import NO_LIST, rows_of

ALIGNMENT = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Hung:
    """The bytes for an address, and where things begin; `first` is NO_LIST without a node."""

    data: bytes
    first: Phys
    runtime_map: Phys


def for_kernel(efi: Efi | None, image: Image) -> Efi | None:
    """What of EFI this image is told; None where it would not be, or where it cannot use it.

    A kernel of 64 bits gives up runtime services of 32 when kexec started it
    (arch/x86/platform/efi/efi.c, kexec_enter_virtual_mode), and one without XLF_EFI_KEXEC has no
    code for it (kexec-tools asks this bit).
    """
    takes = bool(image.setup_header) and image.xloadflags & boot.XLoadFlags.XLF_EFI_KEXEC
    if efi is None or not takes or efi.loader is not EfiLoader.EL64 or not efi.runtime:
        return None
    return efi


def hung(at: int, memory: MemoryMap, efi: Efi | None) -> Hung:
    """All of it for physical address `at`; no bytes where there is nothing to tell."""
    rows = rows_of(more(memory.regions))
    size = align_up(boot.SETUP_DATA.size + len(rows), ALIGNMENT)
    data = b""
    if rows:
        following = at + size if efi else NO_LIST
        data = boot.SETUP_DATA.pack(following, boot.SETUP_E820_EXT, len(rows)) + rows
    start = NO_LIST
    if efi is not None:
        data = data.ljust(size, b"\0") if rows else data
        data += node(efi, NO_LIST)
        start = Phys(at + len(data))
        data += runtime_map(efi)
    return Hung(data=data, first=Phys(at) if data else NO_LIST, runtime_map=start)


def more(regions: Sequence[Region]) -> Sequence[Region]:
    """Those that boot_params has no room for."""
    return regions[boot.E820_MAX_ENTRIES :]


def node(efi: Efi, following: int) -> bytes:
    """The SETUP_EFI node."""
    body = abi.SETUP_DATA.pack(efi.fw_vendor, 0, efi.config_table, efi.smbios or 0)
    return boot.SETUP_DATA.pack(following, abi.SETUP_EFI, len(body)) + body


def runtime_map(efi: Efi) -> bytes:
    """The descriptors, each as long as the firmware's own."""
    rows = (
        abi.DESCRIPTOR.pack(each.type, each.phys, each.virt, each.pages, each.attribute)
        for each in efi.runtime
    )
    return b"".join(row.ljust(efi.descriptor_size, b"\0") for row in rows)


def efi_info(efi: Efi, runtime_map_at: int) -> bytes:
    """struct efi_info of boot_params."""
    size = efi.descriptor_size * len(efi.runtime)
    low = 0xFFFF_FFFF
    return abi.INFO.pack(
        efi.loader.value.encode(),
        efi.system_table & low,
        efi.descriptor_size,
        efi.descriptor_version,
        runtime_map_at & low,
        size,
        efi.system_table >> 32,
        runtime_map_at >> 32,
    )
