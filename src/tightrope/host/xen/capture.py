"""What a real Xen says of itself -> a host file, for a rehearsal on any machine.

    tightrope perform xen --json   ->  facts  ->  tightrope host xen  ->  TOML that `read` takes

Rules: what Xen does not tell (its page tables, dom0's p2m) is assumed, as in the examples, and
noted in the file.  Facts come from outside: what does not add up is a HostError that names the
field, and what is printed has been read back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from tightrope.host.document import (
    CpuTable,
    DirectMapTable,
    Document,
    FactTable,
    MemoryTable,
    NamedTable,
    PlaceTable,
    RegistersTable,
    TextTable,
)
from tightrope.host.profile import read, written
from tightrope.host.schema import At, Number, Text, Texts, read_table
from tightrope.host.xen.document import XenTable
from tightrope.host.xen.examples import DIRECT_MAP, FIXMAP, VIRT_START, dom0
from tightrope.memory import PAGE_SIZE, Extent, RegionKind, align_down, align_up, regions, subtract
from tightrope.model import Paging

LARGE_PAGE = 2 << 20
KINDS = {
    1: RegionKind.RAM,
    3: RegionKind.ACPI,
    4: RegionKind.NVS,
    5: RegionKind.UNUSABLE,
    7: RegionKind.PMEM,
}
"""E820 types (Linux arch/x86/include/asm/e820/types.h); others are reserved to a new kernel."""
PRIVATE = 4 << 20
"""Bytes assumed for the hypervisor's page tables, gdt, idt and stack."""
DOM0_PAGES = 0x4000
SETTLE = "a dump of the hypervisor"


