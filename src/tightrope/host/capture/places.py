"""Where things lie in the captured machine's physical memory: RAM, text, crash memory, what is in
use.

    firmware's map -  what the kernel does not use (mem=)  -  text, crash memory, notes  -  private  =  busy or free

Rules: each function answers with document tables and tells `Origins` where they come from.  How
much is in use is told, where is not: low memory is the harder case.
"""

from __future__ import annotations

from collections.abc import Sequence

from tightrope.errors import HostError
from tightrope.host.capture import crashkernel, iomem, kexec, limits
from tightrope.host.capture.iomem import HIDDEN, has_ram
from tightrope.host.capture.kernel import START_KERNEL_MAP
from tightrope.host.capture.origins import AS_ROOT, Origins
from tightrope.host.capture.sources import Sources
from tightrope.host.capture.tree import BOOT_PARAMS, MEMMAP
from tightrope.host.document import NamedTable, PlaceTable, TextTable
from tightrope.memory import (
    PAGE_SIZE,
    Extent,
    Region,
    RegionKind,
    align_down,
    align_up,
    covered,
    regions,
    subtract,
    union,
)

MIB, GIB = 1 << 20, 1 << 30
LARGE = 2 * MIB
TEXT = Extent.sized(START_KERNEL_MAP + 16 * MIB, 48 * MIB)
"""Where a kernel without KASLR is mapped (CONFIG_PHYSICAL_START), and 48 MiB of it."""
LOW_PART = "the low part of the crash region"
NO_RAM = "memory that the old kernel does not use"


def memory_map(said: Sources, origins: Origins) -> tuple[Region, ...]:
    """The firmware's map from the best of its tellers.  Raises HostError without any RAM."""
    rows = {
        path.removeprefix(f"{MEMMAP}/"): text
        for path, text in said.texts().items()
        if path.startswith(f"{MEMMAP}/")
    }
    told = iomem.firmware_regions(rows)
    if told is HIDDEN:
        said.hidden(MEMMAP)
    elif told is None:
        whole = [got for path, got in said.files.items() if path.startswith(MEMMAP)]
        reason = next((got for got in whole if isinstance(got, OSError)), None)
        why = "it tells no memory" if reason is None else reason.strerror or "?"
        origins.note(f"could not read {MEMMAP}: {why}")
    if isinstance(told, tuple) and has_ram(told):
        origins.read("memory", MEMMAP)
        return told
    if said.params is not None and has_ram(said.params.regions):
        origins.read("memory", f"{BOOT_PARAMS} (e820_table)")
        return said.params.regions
    told = iomem.iomem_regions(said.iomem)
    if has_ram(told):
        origins.read("memory", "/proc/iomem")
        return told
    total = align_up(said.meminfo.get("MemTotal", 0), 16 * MIB)
    if not total or total > 1 << 45:
        raise HostError("no file says where RAM is", source="this machine", field="memory")
    low = min(total, 3 * GIB)
    ram = [Extent(0, 0x9_FC00), Extent(MIB, low), Extent.sized(4 * GIB, total - low)]
    what = f"a PC's memory map with MemTotal, {total:#x} bytes, of RAM"
    origins.assumed("memory", what, AS_ROOT)
    return regions((each, RegionKind.RAM) for each in ram)


def unused(said: Sources, ram: Sequence[Extent]) -> tuple[Extent, ...]:
    """RAM of the firmware's that this kernel was told to leave alone (mem=, memmap=),
    in whole pages.
    """
    own = iomem.iomem_regions(said.iomem)
    if has_ram(own):
        kept = [each.extent.page_aligned() for each in own if each.kind is RegionKind.RAM]
    else:
        kept = list(limits.ram_left(said.word("/proc/cmdline"), ram))
    left = subtract(ram, [*kept, Extent(0, MIB)])
    pages = [(align_up(each.start, PAGE_SIZE), align_down(each.end, PAGE_SIZE)) for each in left]
    return tuple(Extent(start, end) for start, end in pages if start < end)


