"""world.lay: the bytes of an old kernel are what its description says.

The tables are read through the walker and the survey, which share nothing with their builder; the
descriptors are read with struct, from the manual's figures.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.makers.hosts import GIB, MIB, PAGE, TEXT_SIZE, hosts, make_host, small_host
from tightrope import host as host_room
from tightrope import world as world_room
from tightrope.errors import HostError
from tightrope.memory import Extent, MemoryMap, Phys, Region, RegionKind, Virt, union
from tightrope.model import Code, DirectMap, Host, LowMapping, World
from tightrope.x86.survey import Mappings, survey
from tightrope.x86.walk import Access, Mmu, Refused, Translated, walk

CODE = Code(name="code", data=bytes(range(1, 200)), symbols={})


def mmu(world: World) -> Mmu:
    registers = world.registers
    return Mmu(
        cr0=registers.cr0,
        cr3=registers.cr3,
        cr4=registers.cr4,
        efer=registers.efer,
        physical_bits=world.host.cpu.physical_bits,
        gbpages=world.host.cpu.gbpages,
    )


def mapped(world: World) -> Mappings:
    found = survey(world.tables.get, mmu(world))
    assert found.lost == ()
    return found


def translate(world: World, virt: int, access: Access = Access.READ) -> Translated | Refused:
    def read(at: int, size: int) -> int | None:
        page = world.tables.get(at & ~0xFFF)
        return None if page is None else int.from_bytes(page[at & 0xFFF :][:size], "little")

    return walk(read, mmu(world), virt, access)


def at(world: World, phys: int, size: int) -> bytes:
    """The bytes that lie at a physical address; zeros where no piece lies."""
    out = bytearray(size)
    for piece in world.pieces:
        first, end = max(phys, piece.extent.start), min(phys + size, piece.extent.end)
        if first < end:
            out[first - phys : end - phys] = bytes(piece.data)[
                first - piece.extent.start : end - piece.extent.start
            ]
    return bytes(out)


def at_virt(world: World, virt: int, size: int) -> bytes:
    """Bytes at a linear address; they must not cross a page."""
    found = translate(world, virt)
    assert isinstance(found, Translated)
    assert virt % PAGE + size <= PAGE
    return at(world, found.phys, size)


EXAMPLE = world_room.lay(host_room.read(host_room.example(), "example"), CODE)


# ------------------------------------------------------------------------------------- the text


def test_v_leads_to_its_frame_executable_and_global_and_read_only() -> None:
    found = translate(EXAMPLE, EXAMPLE.registers.rip, Access.FETCH)
    assert isinstance(found, Translated)
    assert found.phys == EXAMPLE.code_phys == 0x2E20_0000 + 0xA0_1000
    assert found.executable
    assert found.is_global
    assert not found.writable
    assert not found.user
    assert not found.sets_accessed
    assert found.page_size == 2 * MIB


def test_the_relocation_code_lies_at_v_followed_by_zeros() -> None:
    assert at_virt(EXAMPLE, EXAMPLE.registers.rip, PAGE) == CODE.data.ljust(PAGE, b"\0")


def test_the_cpu_is_about_to_execute_v_under_the_current_pgd() -> None:
    registers = EXAMPLE.registers
    assert registers.rip == EXAMPLE.registers.rip
    assert registers.cr3 == EXAMPLE.pgd
    assert EXAMPLE.pgd in EXAMPLE.tables
    assert (registers.cr0, registers.cr4, registers.efer) == (0x80050033, 0x3706F0, 0xD01)
    assert registers.rflags == 0x202


def test_the_call_left_an_address_of_the_kernel_text_on_the_stack() -> None:
    rsp = EXAMPLE.registers.general["rsp"]
    assert rsp % 8 == 0
    (back,) = struct.unpack("<Q", at_virt(EXAMPLE, rsp, 8))
    assert EXAMPLE.host.text.virt <= back < EXAMPLE.host.text.virt + EXAMPLE.host.text.size
    below = translate(EXAMPLE, rsp - 8, Access.WRITE)
    assert isinstance(below, Translated)
    assert below.phys in EXAMPLE.host.private


def test_without_pge_nothing_is_global() -> None:
    made = small_host()
    world = world_room.lay(replace(made, cpu=replace(made.cpu, pge=False)), CODE)
    assert not mapped(world).is_global.any()


# ------------------------------------------------------------------------------- the direct map


def direct(world: World) -> tuple[tuple[Extent, ...], list[bool]]:
    """Physical memory that the direct map reaches, and whether each page of it is executable."""
    found = mapped(world)
    text = Extent.sized(world.host.text.virt, world.host.text.size)
    reached, executable = [], []
    for virt, phys, size, x in zip(
        found.virt.tolist(),
        found.phys.tolist(),
        found.size.tolist(),
        found.executable.tolist(),
        strict=True,
    ):
        if virt in text:
            assert virt - text.start == phys - world.host.text.phys
        else:
            assert virt - world.host.direct_map.virt == phys
            reached.append(Extent.sized(phys, size))
            executable.append(x)
    return union(reached), executable


def ram_pages(host: Host) -> tuple[Extent, ...]:
    return union(each.page_aligned() for each in host.memory.ram)


@settings(max_examples=25)
@given(host=hosts())
def test_text_and_direct_map_are_all_that_is_mapped(host: Host) -> None:
    world = world_room.lay(host, CODE)
    reached, executable = direct(world)
    assert reached == ram_pages(host)
    assert set(executable) == {not host.cpu.nx}
    found = mapped(world)
    text = [virt for virt in found.virt.tolist() if virt >= host.text.virt]
    assert text == [host.text.virt + n * 2 * MIB for n in range(TEXT_SIZE // (2 * MIB))]
    assert found.writable.sum() == len(executable)
    assert not found.user.any()
    assert found.is_global.all()
    assert found.size.max() <= max(host.direct_map.page_size, 2 * MIB)


@settings(max_examples=25)
@given(host=hosts())
def test_everything_that_is_laid_out_is_in_private_memory_but_code_and_bios_data(
    host: Host,
) -> None:
    world = world_room.lay(host, CODE)
    for piece in world.pieces:
        inside = Extent.sized(world.code_phys, PAGE) if "code at V" in piece.what else host.private
        if "BIOS" in piece.what:
            inside = Extent(0x400, 0x500)
        assert inside.covers(piece.extent)
    extents = sorted(piece.extent for piece in world.pieces)
    assert not any(a.overlaps(b) for a, b in pairwise(extents))
    assert {piece.phys for piece in world.pieces if "tables" in piece.what} == set(world.tables)


def test_a_direct_map_of_gib_pages_uses_them_where_ram_fills_them() -> None:
    host = make_host(
        [Extent(0, 3 * GIB)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, 4 * MIB),
        direct_page=GIB,
    )
    world = world_room.lay(host, CODE)
    assert sorted(mapped(world).size.tolist()) == [2 * MIB] + [GIB] * 3


@pytest.mark.parametrize("page_size", [PAGE, 2 * MIB])
def test_a_direct_map_has_no_page_larger_than_the_host_says(page_size: int) -> None:
    host = make_host(
        [Extent(0, GIB)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, 4 * MIB),
        direct_page=page_size,
    )
    found = mapped(world_room.lay(host, CODE))
    sizes = found.size[found.virt < host.text.virt].tolist()
    assert sizes == [page_size] * (GIB // page_size)


def test_two_pieces_of_ram_in_one_page_are_mapped_once() -> None:
    host = make_host(
        [Extent(0, 0x800), Extent(0xC00, 64 * MIB)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, 4 * MIB),
        other=[Region(Extent(0x800, 0xC00), RegionKind.RESERVED)],
    )
    reached, _ = direct(world_room.lay(host, CODE))
    assert reached == (Extent(0, 64 * MIB),)


@pytest.mark.timeout(20)
def test_a_host_of_6_tib_is_laid_out_with_gib_pages() -> None:
    host = make_host(
        [Extent(0, 0x9F000), Extent(MIB, 6 << 40)],
        text=2 * MIB,
        private=Extent.sized(4 * MIB, 4 * MIB),
        direct_page=GIB,
    )
    world = world_room.lay(host, CODE)
    assert len(world.tables) < 40
    reached, _ = direct(world)
    assert reached == (Extent(0, 0x9F000), Extent(MIB, 6 << 40))


# -------------------------------------------------------------------------------- low mappings


def low(virt: int, phys: int, *, size: int = PAGE, is_global: bool = False) -> LowMapping:
    return LowMapping(virt=Virt(virt), phys=Phys(phys), size=size, is_global=is_global)


def test_a_low_mapping_leads_where_it_says() -> None:
    host = replace(
        small_host(),
        low_mappings=(low(0x20000, 0x30000, size=3 * PAGE), low(5 * GIB, 0x7000, is_global=True)),
    )
    world = world_room.lay(host, CODE)
    for virt, phys, is_global in (
        (0x20000, 0x30000, False),
        (0x22FFF, 0x32FFF, False),
        (5 * GIB, 0x7000, True),
    ):
        found = translate(world, virt, Access.FETCH)
        assert isinstance(found, Translated)
        assert (found.phys, found.is_global, found.page_size) == (phys, is_global, PAGE)
        assert found.writable
    for virt in (0x1F000, 0x23000, 5 * GIB - PAGE, 5 * GIB + PAGE):
        assert isinstance(translate(world, virt), Refused)


@pytest.mark.parametrize(
    "virt", [0xFFFF_8880_0000_0000, 0xFFFF_FFFF_8100_0000], ids=["direct-map", "text"]
)
def test_a_mapping_over_another_is_refused(virt: int) -> None:
    host = replace(small_host(), low_mappings=(low(virt, 0x7000),))
    with pytest.raises(HostError, match="mapped already") as caught:
        world_room.lay(host, CODE)
    assert (caught.value.source, caught.value.field) == ("made", "mapping")


def test_a_direct_map_over_the_text_is_refused() -> None:
    made = small_host()
    host = replace(
        made, direct_map=DirectMap(virt=Virt(made.text.virt - 8 * MIB), page_size=2 * MIB)
    )
    with pytest.raises(HostError, match="overlaps the kernel text") as caught:
        world_room.lay(host, CODE)
    assert (caught.value.source, caught.value.field) == ("made", "direct_map.virt")


# ------------------------------------------------------------------------------------ gdt, idt


def descriptor(world: World, selector: int) -> int:
    base, limit = world.registers.gdt
    assert selector + 7 <= limit
    (value,) = struct.unpack("<Q", at_virt(world, base + selector, 8))
    return int(value)


def test_cs_names_a_flat_64_bit_code_segment() -> None:
    value = descriptor(EXAMPLE, EXAMPLE.registers.segments["cs"])
    # SDM figure 5-2: L at 53, D at 54, P at 47, DPL at 46:45, S at 44, type at 43:40.
    assert value >> 53 & 1 == 1
    assert value >> 54 & 1 == 0
    assert value >> 44 & 0xF == 0b1001
    assert value >> 40 & 0b1010 == 0b1010


def test_ss_names_a_writable_data_segment() -> None:
    value = descriptor(EXAMPLE, EXAMPLE.registers.segments["ss"])
    assert value >> 44 & 0xF == 0b1001
    assert value >> 40 & 0b1010 == 0b0010


def test_every_gate_leads_into_the_kernel_text_through_the_code_segment() -> None:
    base, limit = EXAMPLE.registers.idt
    assert limit == 4095
    handlers = set()
    for number in range(256):
        raw = at_virt(EXAMPLE, base + 16 * number, 16)
        # SDM figure 6-8: offset 15:0, selector, IST, type and P, offset 31:16, offset 63:32.
        low_half, selector, ist, kind, middle, high, zero = struct.unpack("<HHBBHII", raw)
        assert (selector, ist, kind, zero) == (EXAMPLE.registers.segments["cs"], 0, 0x8E, 0)
        handlers.add(low_half | middle << 16 | high << 32)
    for handler in handlers:
        found = translate(EXAMPLE, handler, Access.FETCH)
        assert isinstance(found, Translated)
        assert found.phys - EXAMPLE.host.text.phys in range(EXAMPLE.host.text.size)
        assert not 0 <= handler - EXAMPLE.registers.rip < PAGE


# ---------------------------------------------------------------------------- the BIOS data area


@pytest.mark.parametrize(
    ("low", "kib", "segment"),
    [(0x9FC00, 639, 0x9FC0), (0xA0000, 640, 0xA000), (0x20000, 128, 0x2000)],
)
def test_the_bios_data_area_says_where_low_memory_ends(low: int, kib: int, segment: int) -> None:
    ram = (Region(Extent(0, low), RegionKind.RAM), *small_host().memory.regions[1:])
    world = world_room.lay(replace(small_host(), memory=MemoryMap(ram)), CODE)
    assert at(world, 0x413, 2) == kib.to_bytes(2, "little")
    assert at(world, 0x40E, 2) == segment.to_bytes(2, "little")


@pytest.mark.parametrize("low", [Extent(0, 0x1F000), Extent(0, 0xB0000), Extent(0x1000, 0x9FC00)])
def test_a_memory_map_that_no_bios_has_gives_no_bios_data_area(low: Extent) -> None:
    ram = (Region(low, RegionKind.RAM), *small_host().memory.regions[1:])
    world = world_room.lay(replace(small_host(), memory=MemoryMap(ram)), CODE)
    assert [each for each in world.pieces if "BIOS" in each.what] == []


# -------------------------------------------------------------------------------- private memory


def test_private_memory_holds_the_tables_to_the_last_page_and_not_one_less() -> None:
    host = small_host()
    needed = max(
        piece.extent.end
        for piece in world_room.lay(host, CODE).pieces
        if host.private.covers(piece.extent)
    )
    size = needed - host.private.start
    world_room.lay(replace(host, private=Extent.sized(host.private.start, size)), CODE)
    with pytest.raises(HostError, match="too small") as caught:
        world_room.lay(replace(host, private=Extent.sized(host.private.start, size - PAGE)), CODE)
    assert (caught.value.source, caught.value.field) == ("made", "private.size")


@given(pages=st.integers(1, 8))
def test_private_memory_without_room_for_anything_is_refused(pages: int) -> None:
    host = replace(small_host(), private=Extent.sized(4 * MIB, pages * PAGE))
    with pytest.raises(HostError, match="too small"):
        world_room.lay(host, CODE)