@dataclass(frozen=True, kw_only=True, slots=True)
class _Range:
    """An extent, as `perform xen` says it."""

    start: Annotated[int, Number()]
    size: Annotated[int, Number(low=1)]

    @property
    def extent(self) -> Extent:
        return Extent.sized(self.start, self.size)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row(_Range):
    """An entry of the memory map."""

    type: Annotated[int, Number(high=(1 << 32) - 1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Facts:
    """What `tightrope perform xen --json` prints; what is not named here is not asked."""

    OPEN: ClassVar[bool] = True

    version: Annotated[str, Text(r"\d{1,3}\.\d{1,3}", "MAJOR.MINOR")]
    relocation: Annotated[int | None, Number(low=PAGE_SIZE, high=(1 << 64) - 1)] = None
    ranges: Mapping[str, _Range]
    memory: tuple[_Row, ...]
    cpu_notes: tuple[_Range, ...] = ()
    cpuinfo: Annotated[Mapping[str, str], Texts()] = field(default_factory=dict)


def xen_file(facts: Mapping[str, object], source: str) -> str:
    """A host file from what `tightrope perform xen --json` printed.  Raises HostError."""
    at = At(source)
    known = {key: value for key, value in facts.items() if value is not None}
    text = written(
        _document(read_table(_Facts, known, at), at), ["A hypervisor, as it described itself."]
    )
    read(text, source)
    return text


def _document(said: _Facts, at: At) -> Document:
    xen = said.ranges.get("XEN")
    if xen is None:
        (at / "ranges.XEN").refuse("Xen did not say where it lies")
    if said.relocation is None:
        (at / "relocation").refuse("is not an address: does this Xen provide /proc/xen/xensyms?")
    crash = said.ranges.get("CRASH")
    image = Extent.sized(align_down(xen.start, LARGE_PAGE), LARGE_PAGE)
    rest = Extent(image.end, max(align_up(xen.extent.end, PAGE_SIZE), image.end))
    notes = _notes(said)
    memory = regions(
        (each.extent, KINDS.get(each.type, RegionKind.RESERVED)) for each in said.memory
    )
    ram = [each.extent for each in memory if each.kind is RegionKind.RAM]
    taken = [image, rest, Extent(0, 16 << 20), *([crash.extent] if crash else [])]
    taken += [Extent.sized(each.start, each.size).page_aligned() for each in notes]
    free = [each for each in subtract(ram, taken) if each.size >= 2 * PRIVATE]
    if not free:
        (at / "memory").refuse("no RAM is left for a description")
    flags = said.cpuinfo.get("flags", "").split()
    busy = [NamedTable(start=rest.start, size=rest.size, what="Xen's data")] if rest.size else []
    for each in notes:
        extent = Extent.sized(each.start, each.size).page_aligned()
        if not rest.covers(extent):
            what = f"the note: {each.what}"
            busy.append(NamedTable(start=extent.start, size=extent.size, what=what))
    return Document(
        paging=Paging.X86_64,
        relocation=said.relocation,
        cpu=CpuTable(
            physical_bits=_physical_bits(said, at),
            nx="nx" in flags,
            pse=True,
            pge=True,
            gbpages="pdpe1gb" in flags,
            la57=False,
        ),
        registers=RegistersTable(
            cr0=0x8005_003B, cr4=0x660, efer=0xD01 if "nx" in flags else 0x501
        ),
        text=TextTable(
            virt=align_down(said.relocation, LARGE_PAGE), phys=image.start, size=image.size
        ),
        direct_map=DirectMapTable(virt=DIRECT_MAP, page_size=LARGE_PAGE),
        private=PlaceTable(start=align_up(free[-1].start, LARGE_PAGE), size=PRIVATE),
        crash_region=PlaceTable(start=crash.start, size=crash.size) if crash else None,
        crash_note=tuple(notes),
        memory=tuple(
            MemoryTable(start=each.extent.start, size=each.extent.size, kind=each.kind)
            for each in memory
        ),
        busy=tuple(busy),
        firmware=(NamedTable(start=0xF_0000, size=0x1_0000, what="BIOS area with the RSDP"),),
        xen=XenTable(
            version=said.version,
            virt_start=VIRT_START[Paging.X86_64],
            fixmap=FIXMAP[Paging.X86_64],
            dom0=dom0(64, DOM0_PAGES),
        ),
        facts=_origins(),
    )


def _origins() -> dict[str, FactTable]:
    """Where each field of the host file comes from."""
    read = {
        "paging": "Xen has no other",
        "relocation": "kexec_reloc in Xen's own symbols",
        "cpu": "/proc/cpuinfo, as dom0 sees it",
        "text.phys": "KEXEC_RANGE_MA_XEN",
        "crash_region": "KEXEC_RANGE_MA_CRASH",
        "crash_note": "KEXEC_RANGE_MA_CPU and _VMCOREINFO",
        "memory": "XENMEM_machine_memory_map",
        "xen.version": "XENVER_version",
        "xen.virt_start": "HYPERVISOR_VIRT_START of xen/include/asm-x86/config.h",
    }
    derived = {
        "registers.efer": "LMA LME SCE, and NXE where there is nx",
        "text.virt": "kexec_reloc lies in Xen's first large page",
        "text.size": "Xen's first large page; what is behind it is data",
        "direct_map.virt": "xen/include/asm-x86/config.h",
    }
    assumed = {
        "registers.cr0": "cr0 as Xen 4.17 has it",
        "registers.cr4": "cr4: OSXMMEXCPT OSFXSR MCE PAE",
        "direct_map.page_size": "large pages in the direct map",
        "private": "where Xen's tables and stack lie",
        "xen.fixmap": "the fixmap of v1, which this Xen does not use",
        "xen.dom0": "dom0's kernel and its tables, and a p2m of pages scattered by the seed",
    }
    return {
        **{key: FactTable(read=said) for key, said in read.items()},
        **{key: FactTable(derived=said) for key, said in derived.items()},
        **{key: FactTable(assumed=said, settle=SETTLE) for key, said in assumed.items()},
    }


def _notes(said: _Facts) -> list[NamedTable]:
    """Crash notes: one for each CPU, then vmcoreinfo."""
    found = [
        NamedTable(start=each.start, size=each.size, what=f"CPU {number}'s registers")
        for number, each in enumerate(said.cpu_notes)
    ]
    info = said.ranges.get("VMCOREINFO")
    if info and found:
        found.append(NamedTable(start=info.start, size=info.size, what="vmcoreinfo of Xen"))
    return found


def _physical_bits(said: _Facts, at: At) -> int:
    words = said.cpuinfo.get("address sizes", "").split()
    if not words or not (words[0].isascii() and words[0].isdecimal() and len(words[0]) < 3):
        (at / "cpuinfo.address sizes").refuse("is not a number of bits")
    return int(words[0])
