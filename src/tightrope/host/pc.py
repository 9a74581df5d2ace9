"""The old kernel on QEMU's `pc` machine: an example host whose memory map is that PC's own.

    0           640 KiB - 1 KiB    RAM; the rest up to 640 KiB is the BIOS data area
    960 KiB     1 MiB              reserved: the BIOS, and the RSDP somewhere in it
    1 MiB       top - 256 KiB      RAM
    top-256 KiB top                reserved: where SeaBIOS puts the ACPI tables, and what it keeps for disks

Source: the map that SeaBIOS 1.16 of QEMU 7.2 hands over (measured: 128 KiB at the top are reserved, with
an NVMe disk 164), its src/config.h (BUILD_MAX_HIGHTABLE); a test compares with a PC that runs.

Rules: it is derived from the commented example, as the other modes are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tightrope.errors import HostError
from tightrope.memory import Extent
from tightrope.model import Paging

MIB = 1 << 20
TABLES = 256 << 10
SMALLEST, LARGEST = 256, 3583
"""MiB: less leaves an old kernel no room beside a new one; more is split at 4 GiB."""
CR4 = {
    Paging.X86_64: (0x35_06F0, "SMAP SMEP OSXSAVE FSGSBASE OSXMMEXCPT OSFXSR PGE MCE PAE PSE"),
    Paging.LA57: (0x35_16F0, "SMAP SMEP OSXSAVE FSGSBASE LA57 OSXMMEXCPT OSFXSR PGE MCE PAE PSE"),
}
"""Without PCIDE, which the CPU that TCG plays does not have."""


def on_pc(text: str, paging: Paging, size: int) -> str:
    """An example host's text with the memory of a QEMU `pc` that has `size` MiB.

    Raises HostError for a size that it cannot have.
    """
    if not SMALLEST <= size <= LARGEST:
        raise HostError(
            f"{size} MiB is not between {SMALLEST} and {LARGEST}", source="a PC", field="size"
        )
    top = size * MIB
    start, end = text.index("# Where the firmware's root pointer"), text.index("[cpu]")
    text = text[:start] + text[end:]
    start, end = text.index("[[memory]]"), text.index("# Anything else that the old kernel maps")
    return _low(text[:start] + "".join(_places(top)) + "\n" + text[end:], paging)


def _low(text: str, paging: Paging) -> str:
    """A 64-bit old kernel low enough for a small PC, and registers that the CPU of TCG can have."""
    if paging not in CR4:
        return text
    value, names = CR4[paging]
    for key, section, new in (
        ("phys", "text", "0x400_0000"),
        ("start", "private", "0x700_0000"),
        ("cr4", "registers", f"{value:#x}"),
    ):
        at = text.index(f"\n[{section}]")
        text = text[:at] + re.sub(rf"(?m)^({key} *= *)\S+", rf"\g<1>{new}", text[at:], count=1)
    return re.sub(r"# SMAP SMEP .*", f"# {names}", text)


def _places(top: int) -> Iterator[str]:
    for extent, kind in (
        (Extent(0, 0x9FC00), "ram"),
        (Extent(0x9FC00, 0xA0000), "reserved"),
        (Extent(0xF0000, MIB), "reserved"),
        (Extent(MIB, top - TABLES), "ram"),
        (Extent(top - TABLES, top), "reserved"),
        (Extent(0xFFFC_0000, 1 << 32), "reserved"),
    ):
        yield _row("memory", extent, "kind", kind)
    yield "\n# RAM that the old kernel cannot give away.\n"
    yield _row("busy", Extent.sized(0x280_0000, 0x80_0000), "what", "slab and page cache")
    yield "\n# What new kernels read early outside plain RAM.\n"
    yield _row("firmware", Extent(0xF0000, MIB), "what", "BIOS area with the RSDP")
    yield _row("firmware", Extent(top - TABLES, top), "what", "ACPI tables")


def _row(table: str, extent: Extent, key: str, value: str) -> str:
    return f'[[{table}]]\nstart = {extent.start:#x}\nsize = {extent.size:#x}\n{key} = "{value}"\n'
