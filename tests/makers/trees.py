"""Makers of machines as sosreport copies them: a directory with some of /proc and /sys.

    machine()    path -> text: an ordinary 8 GiB machine with Linux 6.1, whose parts may be replaced
    plant()      the same as files under a directory

Rules: texts are written as the kernel prints them (kernel/resource.c, drivers/firmware/memmap.c,
kernel/ksysfs.c, drivers/base/cpu.c); nothing of tightrope is used.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

MIB, GIB = 1 << 20, 1 << 30
Tree = dict[str, str]

FLAGS = (
    "fpu vme de pse tsc msr pae mce cx8 apic sep mtrr pge mca cmov pat pse36 clflush mmx fxsr sse sse2 ht"
    " syscall nx pdpe1gb rdtscp lm constant_tsc pcid xsave fsgsbase smep smap umip"
)
RAM = ((0x1000, 0xA_0000), (MIB, 2 * GIB), (4 * GIB, 10 * GIB))
ACPI = (2 * GIB, 2 * GIB + 16 * MIB)
TEXT_VIRT, TEXT_PHYS = 0xFFFF_FFFF_9000_0000, 0x1000_0000
KERNEL = {
    "Kernel code": (0x1000_0000, 0x1100_0000),
    "Kernel rodata": (0x1100_0000, 0x1160_0000),
    "Kernel data": (0x1160_0000, 0x11A0_0000),
    "Kernel bss": (0x11C0_0000, 0x1200_0000),
}
RELOCATE = TEXT_VIRT + 0x8_0000
Row = tuple[int, int, str]


def line(start: int, end: int, name: str, depth: int = 0) -> str:
    """A line of /proc/iomem, whose ends are inclusive."""
    return f"{'  ' * depth}{start:08x}-{end - 1:08x} : {name}\n"


def iomem(crash: Iterable[tuple[int, int]] = (), ram: Iterable[tuple[int, int]] = RAM) -> str:
    """/proc/iomem as root reads it."""
    inside = [*((*place, name) for name, place in KERNEL.items())]
    inside += [(*place, "Crash kernel") for place in crash]
    text = line(0, 0x1000, "Reserved")
    for start, end in ram:
        text += line(start, end, "System RAM")
        text += "".join(line(*each, 1) for each in sorted(inside) if start <= each[0] < end)
    return text + line(*ACPI, "ACPI Tables")


def memmap(*rows: Row) -> Tree:
    """/sys/firmware/memmap, as the firmware handed it over."""
    base = "/sys/firmware/memmap"
    files: Tree = {}
    for number, (start, end, kind) in enumerate(rows):
        files[f"{base}/{number}/start"] = f"{start:#x}\n"
        files[f"{base}/{number}/end"] = f"{end - 1:#x}\n"
        files[f"{base}/{number}/type"] = f"{kind}\n"
    return files


FIRMWARE: tuple[Row, ...] = (*((*place, "System RAM") for place in RAM), (*ACPI, "ACPI Tables"))


def kallsyms(*more: tuple[int, str, str], relocate: str = "T") -> str:
    """/proc/kallsyms: (address, letter, name)."""
    rows = [
        (TEXT_VIRT, "T", "_text"),
        (TEXT_VIRT, "T", "_stext"),
        (RELOCATE, relocate, "relocate_kernel"),
        (TEXT_VIRT + 0x200_0000, "B", "_end"),
        *more,
    ]
    return "".join(f"{address:016x} {letter} {name}\n" for address, letter, name in rows)


def cpuinfo(flags: str = FLAGS, bits: int = 46, vendor: str = "GenuineIntel") -> str:
    """/proc/cpuinfo of one CPU."""
    return (
        f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: {flags}\n"
        f"address sizes\t: {bits} bits physical, 48 bits virtual\n"
    )


def boot_params(*, rsdp: int = 0x7FF0_0014, screen: bytes = b"") -> str:
    """/sys/kernel/boot_params/data, with nothing but these."""
    page = bytearray(4096)
    page[: len(screen)] = screen
    struct.pack_into("<Q", page, 0x70, rsdp)
    return page.decode("latin-1")


def machine(**parts: str) -> Tree:
    """The ordinary machine; `parts` replace iomem, kallsyms, cpuinfo, meminfo, cmdline, boot_params."""
    return {
        "/proc/cmdline": parts.get("cmdline", "root=/dev/sda1\n"),
        "/proc/cpuinfo": parts.get("cpuinfo", cpuinfo()),
        "/proc/iomem": parts.get("iomem", iomem()),
        "/proc/kallsyms": parts.get("kallsyms", kallsyms()),
        "/proc/meminfo": parts.get(
            "meminfo",
            "MemTotal: 8000000 kB\nMemFree: 7000000 kB\nMemAvailable: 7200000 kB\n"
            "DirectMap4k: 100000 kB\nDirectMap2M: 3000000 kB\nDirectMap1G: 5000000 kB\n",
        ),
        "/sys/kernel/boot_params/data": parts.get("boot_params", boot_params()),
        "/sys/kernel/kexec_crash_loaded": "0\n",
        "/sys/kernel/kexec_crash_size": "0\n",
        "/sys/kernel/kexec_loaded": "0\n",
        "/sys/kernel/security/lockdown": "[none] integrity confidentiality\n",
        **memmap(*FIRMWARE),
    }


def plant(folder: Path, tree: Mapping[str, str]) -> Path:
    """The files under a directory."""
    for path, text in tree.items():
        place = folder / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(text.encode("latin-1"))
    return folder
