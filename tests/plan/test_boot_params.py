"""plan.boot_params: every field of the zero page is where zero-page.rst has it.

Offsets are written here once more, from zero-page.rst and boot.rst, and read with struct.
"""

from __future__ import annotations

import struct
from contextlib import nullcontext
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.bzimage import bzimage
from tests.makers.hosts import GIB, MIB, read_image
from tightrope.errors import PlanError
from tightrope.memory import Extent, MemoryMap, Phys, Region, RegionKind
from tightrope.model import Image
from tightrope.plan.boot_params import boot_params

ACPI_RSDP_ADDR = 0x070
EXT_RAMDISK_IMAGE, EXT_RAMDISK_SIZE, EXT_CMD_LINE_PTR = 0x0C0, 0x0C4, 0x0C8
E820_ENTRIES, SENTINEL, HEADER = 0x1E8, 0x1EF, 0x1F1
TYPE_OF_LOADER, CODE32_START, RAMDISK_IMAGE, RAMDISK_SIZE = 0x210, 0x214, 0x218, 0x21C
CMD_LINE_PTR, SETUP_DATA, HEADER_END, E820_TABLE = 0x228, 0x250, 0x26C, 0x2D0

FILE = bzimage()
IMAGE = read_image()
RAM = MemoryMap((Region(Extent(0, 64 * MIB), RegionKind.RAM),))


def u32(page: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", page, offset)[0])


def u64(page: bytes, offset: int) -> int:
    return int(struct.unpack_from("<Q", page, offset)[0])


def make(
    image: Image = IMAGE,
    *,
    load: int = 16 * MIB,
    command_line: int = 0x3000,
    initrd: Extent | None = None,
    memory: MemoryMap = RAM,
    rsdp: int | None = None,
) -> bytes:
    return boot_params(
        image,
        load=Phys(load),
        command_line=Phys(command_line),
        initrd=initrd,
        memory=memory,
        rsdp=None if rsdp is None else Phys(rsdp),
    )


def e820(page: bytes) -> list[tuple[int, int, int]]:
    return [
        struct.unpack_from("<QQI", page, E820_TABLE + 20 * number)
        for number in range(page[E820_ENTRIES])
    ]


ADDRESS = st.integers(0, (1 << 52) - 1)


@given(
    load=ADDRESS,
    command_line=ADDRESS,
    initrd=st.none() | st.tuples(ADDRESS, st.integers(1, 1 << 40)),
    rsdp=st.none() | ADDRESS,
)
def test_every_field_is_where_the_kernel_looks_for_it(
    load: int, command_line: int, initrd: tuple[int, int] | None, rsdp: int | None
) -> None:
    start, size = initrd or (0, 0)
    page = make(
        load=load,
        command_line=command_line,
        initrd=Extent.sized(start, size) if initrd else None,
        rsdp=rsdp,
    )
    assert len(page) == 4096
    assert u32(page, CMD_LINE_PTR) | u32(page, EXT_CMD_LINE_PTR) << 32 == command_line
    assert u32(page, RAMDISK_IMAGE) | u32(page, EXT_RAMDISK_IMAGE) << 32 == start
    assert u32(page, RAMDISK_SIZE) | u32(page, EXT_RAMDISK_SIZE) << 32 == size
    assert u64(page, ACPI_RSDP_ADDR) == (rsdp or 0)
    assert page[TYPE_OF_LOADER] == 0xD0
    assert u64(page, SETUP_DATA) == 0
    # A 32-bit field, and only the 32-bit entry's business: the file's own value where it cannot hold.
    assert u32(page, CODE32_START) == (load if load < 4 * GIB else 0x100000)


WRITTEN = [
    (TYPE_OF_LOADER, 1),
    (CODE32_START, 4),
    (RAMDISK_IMAGE, 4),
    (RAMDISK_SIZE, 4),
    (CMD_LINE_PTR, 4),
    (SETUP_DATA, 8),
]


def test_the_setup_header_is_the_files_but_for_what_a_loader_fills_in() -> None:
    page = bytearray(make(initrd=Extent(20 * MIB, 21 * MIB)))
    file = bytearray(FILE)
    for offset, size in WRITTEN:
        page[offset : offset + size] = file[offset : offset + size] = bytes(size)
    assert page[HEADER:HEADER_END] == file[HEADER:HEADER_END]
    assert any(page[HEADER:HEADER_END])


def test_the_sentinel_and_everything_that_nobody_filled_in_are_zero() -> None:
    assert FILE[SENTINEL] == 0xFF
    page = bytearray(make(memory=RAM, rsdp=0xF5A40, initrd=Extent(20 * MIB, 21 * MIB)))
    assert page[SENTINEL] == 0
    page[HEADER:HEADER_END] = bytes(HEADER_END - HEADER)
    page[ACPI_RSDP_ADDR : ACPI_RSDP_ADDR + 8] = bytes(8)
    page[EXT_RAMDISK_IMAGE : EXT_CMD_LINE_PTR + 4] = bytes(12)
    page[E820_ENTRIES] = 0
    page[E820_TABLE : E820_TABLE + 20] = bytes(20)
    assert not any(page)


def test_every_kind_of_memory_has_the_kernels_type() -> None:
    # asm/e820/types.h; 12 is what persistent memory was before ACPI 6, the last is Linux's own.
    kinds = [
        (RegionKind.RAM, 1),
        (RegionKind.RESERVED, 2),
        (RegionKind.ACPI, 3),
        (RegionKind.NVS, 4),
        (RegionKind.UNUSABLE, 5),
        (RegionKind.PMEM, 7),
        (RegionKind.PRAM, 12),
        (RegionKind.SOFT_RESERVED, 0xEFFF_FFFF),
    ]
    assert [kind for kind, _ in kinds] == list(RegionKind)
    memory = MemoryMap(
        tuple(Region(Extent(n * MIB, n * MIB + n + 1), kind) for n, (kind, _) in enumerate(kinds))
    )
    assert e820(make(memory=memory)) == [
        (n * MIB, n + 1, number) for n, (_, number) in enumerate(kinds)
    ]


@given(sizes=st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(1, 1 << 44)), max_size=128))
def test_the_memory_map_is_handed_on_entry_by_entry(sizes: list[tuple[int, int]]) -> None:
    at, regions = 0, []
    for gap, size in sizes:
        regions.append(Region(Extent(at + gap, at + gap + size), RegionKind.RAM))
        at += gap + size
    page = make(memory=MemoryMap(tuple(regions)))
    assert e820(page) == [(each.extent.start, each.extent.size, 1) for each in regions]
    assert not any(page[0xCD0:])


