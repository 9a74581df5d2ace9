"""What a Multiboot kernel is handed: the information structure, or Multiboot2's list of tags.

    Multiboot    at ->  | structure | memory map | modules | strings |   addresses point inside
    Multiboot2   at ->  | head | tag | tag | ... | end |                 each tag at a multiple of 8

Rules: layouts come from `abi.multiboot`.  A tag for ACPI would be a copy of the RSDP's bytes, which
no host description has: there is none.  Both kinds of string are "FILE ARGUMENTS", as GRUB writes
them: Xen cuts off the first word, unless the loader says that it is GRUB 2 (Xen
xen/arch/x86/setup.c, cmdline_cook).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tightrope.abi import multiboot as abi
from tightrope.memory import Extent, MemoryMap, RegionKind

LOADER = b"tightrope\0"
_TYPES = {
    RegionKind.RAM: abi.Memory.AVAILABLE,
    RegionKind.RESERVED: abi.Memory.RESERVED,
    RegionKind.ACPI: abi.Memory.ACPI,
    RegionKind.NVS: abi.Memory.NVS,
    RegionKind.UNUSABLE: abi.Memory.DEFECTIVE,
    RegionKind.PMEM: abi.Memory.RESERVED,
    RegionKind.PRAM: abi.Memory.RESERVED,
    RegionKind.SOFT_RESERVED: abi.Memory.RESERVED,
}
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedModule:
    """The very bytes of a module, not its pages, and its string with a zero behind it."""

    extent: Extent
    string: bytes


def information(
    at: int, *, command_line: bytes, modules: Sequence[PlacedModule], memory: MemoryMap
) -> bytes:
    """The information structure of Multiboot 1, to lie at the physical address `at`.

    `command_line` ends with a zero.
    """
    rows = b"".join(
        abi.MEMORY_1.pack(
            abi.MEMORY_1.size - 4, each.extent.start, each.extent.size, _TYPES[each.kind]
        )
        for each in memory
    )
    map_at = at + abi.INFORMATION_1.size
    modules_at = map_at + len(rows)
    strings = _Strings(modules_at + len(modules) * abi.MODULE_1.size)
    table = b"".join(
        abi.MODULE_1.pack(each.extent.start, each.extent.end, strings.add(each.string), 0)
        for each in modules
    )
    lower, upper = basic(memory)
    given = abi.Given.MEMORY | abi.Given.COMMAND_LINE | abi.Given.MEMORY_MAP | abi.Given.LOADER_NAME
    if modules:
        given |= abi.Given.MODULES
    head = abi.INFORMATION_1.pack(
        given, lower, upper, 0, strings.add(command_line),
        len(modules), modules_at if modules else 0,
        len(rows), map_at, 0, 0, 0, strings.add(LOADER), 0,
    )  # fmt: skip
    return head + rows + table + strings.data


def tags(
    load: int, *, command_line: bytes, modules: Sequence[PlacedModule], memory: MemoryMap
) -> bytes:
    """Multiboot2's list of tags; `load` is the physical address of the image's base."""
    rows = b"".join(
        abi.MEMORY_2.pack(each.extent.start, each.extent.size, _TYPES[each.kind], 0)
        for each in memory
    )
    kinds = abi.Information
    body = b"".join(
        [
            _tag(kinds.COMMAND_LINE, command_line),
            _tag(kinds.LOADER_NAME, LOADER),
            *(
                _tag(
                    kinds.MODULE,
                    abi.MODULE_2.pack(each.extent.start, each.extent.end) + each.string,
                )
                for each in modules
            ),
            _tag(kinds.BASIC_MEMORY, abi.BASIC_MEMORY_2.pack(*basic(memory))),
            _tag(kinds.MEMORY_MAP, abi.MEMORY_MAP_2.pack(abi.MEMORY_2.size, 0) + rows),
            _tag(kinds.LOAD_BASE, abi.LOAD_BASE_2.pack(load)),
            _tag(kinds.END, b""),
        ]
    )
    return abi.INFORMATION_2.pack(abi.INFORMATION_2.size + len(body), 0) + body


def basic(memory: MemoryMap) -> tuple[int, int]:
    """mem_lower and mem_upper: KiB of RAM from 0, and from 1 MiB up to the first hole."""
    lower = upper = 0
    for extent in memory.ram:
        if extent.start == 0:
            lower = min(extent.end, abi.LOWER_LIMIT) >> 10
        if _MIB in extent:
            upper = min(extent.end - _MIB >> 10, 0xFFFF_FFFF)
    return lower, upper


def _tag(kind: abi.Information, body: bytes) -> bytes:
    size = abi.INFORMATION_TAG.size + len(body)
    return abi.INFORMATION_TAG.pack(kind, size) + body + bytes(-size % abi.ALIGNMENT_2)


class _Strings:
    """Strings one behind the other, from a physical address on."""

    def __init__(self, at: int) -> None:
        self._at = at
        self.data = b""

    def add(self, string: bytes) -> int:
        """Where the string lies."""
        place = self._at + len(self.data)
        self.data += string
        return place
