"""What a PVH kernel is handed: hvm_start_info, its modules and memory map in one piece.

    at ->  | start info | memory map | modules | strings |   addresses point inside

Rules: layouts come from `abi.pvh`.  Linux takes the first module for its initrd (Linux
arch/x86/platform/pvh/enlighten.c, init_pvh_bootparams); strings are arguments without a file name.
"""

from __future__ import annotations

from collections.abc import Sequence

from tightrope.abi import pvh as abi
from tightrope.memory import MemoryMap, RegionKind
from tightrope.plan.multiboot import PlacedModule

_TYPES = {
    RegionKind.RAM: abi.Memory.RAM,
    RegionKind.RESERVED: abi.Memory.RESERVED,
    RegionKind.ACPI: abi.Memory.ACPI,
    RegionKind.NVS: abi.Memory.NVS,
    RegionKind.UNUSABLE: abi.Memory.UNUSABLE,
    RegionKind.PMEM: abi.Memory.PMEM,
    RegionKind.PRAM: abi.Memory.PRAM,
    RegionKind.SOFT_RESERVED: abi.Memory.SOFT_RESERVED,
}


def start_info(
    at: int,
    *,
    command_line: int,
    modules: Sequence[PlacedModule],
    memory: MemoryMap,
    rsdp: int | None,
) -> bytes:
    """The bytes that lie at the physical address `at`; `command_line` is the line's address."""
    rows = b"".join(
        abi.MEMORY.pack(each.extent.start, each.extent.size, _TYPES[each.kind], 0)
        for each in memory
    )
    map_at = at + abi.START_INFO.size
    modules_at = map_at + len(rows)
    strings_at = modules_at + len(modules) * abi.MODULE.size
    table = strings = b""
    for each in modules:
        string = strings_at + len(strings)
        table += abi.MODULE.pack(each.extent.start, each.extent.size, string, 0)
        strings += each.string
    head = abi.START_INFO.pack(
        abi.MAGIC, abi.VERSION, 0, len(modules), modules_at if modules else 0,
        command_line, rsdp or 0, map_at, len(memory.regions), 0,
    )  # fmt: skip
    return head + rows + table + strings
