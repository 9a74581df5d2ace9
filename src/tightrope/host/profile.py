"""A host description: TOML text in, a checked `Host` out.

Rules: no file is opened here but the example that ships with the package.  Every field is read once,
with its type and its bounds; whatever is wrong raises `HostError` with the field's path.  Keys that
nobody reads are errors too: a misspelt field must not silently mean its default.
"""

from __future__ import annotations

import tomllib
from importlib import resources

from tightrope.errors import HostError
from tightrope.host.toml import Reader
from tightrope.memory import (
    PAGE_SIZE,
    Extent,
    MemoryMap,
    Phys,
    Region,
    RegionKind,
    Virt,
    covered,
)
from tightrope.model import Cpu, DirectMap, Host, KernelText, LowMapping, Named, Paging
from tightrope.x86 import cpu as x86
from tightrope.x86.paging import X86_64

LARGE = 1 << 21


def example() -> str:
    """The default host as a commented TOML document."""
    return resources.files("tightrope.host").joinpath("example.toml").read_text("utf-8")


def read(text: str, source: str) -> Host:
    """A `Host` from TOML text; `source` names the file in errors.  Raises HostError."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as err:
        # A plain ValueError is Python's own limit on the digits of a number.
        raise HostError(f"not TOML: {err}", source=source) from err
    top = Reader(document, source)
    paging = Paging(top.choice("paging", [Paging.X86_64.value]))
    cpu = _cpu(top.table("cpu"))
    registers = top.table("registers")
    memory = _memory_map(top, cpu)
    text_table = top.table("text")
    place = KernelText(
        virt=Virt(text_table.aligned("virt", LARGE, bits=64)),
        phys=Phys(text_table.aligned("phys", LARGE)),
        size=text_table.aligned("size", LARGE, low=LARGE),
    )
    text_table.done()
    direct = top.table("direct_map")
    sizes = X86_64.page_sizes(gbpages=cpu.gbpages)
    page_size = direct.number("page_size")
    if page_size not in sizes:
        direct.refuse("page_size", f"{page_size:#x} is not a page size of this CPU")
    direct_map = DirectMap(
        virt=Virt(direct.aligned("virt", page_size, bits=64)), page_size=page_size
    )
    direct.done()
    host = Host(
        source=source,
        paging=paging,
        cpu=cpu,
        cr0=registers.number("cr0", bits=32),
        cr4=registers.number("cr4", bits=32),
        efer=registers.number("efer", bits=32),
        memory=memory,
        text=place,
        relocation=Virt(top.aligned("relocation", PAGE_SIZE, bits=64)),
        direct_map=direct_map,
        private=_extent(top.table("private"), close=True),
        busy=tuple(_named(each) for each in top.tables("busy")),
        crash_region=(
            _extent(top.table("crash_region"), close=True) if "crash_region" in top else None
        ),
        firmware=tuple(_named(each) for each in top.tables("firmware")),
        rsdp=Phys(top.number("rsdp")) if "rsdp" in top else None,
        low_mappings=tuple(_mapping(each) for each in top.tables("mapping")),
    )
    registers.done()
    top.done()
    _check(host, top, registers)
    return host


def _cpu(table: Reader) -> Cpu:
    cpu = Cpu(
        physical_bits=table.number("physical_bits", low=32, high=52),
        nx=table.flag("nx"),
        pse=table.flag("pse"),
        pge=table.flag("pge"),
        gbpages=table.flag("gbpages"),
        la57=table.flag("la57"),
    )
    table.done()
    return cpu


def _extent(table: Reader, *, close: bool = False, alignment: int = PAGE_SIZE) -> Extent:
    start = table.aligned("start", alignment)
    size = table.aligned("size", alignment, low=1)
    if close:
        table.done()
    if start + size > 1 << 52:
        table.refuse(
            "size", f"{start:#x} + {size:#x} is beyond any physical address", limit=1 << 52
        )
    return Extent.sized(start, size)


def _named(table: Reader) -> Named:
    named = Named(extent=_extent(table, alignment=1), what=table.text("what"))
    table.done()
    return named


def _mapping(table: Reader) -> LowMapping:
    mapping = LowMapping(
        virt=Virt(table.aligned("virt", PAGE_SIZE, bits=64)),
        phys=Phys(table.aligned("phys", PAGE_SIZE)),
        size=table.aligned("size", PAGE_SIZE, low=1),
        is_global=table.flag("global"),
    )
    table.done()
    return mapping


def _memory_map(top: Reader, cpu: Cpu) -> MemoryMap:
    regions: list[Region] = []
    for table in top.tables("memory"):
        extent = _extent(table, alignment=1)
        kind = RegionKind(table.choice("kind", [each.value for each in RegionKind]))
        table.done()
        if regions and extent.start < regions[-1].extent.end:
            table.refuse("start", f"{extent.start:#x} is below the end of the entry before it")
        if extent.end > 1 << cpu.physical_bits:
            table.refuse(
                "size", f"{extent} is beyond cpu.physical_bits", limit=1 << cpu.physical_bits
            )
        regions.append(Region(extent, kind))
    memory = MemoryMap(tuple(regions))
    if not memory.ram:
        top.refuse("memory", "there is no RAM")
    return memory


def _check(host: Host, top: Reader, registers: Reader) -> None:
    """What must be true between fields.  Raises HostError naming the one that is easiest to mend."""
    ram = host.memory.ram
    text = Extent.sized(host.text.phys, host.text.size)
    text_virt = Extent.sized(host.text.virt, host.text.size)
    for field, extent in (("text", text), ("private", host.private)):
        if not covered(extent, ram):
            top.refuse(field, f"{extent} is not all RAM")
    if text.overlaps(host.private):
        top.refuse("private", f"{host.private} overlaps the kernel text {text}")
    if host.crash_region is not None:
        if not covered(host.crash_region, ram):
            top.refuse("crash_region", f"{host.crash_region} is not all RAM")
        if host.crash_region.overlaps(text) or host.crash_region.overlaps(host.private):
            top.refuse("crash_region", f"{host.crash_region} overlaps the old kernel itself")
    for number, busy in enumerate(host.busy):
        if not covered(busy.extent, ram):
            top.refuse(f"busy[{number}]", f"{busy.extent} is not all RAM")
    for field, virt, size in (
        ("relocation", host.relocation, PAGE_SIZE),
        ("text.virt", host.text.virt, host.text.size),
        ("direct_map.virt", host.direct_map.virt, ram[-1].end),
        *((f"mapping[{n}].virt", each.virt, each.size) for n, each in enumerate(host.low_mappings)),
    ):
        if virt >> 47 not in (0, (1 << 17) - 1):
            top.refuse(field, f"{virt:#x} is not canonical with 4 levels")
        if virt + size - 1 >> 47 != virt >> 47:
            top.refuse(field, f"{virt:#x} + {size:#x} runs out of the canonical addresses")
    beyond = 1 << host.cpu.physical_bits
    for field, end in (
        *((f"firmware[{n}]", each.extent.end) for n, each in enumerate(host.firmware)),
        *((f"mapping[{n}].phys", e.phys + e.size) for n, e in enumerate(host.low_mappings)),
        ("rsdp", 0 if host.rsdp is None else host.rsdp + 1),
    ):
        if end > beyond:
            top.refuse(field, f"{end - 1:#x} is beyond cpu.physical_bits", limit=beyond)
    if not text_virt.covers(Extent.sized(host.relocation, PAGE_SIZE)):
        top.refuse("relocation", f"{host.relocation:#x} is not inside the kernel text {text_virt}")
    for field, value, needed, names in (
        ("cr0", host.cr0, x86.CR0_PG | x86.CR0_PE, "PG and PE"),
        ("cr4", host.cr4, x86.CR4_PAE, "PAE"),
        ("efer", host.efer, x86.EFER_LMA | x86.EFER_LME, "LMA and LME"),
    ):
        if value & needed != needed:
            registers.refuse(field, f"{value:#x} lacks {names}, which x86_64 paging needs")
    if host.cr4 & x86.CR4_LA57:
        registers.refuse("cr4", f"{host.cr4:#x} has LA57, and paging says 4 levels")
    if host.cr4 & x86.CR4_VMXE:
        registers.refuse(
            "cr4", "VMXE is set: leave VMX operation before kexec, or CR4 cannot be cleared"
        )
    unknown = host.cr4 & ~x86.CR4_DEFINED
    if unknown:
        registers.refuse("cr4", f"bits {unknown:#x} are reserved")
    if host.efer & x86.EFER_NXE and not host.cpu.nx:
        registers.refuse("efer", "NXE is set, and cpu.nx is false")
