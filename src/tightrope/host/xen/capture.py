"""What a real Xen says of itself -> a host file, for a rehearsal on any machine.

    tightrope perform xen --json   ->  facts  ->  tightrope host xen  ->  TOML that `read` takes

Rules: what Xen does not tell (its page tables, dom0's p2m) is assumed, as in the examples, and noted
in the file.  Facts come from outside: what does not add up is a HostError that names the field.
"""

from __future__ import annotations

from collections.abc import Mapping

from tightrope.errors import HostError
from tightrope.host.draft import Draft
from tightrope.memory import PAGE_SIZE, Extent, align_down, align_up, subtract

LARGE_PAGE = 2 << 20
KINDS = {1: "ram", 2: "reserved", 3: "acpi", 4: "nvs", 5: "unusable", 7: "pmem"}
"""E820 types (Linux arch/x86/include/asm/e820/types.h); others are reserved to a new kernel."""
PRIVATE = 4 << 20
"""Bytes assumed for the hypervisor's page tables, gdt, idt and stack."""
DOM0_PAGES = 0x4000
VIRT_START, DIRECT_MAP, FIXMAP = (
    0xFFFF_8000_0000_0000,
    0xFFFF_8300_0000_0000,
    0xFFFF_828B_FFF7_8000,
)
"""Xen 64-bit: see `xen_examples`."""


def xen_file(facts: Mapping[str, object], source: str) -> str:
    """A host file from what `tightrope perform xen --json` printed.  Raises HostError."""
    told = _Told(facts, source)
    out = Draft()
    memory = told.rows("memory")
    ram = [extent for extent, kind in memory if kind == 1]
    crash, xen = told.range("CRASH"), told.range("XEN")
    if xen is None:
        raise HostError("Xen did not say where it lies", source=source, field="ranges.XEN")
    relocation = told.number("relocation")
    physical = Extent.sized(align_down(xen.start, LARGE_PAGE), LARGE_PAGE)
    rest = Extent(physical.end, max(align_up(xen.end, PAGE_SIZE), physical.end))
    notes = told.notes()
    taken = [physical, rest, Extent(0, 16 << 20), *([crash] if crash else [])]
    taken += [each.page_aligned() for each, _what in notes]
    free = [each for each in subtract(ram, taken) if each.size >= 2 * PRIVATE]
    if not free:
        raise HostError("no RAM is left for a description", source=source, field="memory")
    private = Extent.sized(align_up(free[-1].start, LARGE_PAGE), PRIVATE)

    out.put("paging", "x86_64", "Xen has no other")
    out.put("relocation", relocation, "kexec_reloc in Xen's own symbols")
    out.table("cpu")
    flags = told.flags()
    out.put("physical_bits", told.physical_bits(), "from /proc/cpuinfo")
    for key, flag in (("nx", "nx"), ("gbpages", "pdpe1gb")):
        out.put(key, flag in flags, "from /proc/cpuinfo, as dom0 sees it")
    for key in ("pse", "pge"):
        out.put(key, True, "every 64-bit CPU")
    out.put("la57", False, out.assume("Xen has never had 5 levels"))
    out.table("registers")
    out.put("cr0", 0x8005_003B, out.assume("cr0 as Xen 4.17 has it"))
    out.put("cr4", 0x660, out.assume("cr4: OSXMMEXCPT OSFXSR MCE PAE"))
    out.put("efer", 0xD01 if "nx" in flags else 0x501, "NXE where there is nx; LMA LME SCE")
    out.table("text")
    out.put("virt", align_down(relocation, LARGE_PAGE), "kexec_reloc lies in its first large page")
    out.put("phys", physical.start, "KEXEC_RANGE_MA_XEN")
    out.put("size", physical.size, "its first large page; what is behind it is data")
    out.table("direct_map")
    out.put("virt", DIRECT_MAP, "xen/include/asm-x86/config.h")
    out.put("page_size", LARGE_PAGE, out.assume("large pages in the direct map"))
    out.table("private")
    out.put("start", private.start, out.assume("where Xen's tables and stack lie"))
    out.put("size", private.size, "assumed as well")
    if crash:
        out.table("crash_region")
        out.put("start", crash.start, "KEXEC_RANGE_MA_CRASH")
        out.put("size", crash.size, "the same")
    for extent, what in notes:
        out.extent("crash_note", extent, "what", what)
    for extent, kind in memory:
        out.extent("memory", extent, "kind", KINDS.get(kind, "reserved"))
    if rest.size:
        out.extent("busy", rest, "what", "Xen's data")
    for extent, what in notes:
        if not rest.covers(extent):
            out.extent("busy", extent.page_aligned(), "what", f"the note: {what}")
    out.extent("firmware", Extent(0xF_0000, 0x10_0000), "what", "BIOS area with the RSDP")
    out.table("xen")
    out.put("version", told.text("version"), "XENVER_version")
    out.put("virt_start", VIRT_START, "HYPERVISOR_VIRT_START")
    out.put("fixmap", FIXMAP, out.assume("of v1, which this Xen does not use"))
    out.table("xen.dom0")
    out.put("bits", 64, "Xen 4.17 is built without 32-bit dom0s")
    out.put("text", 0xFFFF_FFFF_8100_0000, out.assume("dom0's kernel"))
    out.put("text_start", 0x100_0000, "assumed")
    out.put("text_size", 0x20_0000, "assumed")
    out.put("relocation", 0xFFFF_FFFF_8101_3000, "assumed")
    out.put("pages", DOM0_PAGES, out.assume("dom0's p2m: pages scattered by the seed"))
    out.put("seed", 1, "assumed")
    out.table("xen.dom0.tables")
    out.put("start", 0x200_0000, "assumed")
    out.put("size", 0x4_0000, "assumed")
    return out.text("A hypervisor, as it described itself.")


