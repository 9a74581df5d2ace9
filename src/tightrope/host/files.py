"""A host as the files in which Linux would tell of it: what a loader reads there works for a
described machine.

    /proc/iomem                     resources, nested: RAM with the kernel's text and the crash regions in it
    /sys/firmware/memmap/N/...      the firmware's map
    /sys/kernel/boot_params/data    the zero page that the old kernel was handed

Sources: kernel/resource.c, drivers/firmware/memmap.c, arch/x86/kernel/ksysfs.c; names of e820
types: arch/x86/kernel/e820.c, e820_type_to_string().

Rules: path -> text as a kernel prints it; what the host does not know of has no file.
"""

from __future__ import annotations

from collections.abc import Mapping

from tightrope.abi import boot
from tightrope.memory import Extent, RegionKind
from tightrope.model import Host

NAMES: Mapping[RegionKind, str] = {
    RegionKind.RAM: "System RAM",
    RegionKind.ACPI: "ACPI Tables",
    RegionKind.NVS: "ACPI Non-volatile Storage",
    RegionKind.UNUSABLE: "Unusable memory",
    RegionKind.PMEM: "Persistent Memory",
    RegionKind.PRAM: "Persistent Memory (legacy)",
    RegionKind.SOFT_RESERVED: "Soft Reserved",
    RegionKind.RESERVED: "Reserved",
}
MEMMAP = "/sys/firmware/memmap"


def files(host: Host) -> Mapping[str, bytes]:
    """Every file, by its path."""
    out: dict[str, bytes] = {"/proc/iomem": _iomem(host).encode()}
    for number, region in enumerate(host.memory.regions):
        extent = region.extent
        for name, text in (
            ("start", f"{extent.start:#x}"),
            ("end", f"{extent.end - 1:#x}"),
            ("type", NAMES[region.kind]),
        ):
            out[f"{MEMMAP}/{number}/{name}"] = f"{text}\n".encode()
    page = bytearray(boot.BOOT_PARAMS_SIZE)
    page[: len(host.screen)] = host.screen
    boot.field("header").write(page, boot.HEADER_MAGIC)
    if host.rsdp is not None:
        boot.field("acpi_rsdp_addr").write(page, host.rsdp)
    out["/sys/kernel/boot_params/data"] = bytes(page)
    return out


def _iomem(host: Host) -> str:
    text = Extent.sized(host.text.phys, host.text.size)
    crash = [host.crash_region] if host.crash_region else []
    inside = [(text, "Kernel code")]
    inside += [(each, "Crash kernel") for each in crash]
    inside += [(each.extent, "Crash kernel") for each in host.crash_memory]
    lines = []
    for region in host.memory.regions:
        lines.append(_line(region.extent, NAMES[region.kind], 0))
        lines += [
            _line(extent, name, 1)
            for extent, name in sorted(inside, key=lambda each: each[0].start)
            if region.extent.covers(extent)
        ]
    return "".join(lines)


def _line(extent: Extent, name: str, depth: int) -> str:
    """A resource; the last byte's address ends it."""
    return f"{'  ' * depth}{extent.start:08x}-{extent.end - 1:08x} : {name}\n"