def text(said: Sources, ram: Sequence[Extent], origins: Origins) -> TextTable:
    """The kernel's image, in whole 2 MiB.  Raises HostError where there is no RAM for it."""
    virt = _text_virt(said, origins)
    pieces = iomem.named(said.iomem, *iomem.TEXT_PIECES)
    if pieces:
        origins.read("text.phys", "/proc/iomem (Kernel code)")
        origins.read("text.size", "/proc/iomem (Kernel code to bss)")
        start, end = pieces[0].start, max(each.end for each in pieces)
        return _text(virt, align_down(start, LARGE), align_up(end, LARGE))
    if said.kcore and said.kcore.text:
        for name in ("text.phys", "text.size"):
            origins.read(name, "/proc/kcore")
        _, start, size = said.kcore.text
        return _text(virt, align_down(start, LARGE), align_up(start + size, LARGE))
    end = said.symbols.get("_end", 0)
    size = align_up(end - virt, LARGE) if virt < end < 1 << 64 else TEXT.size
    place: Extent | None = Extent.sized(virt - START_KERNEL_MAP, size)
    if not any(each.covers(place) for each in ram if place):
        place = lowest(ram, size, 16 * MIB) or lowest(ram, size, MIB)
    if place is None:
        raise HostError(
            f"no {size:#x} bytes of RAM for its text", source="this machine", field="text"
        )
    if virt < end < 1 << 64:
        origins.read("text.size", "/proc/kallsyms (_end)")
    else:
        origins.assumed("text.size", f"{size:#x} bytes of kernel text", AS_ROOT)
    origins.assumed("text.phys", f"the kernel's text lies at {place.start:#x}", AS_ROOT)
    return _text(virt, place.start, place.end)


def _text(virt: int, start: int, end: int) -> TextTable:
    return TextTable(virt=virt, phys=start, size=end - start)


def _text_virt(said: Sources, origins: Origins) -> int:
    virt = said.symbols.get("_text") or said.symbols.get("_stext")
    if virt and virt < START_KERNEL_MAP:
        raise HostError(
            f"the kernel's text is at {virt:#x}: not an x86_64 kernel's",
            source="/proc/kallsyms",
            field="_text",
        )
    if virt:
        origins.read("text.virt", "/proc/kallsyms (_text)")
        return align_down(virt, LARGE)
    if said.kcore and said.kcore.text:
        origins.read("text.virt", "/proc/kcore")
        return align_down(said.kcore.text[0], LARGE)
    origins.assumed("text.virt", f"the kernel's text mapped at {TEXT.start:#x}", AS_ROOT)
    return TEXT.start


def crash_memory(
    said: Sources, ram: Sequence[Extent], own: Extent, origins: Origins
) -> tuple[PlaceTable | None, tuple[NamedTable, ...]]:
    """[crash_region], where the image goes: the highest; and what else the crash kernel has as RAM.

    Of `crashkernel=,high` and its low part kexec takes the high one (crashk_res,
    kernel/crash_core.c); measured: a load into the low part is EADDRNOTAVAIL, though it may be the
    larger.
    """
    found = iomem.named(said.iomem, iomem.CRASH_KERNEL)
    size = kexec.decimal(said.kexec("crash_size"))
    if not said.iomem and size:
        size = align_up(size, PAGE_SIZE)
        line = said.word("/proc/cmdline")
        found = crashkernel.regions(line, size, subtract(ram, [own]))
        fields = (("crash_region", "the crash region"), ("crash_memory", LOW_PART))
        for (name, part), each in zip(fields, reversed(found), strict=False):
            what = f"{part}, {each.size:#x} bytes, lies at {each.start:#x}"
            origins.assumed(name, what, AS_ROOT)
    elif not said.iomem and "crashkernel=" in said.word("/proc/cmdline"):
        origins.note("crashkernel= is on the command line; no file tells its place or size")
    for each in (each for each in found if not covered(each, ram)):
        origins.note(f"left out: a crash region at {each}, which is not all RAM")
    found = [each for each in found if covered(each, ram)]
    if not found:
        return None, ()
    if said.iomem:
        origins.read("crash_region", "/proc/iomem (Crash kernel)")
    *low, region = found
    also = [(each, LOW_PART) for each in low]
    read = bool(also) and bool(said.iomem)
    for extent in kexec.cma_ranges(said.kexec("crash_cma_ranges")):
        if covered(extent, ram) and not any(extent.overlaps(each) for each in (*found, own)):
            also.append((extent, "CMA memory of the crash kernel"))
            read = True
    if read:
        origins.read("crash_memory", "/proc/iomem (Crash kernel) and crash_cma_ranges")
    return (
        PlaceTable(start=region.start, size=region.size),
        tuple(NamedTable(start=e.start, size=e.size, what=what) for e, what in also),
    )


