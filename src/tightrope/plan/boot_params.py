"""The zero page of a new kernel, as a kexec loader fills it in, and the list that hangs on it.

    e820_table    128 rows of the memory map
    efi_info      where EFI's system table and the map of its runtime services lie
    setup_data    the list that `setup_data` makes

Rules: every offset comes from `abi`.  What the host description does not know (EDD, APM)
stays zero, which the kernel reads as "not there"; the sentinel stays zero because we start from
zeros and copy only the setup header (zero-page.rst).
"""

from __future__ import annotations

from collections.abc import Sequence

from tightrope.abi import boot
from tightrope.abi.efi import EFI_INFO
from tightrope.errors import PlanError
from tightrope.memory import Extent, MemoryMap, Phys, Region, RegionKind
from tightrope.model import Image

NO_LIST = Phys(0)
_TYPES = {
    RegionKind.RAM: boot.E820Type.RAM,
    RegionKind.RESERVED: boot.E820Type.RESERVED,
    RegionKind.ACPI: boot.E820Type.ACPI,
    RegionKind.NVS: boot.E820Type.NVS,
    RegionKind.UNUSABLE: boot.E820Type.UNUSABLE,
    RegionKind.PMEM: boot.E820Type.PMEM,
    RegionKind.PRAM: boot.E820Type.PRAM,
    RegionKind.SOFT_RESERVED: boot.E820Type.SOFT_RESERVED,
}


def boot_params(
    image: Image,
    *,
    load: Phys,
    command_line: Phys,
    initrd: Extent | None,
    memory: MemoryMap,
    rsdp: Phys | None,
    screen: bytes = b"",
    setup_data: Phys = NO_LIST,
    efi_info: bytes = b"",
    secure_boot: int = 0,
    source: str = "host",
) -> bytes:
    """The 4096 bytes.  `initrd` is the extent of its very bytes, not of its pages; `source`
    names the host; `screen` is a struct screen_info, `efi_info` a struct efi_info, `setup_data`
    where the list begins.

    Raises PlanError when the memory map has more entries than the page has room for, and there is
    no setup_data, or none that this image reads.
    """
    page = bytearray(boot.BOOT_PARAMS_SIZE)
    start = boot.SETUP_HEADER
    page[start : start + len(image.setup_header)] = image.setup_header

    def put(name: str, value: int) -> None:
        boot.field(name).write(page, value)

    def put_wide(low: str, high: str, value: int) -> None:
        put(low, value & 0xFFFF_FFFF)
        put(high, value >> 32)

    if not image.setup_header:
        # A vmlinux has none: what kexec-tools writes for one (kexec/arch/i386/x86-linux-setup.c).
        put("header", boot.HEADER_MAGIC)
        put("version", boot.VMLINUX_PROTOCOL)
        put("initrd_addr_max", image.initrd_limit)
        put("cmdline_size", image.cmdline_limit)
    put("type_of_loader", boot.TYPE_OF_LOADER_KEXEC)
    if load < 1 << 32:
        put("code32_start", load)
    put_wide("cmd_line_ptr", "ext_cmd_line_ptr", command_line)
    put_wide("ramdisk_image", "ext_ramdisk_image", initrd.start if initrd else 0)
    put_wide("ramdisk_size", "ext_ramdisk_size", initrd.size if initrd else 0)
    # Another chain of setup_data would be the old kernel's loader's: it is not handed on.
    put("setup_data", setup_data)
    page[: len(screen)] = screen
    page[EFI_INFO : EFI_INFO + len(efi_info)] = efi_info
    put("secure_boot", secure_boot)
    if rsdp is not None:
        put("acpi_rsdp_addr", rsdp)
    regions = memory.regions
    known = boot.field("version").read(page) >= boot.field("setup_data").since
    if len(regions) > boot.E820_MAX_ENTRIES and not (setup_data and known):
        raise PlanError(
            f"{len(regions)} memory map entries do not fit into boot_params",
            source=source,
            field="memory",
            limit=boot.E820_MAX_ENTRIES,
        )
    rows = rows_of(regions[: boot.E820_MAX_ENTRIES])
    put("e820_entries", len(rows) // boot.E820_ENTRY.size)
    page[boot.E820_TABLE : boot.E820_TABLE + len(rows)] = rows
    return bytes(page)


def rows_of(regions: Sequence[Region]) -> bytes:
    """Rows of an e820 table."""
    return b"".join(
        boot.E820_ENTRY.pack(each.extent.start, each.extent.size, _TYPES[each.kind])
        for each in regions
    )
