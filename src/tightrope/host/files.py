"""A host as the files in which Linux would tell of it: what a loader reads there works for a
described machine.

    /proc/iomem                     resources, nested: RAM with the kernel's text and the crash regions in it
    /sys/firmware/memmap/N/...      the firmware's map
    /sys/kernel/boot_params/data    the zero page that the old kernel was handed

and of what dies, for a crash kernel:

    /proc/kallsyms, /proc/kcore     where text and direct map are mapped: headers of an ELF core alone
    /sys/kernel/vmcoreinfo          where that note lies, and its size
    /sys/devices/system/cpu/...     how many CPUs there are, and where the notes of each lie

Sources: kernel/resource.c, drivers/firmware/memmap.c, arch/x86/kernel/ksysfs.c; names of e820
types: arch/x86/kernel/e820.c, e820_type_to_string(); fs/proc/kcore.c, kernel/ksysfs.c,
drivers/base/cpu.c.

Rules: path -> text as a kernel prints it; what the host does not know of has no file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tightrope.abi import boot, elf
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
CPUS = "/sys/devices/system/cpu"


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
    if host.crash_region is not None:
        out.update(_of_a_crash(host))
    return out


def _of_a_crash(host: Host) -> Iterator[tuple[str, bytes]]:
    text = host.text
    names = {"_text": text.virt, "_stext": text.virt}
    if host.paging.long_mode:
        # That there is such a symbol says that the direct map is where kcore has it
        # (RANDOMIZE_MEMORY).
        names["page_offset_base"] = text.virt
    lines = "".join(f"{at:016x} T {name}\n" for name, at in names.items())
    yield "/proc/kallsyms", lines.encode()
    yield "/proc/kcore", _kcore(host)
    cpus = 0
    for note in host.crash_notes:
        place = note.extent
        if note.what.lower().startswith("vmcoreinfo"):
            yield "/sys/kernel/vmcoreinfo", f"{place.start:x} {place.size:x}\n".encode()
            continue
        folder = f"{CPUS}/cpu{cpus}"
        yield f"{folder}/crash_notes", f"{place.start:x}\n".encode()
        yield f"{folder}/crash_notes_size", f"{place.size}\n".encode()
        cpus += 1
    yield f"{CPUS}/possible", f"0-{max(cpus, 1) - 1}\n".encode()


def _kcore(host: Host) -> bytes:
    """The program headers of /proc/kcore: the text, and RAM in the direct map; nothing behind
    them."""
    bits = 64 if host.paging.long_mode else 32
    layout, row = elf.HEADER[bits], elf.PROGRAM_HEADER[bits]
    direct, text = host.direct_map, host.text
    rows: list[tuple[int, int, int]] = [(text.virt, text.phys, text.size)]
    for ram in host.memory.ram:
        end = min(ram.end, direct.size)
        if ram.start < end:
            rows.append((direct.virt + ram.start, ram.start, end - ram.start))
    head = layout.pack(
        **elf.ident(bits),
        type=elf.ET_CORE,
        machine=elf.EM_X86_64 if bits == 64 else elf.EM_386,
        version=elf.VERSION,
        phoff=layout.size,
        ehsize=layout.size,
        phentsize=row.size,
        phnum=len(rows),
    )
    return head + b"".join(
        row.pack(
            type=elf.PT_LOAD,
            flags=elf.PF_RWX,
            offset=0,
            vaddr=virt,
            paddr=phys,
            filesz=size,
            memsz=size,
        )
        for virt, phys, size in rows
    )


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
