"""Makers of old kernels: host documents as text, and random hosts and plans for Hypothesis.

Nothing here is taken from `tightrope.host.profile`: a document is a dict that is written down as
TOML, a random host is the frozen value itself.

    RAM of a random host, in this order; what lies between is a hole or an ACPI region

      0 .. 0x9fc00        low memory, ends inside a page
      1 MiB or more up    at least 48 MiB: text, then `private`, then 32 MiB that may be free
      further up          up to four more pieces, some of them above 4 GiB, with ragged ends
"""

from __future__ import annotations

import datetime
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from tests.makers import cpio
from tests.makers.bzimage import bzimage
from tightrope import host as host_room
from tightrope import image as image_room
from tightrope.errors import PlanError
from tightrope.memory import Extent, MemoryMap, Phys, Region, RegionKind, Virt
from tightrope.model import (
    Cpu,
    DirectMap,
    Handover,
    Host,
    Image,
    KernelText,
    LowMapping,
    Named,
    Paging,
    Plan,
    Tables,
)
from tightrope.plan import Request, prepare

PAGE = 4096
MIB = 1 << 20
GIB = 1 << 30
TEXT_VIRT = 0xFFFF_FFFF_8100_0000
TEXT_SIZE = 2 * MIB
PRIVATE_SIZE = 4 * MIB

Document = dict[str, Any]


def document() -> Document:
    """The example host as a fresh dict, free to be broken."""
    return tomllib.loads(host_room.example())