def test_a_memory_map_of_more_than_128_entries_is_refused() -> None:
    def entries(count: int) -> MemoryMap:
        return MemoryMap(
            tuple(Region(Extent(n * MIB, n * MIB + 1), RegionKind.RAM) for n in range(count))
        )

    assert len(e820(make(memory=entries(128)))) == 128
    with pytest.raises(PlanError, match="129 memory map entries") as caught:
        make(memory=entries(129))
    assert (caught.value.field, caught.value.limit) == ("memory", 128)


def test_a_chain_of_setup_data_is_not_handed_on() -> None:
    header = bytearray(IMAGE.setup_header)
    header[SETUP_DATA - HEADER : SETUP_DATA - HEADER + 8] = struct.pack("<Q", 0x1234_5000)
    page = make(replace(IMAGE, setup_header=bytes(header)))
    assert u64(page, SETUP_DATA) == 0


def test_an_older_header_is_shorter() -> None:
    image = read_image(protocol=0x020C)
    page = make(image)
    assert page[0x206:0x208] == b"\x0c\x02"
    assert not any(page[0x268:E820_TABLE])


def test_a_kernel_too_old_for_setup_data_is_not_told_half_of_the_memory() -> None:
    memory = MemoryMap(
        tuple(Region(Extent(n * MIB, n * MIB + 1), RegionKind.RAM) for n in range(129))
    )
    header = bytearray(IMAGE.setup_header)
    for version, takes in ((0x0208, False), (0x0209, True)):
        struct.pack_into("<H", header, 0x206 - HEADER, version)
        old = replace(IMAGE, setup_header=bytes(header))
        with nullcontext() if takes else pytest.raises(PlanError, match="129 memory map entries"):
            page = boot_params(
                old,
                load=Phys(16 * MIB),
                command_line=Phys(0x3000),
                initrd=None,
                memory=memory,
                rsdp=None,
                setup_data=Phys(0x5000),
            )
            assert (page[E820_ENTRIES], u64(page, SETUP_DATA)) == (128, 0x5000)


def test_the_screen_is_handed_on() -> None:
    page = boot_params(
        IMAGE,
        load=Phys(16 * MIB),
        command_line=Phys(0x3000),
        initrd=None,
        memory=RAM,
        rsdp=None,
        screen=bytes(range(64)),
    )
    assert page[:64] == bytes(range(64))
    assert page[64:0x70] == bytes(0x30)