class _Told:
    """The facts, each read with a HostError for what it is not."""

    def __init__(self, facts: Mapping[str, object], source: str) -> None:
        self._facts, self._source = facts, source

    def _wrong(self, field: str, what: str) -> HostError:
        return HostError(f"is not {what}", source=self._source, field=field)

    def number(self, name: str) -> int:
        value = self._facts.get(name)
        if not isinstance(value, int) or not 0 < value < 1 << 64:
            raise self._wrong(name, "an address: does this Xen tell /proc/xen/xensyms?")
        return value

    def text(self, name: str) -> str:
        value = self._facts.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "text")
        return value

    def _table(self, name: str) -> Mapping[str, object]:
        value = self._facts.get(name)
        if not isinstance(value, dict):
            raise self._wrong(name, "a table")
        return value

    def _extent(self, row: object, field: str) -> Extent:
        if isinstance(row, dict):
            start, size = row.get("start"), row.get("size")
            if isinstance(start, int) and isinstance(size, int) and start >= 0 and size > 0:
                return Extent.sized(start, size)
        raise self._wrong(field, "a start and a size")

    def range(self, name: str) -> Extent | None:
        """One of KEXEC_RANGE_MA_*, None where Xen had none."""
        ranges = self._table("ranges")
        return self._extent(ranges[name], f"ranges.{name}") if name in ranges else None

    def _list(self, name: str) -> list[object]:
        value = self._facts.get(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return value

    def rows(self, name: str) -> list[tuple[Extent, int]]:
        """The memory map, sorted."""
        out = []
        for number, row in enumerate(self._list(name)):
            kind = row.get("type") if isinstance(row, dict) else None
            if not isinstance(kind, int):
                raise self._wrong(f"{name}[{number}]", "an entry with a type")
            out.append((self._extent(row, f"{name}[{number}]"), kind))
        return sorted(out)

    def notes(self) -> list[tuple[Extent, str]]:
        """Crash notes: one for each CPU, then vmcoreinfo."""
        cpus = [
            (self._extent(row, f"cpu_notes[{n}]"), f"CPU {n}'s registers")
            for n, row in enumerate(self._list("cpu_notes"))
        ]
        info = self.range("VMCOREINFO")
        return [*cpus, *([(info, "vmcoreinfo of Xen")] if info and cpus else [])]

    def flags(self) -> frozenset[str]:
        return frozenset(str(self._table("cpuinfo").get("flags", "")).split())

    def physical_bits(self) -> int:
        words = str(self._table("cpuinfo").get("address sizes", "")).split()
        if not words or not words[0].isdecimal():
            raise self._wrong("cpuinfo.address sizes", "a number of bits")
        return int(words[0])