def crash_notes(
    said: Sources, ram: Sequence[Extent], taken: Sequence[Extent], origins: Origins
) -> tuple[NamedTable, ...]:
    """[[crash_note]]: where the kernel will leave its registers and VMCOREINFO."""
    told = kexec.crash_notes(said.texts())
    kept: list[NamedTable] = []
    for note in told:
        extent = note.extent
        if not covered(extent, ram) or any(extent.overlaps(each) for each in taken):
            origins.note(f"left out: {note.what} at {extent}, which is not memory for a note")
            continue
        kept.append(NamedTable(start=extent.start, size=extent.size, what=note.what))
    if kept:
        origins.read("crash_note", f"{kexec.CPUS}/cpuN/crash_notes, {kexec.VMCOREINFO}")
    elif kexec.decimal(said.kexec("crash_size")):
        origins.note(
            "no file says where the notes for a crash kernel lie: without them it has no /proc/vmcore"
        )
    return tuple(kept)


def private(
    ram: Sequence[Extent], taken: Sequence[Extent], behind: int, page_size: int, origins: Origins
) -> PlaceTable:
    """[private]: as much as the tables of the direct map and the rest need, behind the text."""
    tables = 64
    for extent in ram:
        tables += 8 + extent.size // GIB + (extent.size // LARGE if page_size < LARGE else 0)
    size = align_up(tables * PAGE_SIZE + MIB, LARGE)
    free = subtract(ram, taken)
    place = lowest(subtract(free, [Extent(0, behind)]), size, MIB) or lowest(free, size, MIB)
    if place is None:
        raise HostError("no RAM for page tables", source="this machine", field="private")
    origins.assumed(
        "private",
        "where the kernel's tables and stack lie, which no file tells",
        "a walk from the real kernel: `rehearse --on qemu --old-kernel`",
    )
    return PlaceTable(start=place.start, size=size)


def busy(
    said: Sources,
    ram: Sequence[Extent],
    taken: Sequence[Extent],
    apart: Sequence[Extent],
    origins: Origins,
) -> tuple[NamedTable, ...]:
    """[[busy]]: what the kernel does not use, and what is in use as far as it is told."""
    rows = [NamedTable(start=each.start, size=each.size, what=NO_RAM) for each in apart]
    free = said.meminfo.get("MemAvailable", said.meminfo.get("MemFree"))
    settle = "the load itself; until then `--scatter SEED` tries other places"
    if free is None or "MemTotal" not in said.meminfo:
        origins.assumed("busy", "no other memory is in use", settle)
        return tuple(rows)
    origins.assumed("busy", "memory in use lies at the lowest addresses", settle)
    left = _in_use(said.meminfo["MemTotal"], free)
    for extent in subtract(ram, [Extent(0, MIB), *taken, *apart]):
        start = align_up(extent.start, PAGE_SIZE)
        end = min(start + left, align_down(extent.end, PAGE_SIZE))
        if start < end:
            rows.append(NamedTable(start=start, size=end - start, what="memory in use"))
            left -= end - start
    return tuple(rows)


def _in_use(total: int, free: int) -> int:
    """Bytes in use, rounded up to a sixteenth of the memory where that leaves enough of it free.

    Where they lie is assumed, and how many they are changes from moment to moment: so two captures
    of a machine are mostly the same host, and a fleet's machines are few classes.
    """
    used = align_up(max(0, total - free), PAGE_SIZE)
    rounded = align_up(used, align_up(total, GIB) // 16)
    return rounded if total - rounded >= free // 2 else used


def lowest(extents: Sequence[Extent], size: int, low: int) -> Extent | None:
    """The first `size` bytes at or above `low`, 2 MiB aligned."""
    for extent in union(extents):
        place = Extent.sized(align_up(max(extent.start, low), LARGE), size)
        if extent.covers(place):
            return place
    return None
