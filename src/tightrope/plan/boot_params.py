"""The zero page of a new kernel, as a kexec loader fills it in.

Rules: every offset comes from `abi.boot`.  What the host description does not know (screen, EFI,
EDD, APM) stays zero, which the kernel reads as "not there"; the sentinel stays zero because we start
from zeros and copy only the setup header (zero-page.rst).
"""

from __future__ import annotations

from tightrope.abi import boot
from tightrope.errors import PlanError
from tightrope.memory import Extent, MemoryMap, Phys, RegionKind
from tightrope.model import Image

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
    source: str = "host",
) -> bytes:
    """The 4096 bytes.  `initrd` is the extent of its very bytes, not of its pages; `source`
    names the host.

    Raises PlanError when the memory map has more entries than the page has room for.
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
    # A chain of setup_data would be the boot loader's of the old kernel: it is not handed on.
    put("setup_data", 0)
    if rsdp is not None:
        put("acpi_rsdp_addr", rsdp)
    regions = memory.regions
    if len(regions) > boot.E820_MAX_ENTRIES:
        raise PlanError(
            f"{len(regions)} memory map entries do not fit into boot_params",
            source=source,
            field="memory",
            limit=boot.E820_MAX_ENTRIES,
        )
    put("e820_entries", len(regions))
    for number, region in enumerate(regions):
        boot.E820_ENTRY.pack_into(
            page,
            boot.E820_TABLE + number * boot.E820_ENTRY.size,
            region.extent.start,
            region.extent.size,
            _TYPES[region.kind],
        )
    return bytes(page)