def toml(value: object) -> str:
    """One value as TOML; tables are written inline."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return repr(value)
        case str():
            return '"' + "".join(_escaped(c) for c in value) + '"'
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case dict():
            return (
                "{" + ", ".join(f"{toml(key)} = {toml(each)}" for key, each in value.items()) + "}"
            )
        case datetime.date() | datetime.time():
            return value.isoformat()
    raise TypeError(f"no TOML for {value!r}")


def _escaped(character: str) -> str:
    plain = character.isprintable() and character not in '"\\'
    return character if plain else f"\\U{ord(character):08X}"


def write(table: Mapping[str, object]) -> str:
    """A whole document."""
    return "".join(f"{toml(key)} = {toml(value)}\n" for key, value in table.items())


def make_host(
    ram: list[Extent],
    *,
    text: int,
    private: Extent,
    busy: list[Extent] | None = None,
    crash_region: Extent | None = None,
    other: list[Region] | None = None,
    firmware: list[Extent] | None = None,
    gbpages: bool = True,
    nx: bool = True,
    direct_page: int = 2 * MIB,
    relocation: int = TEXT_VIRT + 5 * PAGE,
) -> Host:
    """A host from its memory; the text is `TEXT_SIZE` bytes at physical `text`."""
    regions = [Region(each, RegionKind.RAM) for each in ram] + (other or [])
    return Host(
        source="made",
        paging=Paging.X86_64,
        cpu=Cpu(physical_bits=46, nx=nx, pse=True, pge=True, gbpages=gbpages, la57=False),
        cr0=0x8005_0033,
        cr4=0x6F0,
        efer=0xD01 if nx else 0x501,
        memory=MemoryMap(tuple(sorted(regions))),
        text=KernelText(virt=Virt(TEXT_VIRT), phys=Phys(text), size=TEXT_SIZE),
        relocation=Virt(relocation),
        direct_map=DirectMap(virt=Virt(0xFFFF_8880_0000_0000), page_size=direct_page),
        private=private,
        busy=tuple(Named(extent=each, what="busy") for each in busy or []),
        crash_region=crash_region,
        firmware=tuple(Named(extent=each, what="firmware") for each in firmware or []),
        rsdp=None,
        low_mappings=(),
    )


def small_host(megabytes: int = 128, **more: Any) -> Host:
    """RAM from 0 to 0x9fc00 and from 1 MiB up; text at 2 MiB, private at 4 MiB."""
    ram = [Extent(0, 0x9FC00), Extent(MIB, megabytes * MIB)]
    return make_host(ram, text=2 * MIB, private=Extent.sized(4 * MIB, PRIVATE_SIZE), **more)


class Home(StrEnum):
    """Where an old kernel has V."""

    TEXT = "in the text"
    DIRECT_MAP = "in the direct map"
    FIXMAP = "in a fixmap"


SPLITS = (0xC000_0000, 0xB000_0000, 0x8000_0000, 0x7800_0000, 0x4000_0000)
"""VMSPLIT_3G, _3G_OPT, _2G, _2G_OPT and _1G (Linux arch/x86/Kconfig)."""
FOUR_FOUR = 0x0200_0000
"""PAGE_OFFSET of the 4G/4G patch: the direct map lies where identity addresses do."""
FIXMAP = 0xFFFB_7000
FIXMAP_64 = 0xFFFF_FFFF_FF5F_6000
VMALLOC = 128 * MIB
LEGACY_TEXT, LEGACY_PRIVATE = 4 * MIB, 12 * MIB


def mode_host(
    paging: Paging,
    page_offset: int | None = None,
    *,
    home: Home = Home.TEXT,
    megabytes: int = 128,
    high: int = 0,
    **more: Any,
) -> Host:
    """A host of any mode: RAM as `small_host` has it, and `high` bytes of RAM from 4 GiB up.

    `page_offset` is where the direct map begins (i386 and PAE: the split); text at 4 MiB, private
    memory at 12 MiB.  Keywords as `make_host` takes them.
    """
    ram = [Extent(0, 0x9FC00), Extent(MIB, megabytes * MIB)]
    ram += [Extent.sized(4 * GIB, high)] if high else []
    made = make_host(
        ram, text=LEGACY_TEXT, private=Extent.sized(LEGACY_PRIVATE, PRIVATE_SIZE), **more
    )
    if paging is Paging.LA57:
        made = replace(
            made,
            paging=paging,
            cr4=made.cr4 | 1 << 12,
            cpu=replace(made.cpu, la57=True),
            direct_map=replace(made.direct_map, virt=Virt(0xFF11_0000_0000_0000)),
        )
    if paging in (Paging.I386, Paging.PAE):
        made = _legacy(made, paging, SPLITS[0] if page_offset is None else page_offset)
    elif page_offset is not None:
        made = replace(made, direct_map=replace(made.direct_map, virt=Virt(page_offset)))
    if home is Home.DIRECT_MAP:
        return replace(made, relocation=None)
    if home is Home.FIXMAP:
        virt = Virt(FIXMAP if made.paging in (Paging.I386, Paging.PAE) else FIXMAP_64)
        page = LowMapping(virt=virt, phys=Phys(LEGACY_TEXT + 5 * PAGE), size=PAGE, is_global=True)
        return replace(made, relocation=virt, low_mappings=(*made.low_mappings, page))
    return made


def _legacy(made: Host, paging: Paging, split: int) -> Host:
    """The same machine under a 32-bit kernel: text and direct map at the split."""
    pae = paging is Paging.PAE
    nx = pae and made.cpu.nx
    return replace(
        made,
        paging=paging,
        cpu=replace(made.cpu, nx=nx, gbpages=False),
        cr4=made.cr4 if pae else made.cr4 & ~0x20,
        efer=0x800 if nx else 0,
        text=KernelText(virt=Virt(split + LEGACY_TEXT), phys=made.text.phys, size=4 * MIB),
        relocation=Virt(split + LEGACY_TEXT + 5 * PAGE),
        direct_map=DirectMap(
            virt=Virt(split),
            page_size=PAGE if made.direct_map.page_size == PAGE else (2 if pae else 4) * MIB,
            size=min((1 << 32) - VMALLOC - split, made.memory.ram[1].end & -PAGE),
        ),
    )


def read_image(**fields: Any) -> Image:
    """A made bzImage, read; keywords as `bzimage()` takes them."""
    return image_room.read(bzimage(**fields), "made.bzimage")


def _up(value: int, alignment: int) -> int:
    return -(-value // alignment) * alignment


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    """Hosts with holes, ragged RAM, busy memory and sometimes a crash region."""
    ram = [Extent(0, 0x9FC00)]
    other: list[Region] = []
    start = MIB + draw(st.sampled_from([0, 0x400, 3 * PAGE, 15 * MIB, 3 * GIB, 5 * GIB]))
    ragged = st.sampled_from([0, 0, 0x400, 0xC00])
    main = Extent(start, _up(start, PAGE) + draw(st.integers(48, 96)) * MIB + draw(ragged))
    ram.append(main)
    at = main.end
    for _ in range(draw(st.integers(0, 4))):
        gap = draw(st.sampled_from([0, 0x400, PAGE, 7 * PAGE, 2 * MIB, GIB, 3 * GIB]))
        if gap > PAGE and draw(st.booleans()):
            kind = draw(st.sampled_from([RegionKind.ACPI, RegionKind.NVS, RegionKind.RESERVED]))
            other.append(Region(Extent(at, at + min(gap, 5 * PAGE)), kind))
        at += gap
        size = draw(st.integers(1, 16384)) * PAGE + draw(ragged)
        ram.append(Extent(at, at + size))
        at += size
    text = _up(start, 2 * MIB)
    private = Extent.sized(text + 4 * MIB, PRIVATE_SIZE)
    busy: list[Extent] = []
    for piece in draw(st.lists(st.sampled_from(ram), max_size=4)):
        first = draw(st.integers(piece.start, piece.end - 1))
        size = draw(st.integers(1, 24 * MIB))
        busy.append(Extent(first, min(first + size, piece.end)))
    crash: Extent | None = None
    if draw(st.booleans()):
        piece = draw(st.sampled_from([each for each in ram if each.size > MIB]))
        first = _up(piece.start + draw(st.integers(0, piece.size // 2)), PAGE)
        crash = Extent.sized(first, draw(st.integers(1, 64)) * PAGE)
        kernel_own = (Extent.sized(text, TEXT_SIZE), private)
        if not piece.covers(crash) or any(crash.overlaps(each) for each in kernel_own):
            crash = None
    firmware = [Extent(0xF0000, 0x100000)] if draw(st.booleans()) else []
    return make_host(
        ram,
        text=text,
        private=private,
        busy=busy,
        crash_region=crash,
        other=other,
        firmware=firmware,
        gbpages=draw(st.booleans()),
        nx=draw(st.booleans()),
        direct_page=draw(st.sampled_from([2 * MIB, PAGE])),
    )


@st.composite
def images(draw: st.DrawFn) -> Image:
    """Small kernels that are loaded in many places."""
    alignment = draw(st.sampled_from([PAGE, 2 * MIB, 16 * MIB]))
    return read_image(
        relocatable=draw(st.booleans()) or draw(st.booleans()),
        pref_address=alignment * draw(st.integers(MIB // alignment + 1, 96 * MIB // alignment)),
        alignment=alignment,
        min_alignment=12,
        init_size=draw(st.integers(0x10000, 8 * MIB)),
        kernel_size=draw(st.integers(0, 0x8000)),
        xloadflags=draw(st.sampled_from([0b0111_1111, 0b0111_1111, 0b0111_1101])),
    )


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """With and without an initrd and a shuffle."""
    size = draw(st.none() | st.integers(300, MIB))
    return Request(
        initrd=None if size is None else cpio.initrd(4 * size, bytes(range(1, 252))),
        command_line=draw(st.text("abc =,é", max_size=300)),
        scatter=draw(st.none() | st.integers(0, 1 << 70)),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Plans that came out; combinations that cannot go together are not examples."""
    try:
        return prepare(draw(images()), draw(hosts()), draw(requests()))
    except PlanError:
        assume(False)
        raise


def table_b(handover: Handover) -> Tables:
    """page_table_b of a handover in long mode."""
    assert handover.page_table_b is not None
    return handover.page_table_b
