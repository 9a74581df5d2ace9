"""The running machine as a host file: what could be read, what could not and why, what is assumed.

    /proc, /sys  --live.read_tree-->  path -> text or error  --capture-->  TOML, with a comment at
                                                                            each field, and notes

Rules: `capture` is pure: the same texts give the same file.  A field that no file tells is assumed,
says so in its comment, and is named in the notes.  What comes out is read back with `host.profile`
before it is handed over: it is a host, or it is a HostError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tightrope.errors import HostError
from tightrope.host import kernel_files as kernel
from tightrope.host import profile
from tightrope.host.draft import Draft, one_line
from tightrope.host.kernel_files import HIDDEN, START_KERNEL_MAP, Resource
from tightrope.host.live import BOOT_PARAMS, MEMMAP, Files
from tightrope.host.xen.guest import under_xen
from tightrope.memory import (
    PAGE_SIZE,
    Extent,
    Region,
    RegionKind,
    align_down,
    align_up,
    subtract,
    union,
)

SOURCE = "this machine"
TITLE = "This machine, read without changing it.  Each field says where it comes from."
MIB, GIB = 1 << 20, 1 << 30
LARGE = 2 * MIB
TEXT = Extent.sized(START_KERNEL_MAP + 16 * MIB, 48 * MIB)
"""Where a kernel without KASLR is mapped (CONFIG_PHYSICAL_START), and 48 MiB of it."""
DIRECT_MAP = 0xFFFF_8880_0000_0000
"""page_offset_base with 4 levels and without KASLR (Documentation/arch/x86/x86_64/mm.rst)."""
BIOS_AREA = Extent(0xE_0000, 0x10_0000)
"""Where a kernel without a pointer looks for the RSDP (ACPI 6.5, 5.2.5.1)."""
CRASH_ALIGNMENT = 16 * MIB
"""CRASH_ALIGN of arch/x86; the region is the highest that fits below 4 GiB."""
TEXT_PIECES = ("Kernel code", "Kernel rodata", "Kernel data", "Kernel bss")

_CPU_FLAGS = {"nx": "nx", "pse": "pse", "pge": "pge", "gbpages": "pdpe1gb", "la57": "la57"}
"""Field of [cpu] -> flag of /proc/cpuinfo; Linux hides la57 unless it runs with 5 levels."""
_LIKELY_FLAGS = frozenset({"nx", "pse", "pge"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Captured:
    """A host file, and one sentence for each thing that could not be read or had to be assumed."""

    toml: str
    notes: tuple[str, ...]


def capture(files: Files) -> Captured:
    """A host file from these texts.  Raises HostError where not even an assumption would help."""
    return _Capture(files).captured()


class _Capture:
    """One capture on its way."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._draft = Draft()
        self._flags = self._cpu_flags()
        self._iomem = self._resources()
        params = self._text(BOOT_PARAMS)
        self._params = None if params is None else kernel.boot_params(params)
        self._meminfo = kernel.meminfo(self._text("/proc/meminfo") or "")
        self._kcore = kernel.kcore(self._text("/proc/kcore") or "")

    def captured(self) -> Captured:
        """Every section, in the order of the example host."""
        self._draft.notes += under_xen(self._word)
        regions, origin = self._memory_map()
        ram = union(each.extent for each in regions if each.kind is RegionKind.RAM)
        symbols = self._symbols()
        virt, said_virt = self._text_virt(symbols)
        text, said = self._text_phys(symbols, virt, ram)
        self._state()
        self._paging()
        self._relocation(symbols, Extent.sized(virt, text.size))
        bits = self._cpu(regions[-1].extent.end)
        self._registers()
        self._draft.table("text")
        self._draft.put("virt", virt, said_virt)
        self._draft.put("phys", text.start, said[0])
        self._draft.put("size", text.size, said[1])
        page_size = self._direct_map()
        crash = self._crash_region(ram, text)
        private = self._private(ram, [text, *crash], page_size)
        self._draft.gap()
        self._draft.comment(f"The memory map: {origin}")
        for each in regions:
            self._draft.extent("memory", each.extent, "kind", each.kind.value)
        self._busy(ram, [text, private, *crash[:1]], crash[1:])
        self._firmware(ram, bits)
        toml = self._draft.text(TITLE)
        profile.read(toml, SOURCE)
        return Captured(toml=toml, notes=tuple(self._draft.notes))

    # --------------------------------------------------------------------------------------- reading

    def _text(self, path: str, *, quiet: bool = False) -> str | None:
        """A file's text; when there is none, the reason becomes a note unless `quiet`."""
        got = self._files.get(path)
        if isinstance(got, str):
            return got
        reason = "not among the files" if got is None else one_line(got.strerror or str(got))
        if not quiet:
            self._draft.note(f"could not read {path}: {reason}")
        return None

    def _word(self, path: str) -> str:
        """A short file's text without its line break, "" when it cannot be read."""
        return (self._text(path, quiet=True) or "").strip()

    def _hidden(self, path: str) -> None:
        self._draft.note(f"{path} shows zeros: its addresses are hidden from all but root")

    def _cpu_flags(self) -> frozenset[str] | None:
        text = self._text("/proc/cpuinfo")
        flags = None if text is None else kernel.cpu_flags(text)
        if text is not None and (flags is None or "lm" not in flags):
            raise HostError("no x86_64 CPU", source="/proc/cpuinfo", field="flags")
        return flags

    def _resources(self) -> tuple[Resource, ...]:
        text = self._text("/proc/iomem")
        found = None if text is None else kernel.iomem(text)
        if found is HIDDEN:
            self._hidden("/proc/iomem")
        return found if isinstance(found, tuple) else ()

    def _symbols(self) -> dict[str, int]:
        names = ("_text", "_stext", "_end", "relocate_kernel", "__relocate_kernel_start")
        found = kernel.symbols(self._text("/proc/kallsyms") or "", names)
        if isinstance(found, dict):
            return found
        self._hidden("/proc/kallsyms")
        return {}

    # -------------------------------------------------------------------------------------- memory

    def _memory_map(self) -> tuple[tuple[Region, ...], str]:
        """The firmware's map from the best of its four tellers.  Raises HostError without any RAM."""
        rows = {
            path.removeprefix(f"{MEMMAP}/"): got
            for path, got in self._files.items()
            if path.startswith(f"{MEMMAP}/") and isinstance(got, str)
        }
        told = kernel.firmware_regions(rows)
        if told is HIDDEN:
            self._hidden(MEMMAP)
        elif told is None:
            whole = [got for path, got in self._files.items() if path.startswith(MEMMAP)]
            reason = next((got for got in whole if isinstance(got, OSError)), None)
            why = "it tells no memory" if reason is None else one_line(reason.strerror or "?")
            self._draft.note(f"could not read {MEMMAP}: {why}")
        if isinstance(told, tuple) and _has_ram(told):
            return told, MEMMAP
        if self._params is not None and _has_ram(self._params.regions):
            return self._params.regions, f"{BOOT_PARAMS} (e820_table)"
        told = kernel.iomem_regions(self._iomem)
        if _has_ram(told):
            return told, "/proc/iomem"
        total = align_up(self._meminfo.get("MemTotal", 0), 16 * MIB)
        if not total or total > 1 << 45:
            raise HostError("no file tells where RAM is", source=SOURCE, field="memory")
        low = min(total, 3 * GIB)
        ram = [Extent(0, 0x9_FC00), Extent(MIB, low), Extent.sized(4 * GIB, total - low)]
        said = self._draft.assume(f"a PC's memory map with MemTotal, {total:#x} bytes, of RAM")
        return kernel.regions((each, RegionKind.RAM) for each in ram), said

    def _text_virt(self, symbols: Mapping[str, int]) -> tuple[int, str]:
        """Where the kernel's text is mapped, and who says so."""
        virt = symbols.get("_text") or symbols.get("_stext")
        if virt and virt < START_KERNEL_MAP:
            raise HostError(
                f"the kernel's text is at {virt:#x}: not an x86_64 kernel's",
                source="/proc/kallsyms",
                field="_text",
            )
        if virt:
            return align_down(virt, LARGE), "/proc/kallsyms (_text)"
        if self._kcore and self._kcore.text:
            return align_down(self._kcore.text[0], LARGE), "/proc/kcore"
        return TEXT.start, self._draft.assume(f"the kernel's text mapped at {TEXT.start:#x}")

    def _text_phys(
        self, symbols: Mapping[str, int], virt: int, ram: Sequence[Extent]
    ) -> tuple[Extent, tuple[str, str]]:
        """Where the kernel's text lies, in whole 2 MiB, and who says where and how large."""
        pieces = [each.extent for each in self._iomem if each.name in TEXT_PIECES]
        if pieces:
            start, end = min(e.start for e in pieces), max(e.end for e in pieces)
            said = ("/proc/iomem (Kernel code)", "/proc/iomem (Kernel code to bss)")
            return Extent(align_down(start, LARGE), align_up(end, LARGE)), said
        if self._kcore and self._kcore.text:
            _, start, size = self._kcore.text
            extent = Extent(align_down(start, LARGE), align_up(start + size, LARGE))
            return extent, ("/proc/kcore", "/proc/kcore")
        end = symbols.get("_end", 0)
        if virt < end < 1 << 64:
            size, said_size = align_up(end - virt, LARGE), "/proc/kallsyms (_end)"
        else:
            size = TEXT.size
            said_size = self._draft.assume(f"{size:#x} bytes of kernel text")
        place: Extent | None = Extent.sized(virt - START_KERNEL_MAP, size)
        if not any(each.covers(place) for each in ram if place):
            place = _lowest(ram, size, 16 * MIB) or _lowest(ram, size, MIB)
        if place is None:
            raise HostError(f"no {size:#x} bytes of RAM for its text", source=SOURCE, field="text")
        return place, (self._draft.assume(f"the kernel's text lies at {place.start:#x}"), said_size)

    def _crash_region(self, ram: Sequence[Extent], text: Extent) -> list[Extent]:
        """[crash_region], when there is one; the largest first, the others are merely busy."""
        found = [each.extent for each in self._iomem if each.name == "Crash kernel"]
        found.sort(key=lambda extent: (-extent.size, extent))
        said = "/proc/iomem (Crash kernel)"
        digits = self._word("/sys/kernel/kexec_crash_size")
        size = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 16 else 0
        if not self._iomem and size:
            size = align_up(size, PAGE_SIZE)
            free = subtract(ram, [text, Extent(4 * GIB, 1 << 52)])
            place = _highest(free, size, CRASH_ALIGNMENT)
            if place is not None:
                found = [place]
                said = self._draft.assume(
                    f"the crash region of {size:#x} bytes lies at {place.start:#x}"
                )
        elif not self._iomem and "crashkernel=" in self._word("/proc/cmdline"):
            self._draft.note("crashkernel= is on the command line; no file tells its place or size")
        if found:
            self._draft.table("crash_region")
            self._draft.put("start", found[0].start, said)
            self._draft.put("size", found[0].size, said)
        return found

    def _private(self, ram: Sequence[Extent], taken: Sequence[Extent], page_size: int) -> Extent:
        """[private]: as much as the tables of the direct map and the rest need, behind the text."""
        tables = 64
        for extent in ram:
            tables += 8 + extent.size // GIB + (extent.size // LARGE if page_size < LARGE else 0)
        size = align_up(tables * PAGE_SIZE + MIB, LARGE)
        free = subtract(ram, taken)
        behind = subtract(free, [Extent(0, taken[0].end)])
        place = _lowest(behind, size, MIB) or _lowest(free, size, MIB)
        if place is None:
            raise HostError("no RAM for page tables", source=SOURCE, field="private")
        said = self._draft.assume("where the kernel's tables and stack lie, which no file tells")
        self._draft.table("private")
        self._draft.put("start", place.start, said)
        self._draft.put("size", size, said)
        return place

    def _busy(self, ram: Sequence[Extent], taken: Sequence[Extent], also: Sequence[Extent]) -> None:
        """[[busy]]: how much is in use is told, where is not; low memory is the harder case."""
        said = "/proc/iomem (Crash kernel)"
        for extent in also:
            self._draft.extent("busy", extent, "what", "another crash region", said)
        free = self._meminfo.get("MemAvailable", self._meminfo.get("MemFree"))
        if free is None or "MemTotal" not in self._meminfo:
            self._draft.comment(self._draft.assume("no other memory is in use"))
            return
        self._draft.note("assumed: memory in use lies at the lowest addresses")
        said = "/proc/meminfo (MemTotal - MemAvailable); its place is assumed"
        left = align_up(max(0, self._meminfo["MemTotal"] - free), PAGE_SIZE)
        for extent in subtract(ram, [Extent(0, MIB), *taken, *also]):
            start = align_up(extent.start, PAGE_SIZE)
            end = min(start + left, align_down(extent.end, PAGE_SIZE))
            if start < end:
                self._draft.extent("busy", Extent(start, end), "what", "memory in use", said)
                left -= end - start

    def _firmware(self, ram: Sequence[Extent], bits: int) -> None:
        """[[firmware]]: what a new kernel reads early and the memory map does not call ACPI."""
        for extent in subtract([BIOS_AREA], ram):
            said = self._draft.assume("a BIOS area that is searched for the RSDP")
            self._draft.extent("firmware", extent, "what", "BIOS area, searched for the RSDP", said)
        for start, size, what in self._params.efi if self._params else ():
            if start + size <= 1 << bits:
                extent = Extent.sized(start, size)
                self._draft.extent("firmware", extent, "what", what, f"{BOOT_PARAMS} (efi_info)")

    # ------------------------------------------------------------------------- the kernel and its CPU

    def _state(self) -> None:
        """What has no field: whether this kernel would do a kexec at all."""
        if self._text("/sys/kernel/kexec_loaded", quiet=True) is None:
            self._draft.note("this kernel offers no kexec: /sys/kernel/kexec_loaded cannot be read")
        for path, name in (
            ("/sys/kernel/kexec_loaded", "a kernel is loaded"),
            ("/sys/kernel/kexec_crash_loaded", "a crash kernel is loaded"),
            ("/proc/sys/kernel/kexec_load_disabled", "kexec_load is disabled"),
        ):
            state = {"0": "no", "1": "yes"}.get(self._word(path), "not told")
            self._draft.comment(f"{name}: {state}")
        lockdown = self._word("/sys/kernel/security/lockdown")
        self._draft.comment(f"lockdown: {lockdown or 'not told'}")
        if "[integrity]" in lockdown or "[confidentiality]" in lockdown:
            self._draft.note(
                "the kernel is locked down: it takes signed kernels by kexec_file_load"
            )
        if self._flags and "hypervisor" in self._flags:
            self._draft.comment("a virtual machine: /proc/cpuinfo (flag hypervisor)")

    def _paging(self) -> None:
        comment = "/proc/cpuinfo (no flag la57)"
        if self._flags is None:
            comment = self._draft.assume("4 levels of tables")
        elif "la57" in self._flags:
            comment = self._draft.assume("4 levels of tables, though this kernel runs with 5")
        self._draft.gap()
        self._draft.put("paging", "x86_64", comment)
        if self._params is not None and 0 < self._params.rsdp < 1 << 52:
            self._draft.put("rsdp", self._params.rsdp, f"{BOOT_PARAMS} (acpi_rsdp_addr)")
        else:
            self._draft.comment("rsdp: not told, so the new kernel searches for it")

    def _relocation(self, symbols: Mapping[str, int], text: Extent) -> None:
        at = symbols.get("relocate_kernel") or symbols.get("__relocate_kernel_start") or 0
        said = "/proc/kallsyms (relocate_kernel)"
        if at not in text:
            at = text.start + text.size // 2
            said = self._draft.assume("the relocation code in the middle of the kernel's text")
        self._draft.put("relocation", align_down(at, PAGE_SIZE), said)

    def _cpu(self, memory_end: int) -> int:
        """[cpu]; MAXPHYADDR."""
        self._draft.table("cpu")
        bits = kernel.physical_bits(self._text("/proc/cpuinfo", quiet=True) or "")
        said = "/proc/cpuinfo (address sizes)"
        if bits is None:
            bits = max(46, (memory_end - 1).bit_length())
            said = self._draft.assume(f"{bits} bits of physical address")
        self._draft.put("physical_bits", bits, said)
        for key, flag in _CPU_FLAGS.items():
            has = flag in (_LIKELY_FLAGS if self._flags is None else self._flags)
            said = f"/proc/cpuinfo (flag {flag})"
            if self._flags is None:
                said = self._draft.assume(f"the CPU {'has' if has else 'lacks'} {key}")
            self._draft.put(key, has, said)
        return bits

    def _registers(self) -> None:
        flags = _LIKELY_FLAGS if self._flags is None else self._flags
        said = self._draft.assume("cr0, cr4 and efer as Linux sets them on a CPU with these flags")
        self._draft.table("registers")
        for name, value in kernel.control_registers(flags).items():
            self._draft.put(name, value, said)

    def _direct_map(self) -> int:
        """[direct_map]; its page size."""
        base = self._kcore.direct_map if self._kcore else None
        said = "/proc/kcore"
        if base is None or base >> 47 != (1 << 17) - 1 or base % PAGE_SIZE:
            base = DIRECT_MAP
            said = self._draft.assume(f"the direct map at {base:#x}, where it is without KASLR")
        gbpages = self._flags is not None and "pdpe1gb" in self._flags
        sizes = [(GIB, "DirectMap1G")] if gbpages else []
        sizes += [(LARGE, "DirectMap2M"), (PAGE_SIZE, "DirectMap4k")]
        used = [(s, key) for s, key in sizes if self._meminfo.get(key) and base % s == 0]
        size, key = used[0] if used else (PAGE_SIZE if base % LARGE else LARGE, "")
        said_size = f"/proc/meminfo ({key})"
        if not key:
            said_size = self._draft.assume(f"a direct map in pages of {size:#x} bytes")
        self._draft.table("direct_map")
        self._draft.put("virt", base, said)
        self._draft.put("page_size", size, said_size)
        return size


def _has_ram(regions: Sequence[Region]) -> bool:
    return any(each.kind is RegionKind.RAM for each in regions)


def _lowest(extents: Sequence[Extent], size: int, low: int) -> Extent | None:
    """The first `size` bytes at or above `low`, 2 MiB aligned."""
    for extent in extents:
        place = Extent.sized(align_up(max(extent.start, low), LARGE), size)
        if extent.covers(place):
            return place
    return None


def _highest(extents: Sequence[Extent], size: int, alignment: int) -> Extent | None:
    """The last `size` bytes above the first MiB, aligned."""
    for extent in reversed(extents):
        start = align_down(max(extent.end - size, 0), alignment)
        if start >= MIB and extent.covers(Extent.sized(start, size)):
            return Extent.sized(start, size)
    return None
