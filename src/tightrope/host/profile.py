"""A host description: TOML text in, a checked `Host` out.

Rules: every field is read once,
with its type and its bounds; whatever is wrong raises `HostError` with the field's path.  Keys that
nobody reads are errors too: a misspelt field must not silently mean its default.
"""

from __future__ import annotations

import tomllib
from dataclasses import replace

from tightrope.errors import HostError
from tightrope.host.consistency import check
from tightrope.host.toml import Reader
from tightrope.host.xen.profile import read_xen
from tightrope.memory import (
    PAGE_SIZE,
    Extent,
    MemoryMap,
    Phys,
    Region,
    RegionKind,
    Virt,
)
from tightrope.model import Cpu, DirectMap, Host, KernelText, LowMapping, Named, Paging
from tightrope.model.modes import MODES, text_page_size

DIRECT_MAP = "direct map"


def read(text: str, source: str) -> Host:
    """A `Host` from TOML text; `source` names the file in errors.  Raises HostError."""
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as err:
        # A plain ValueError is Python's own limit on the digits of a number.
        raise HostError(f"not TOML: {err}", source=source) from err
    top = Reader(document, source)
    paging = Paging(top.choice("paging", [each.value for each in Paging]))
    cpu = _cpu(top.table("cpu"))
    registers = top.table("registers")
    memory = _memory_map(top, cpu)
    text_table = top.table("text")
    large = text_page_size(paging, pse=cpu.pse)
    place = KernelText(
        virt=Virt(text_table.aligned("virt", large, bits=64)),
        phys=Phys(text_table.aligned("phys", large)),
        size=text_table.aligned("size", large, low=large),
    )
    text_table.done()
    direct = top.table("direct_map")
    sizes = MODES[paging].format.page_sizes(gbpages=cpu.gbpages)
    page_size = direct.number("page_size")
    if page_size not in sizes or (page_size > PAGE_SIZE and not cpu.pse):
        direct.refuse("page_size", f"{page_size:#x} is not a page size of this CPU")
    direct_map = DirectMap(
        virt=Virt(direct.aligned("virt", page_size, bits=64)),
        page_size=page_size,
        size=direct.aligned("size", PAGE_SIZE, low=1) if "size" in direct else 1 << 52,
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
        relocation=_relocation(top),
        direct_map=direct_map,
        private=_extent(top.table("private"), close=True),
        busy=tuple(_named(each) for each in top.tables("busy")),
        crash_region=(
            _extent(top.table("crash_region"), close=True) if "crash_region" in top else None
        ),
        firmware=tuple(_named(each) for each in top.tables("firmware")),
        rsdp=Phys(top.number("rsdp")) if "rsdp" in top else None,
        low_mappings=tuple(_mapping(each) for each in top.tables("mapping")),
        crash_notes=tuple(_named(each) for each in top.tables("crash_note")),
    )
    if "xen" in top:
        host = replace(host, xen=read_xen(top.table("xen"), host))
    registers.done()
    top.done()
    check(host, top, registers)
    return host


def _relocation(top: Reader) -> Virt | None:
    """An address, or the words that say V is wherever the direct map has the control page."""
    if top.is_text("relocation"):
        found = top.text("relocation")
        if found != DIRECT_MAP:
            top.refuse("relocation", f"expected an address or {DIRECT_MAP!r}, found {found!r}")
        return None
    return Virt(top.aligned("relocation", PAGE_SIZE, bits=64))


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
