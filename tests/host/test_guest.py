"""A guest's world read back: what was laid out as bytes is found again from registers and tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tightrope import host, routines
from tightrope import world as world_room
from tightrope.errors import HostError
from tightrope.host import Told, read_guest, with_code
from tightrope.memory import PAGE_SIZE, Extent, Virt
from tightrope.model import Code, Host, Paging, World
from tightrope.observe.physical import Ram, backed
from tightrope.views.host import rests_on
from tightrope.x86.walk import Access, Refused, Translated, walk

RESERVED = Extent.sized(0x1000_0000, 0x400_0000)
KINDS = {"ram": "System RAM", "reserved": "Reserved"}


def iomem(old: Host, reserved: Extent | None = RESERVED) -> str:
    """/proc/iomem of a described kernel."""
    rows = []
    text = Extent.sized(old.text.phys, old.text.size)
    for region in old.memory:
        rows.append((0, region.extent, KINDS[region.kind.value]))
        inside = [(text, "Kernel code"), *([(reserved, "Crash kernel")] if reserved else [])]
        rows += [(1, each, name) for each, name in inside if region.extent.covers(each)]
    return "".join(
        f"{'  ' * depth}{each.start:08x}-{each.end - 1:08x} : {name}\n"
        for depth, each, name in rows
    )


def code_for(paging: Paging) -> Code:
    return routines.read(routines.RELOCATE_X86_64 if paging.long_mode else routines.RELOCATE_I386)


def standing(paging: Paging) -> tuple[Host, World, Ram]:
    """A described old kernel in memory."""
    old = host.read(host.example(paging, pc=512), "a PC")
    world = world_room.lay(old, code_for(paging))
    ram = Ram(backed(old.memory, old.firmware))
    for piece in world.pieces:
        ram.write(piece.phys, piece.data)
    return old, world, ram


def told(old: Host, **fields: str) -> Told:
    assert old.relocation is not None
    said = {
        "iomem": iomem(old),
        # A routine that begins somewhere inside its page, as i386's does.
        "symbols": f"{old.text.virt:x} T _text\n{old.relocation + 0xD8:x} T relocate_kernel\n",
        "notes": "",
    }
    bits = old.cpu.physical_bits
    return Told(physical_bits=bits, gbpages=old.cpu.gbpages, **(said | fields))


@pytest.mark.parametrize("paging", list(Paging))
def test_a_world_that_was_laid_out_is_read_back(paging: Paging) -> None:
    old, world, ram = standing(paging)
    got = read_guest(told(old), world.registers, ram.view)
    names = ("paging", "text", "relocation", "memory", "cr0", "cr4", "efer")
    assert [getattr(got.host, name) for name in names] == [getattr(old, name) for name in names]
    assert got.host.direct_map.virt == old.direct_map.virt
    assert (got.host.cpu.nx, got.host.cpu.pge) == (old.cpu.nx, old.cpu.pge)
    assert got.pgd == world.pgd
    assert {frame: bytes(page) for frame, page in got.tables.items()} == {
        frame: bytes(page) for frame, page in world.tables.items()
    }


def test_what_stands_there_is_read_and_nothing_of_it_assumed() -> None:
    old, world, ram = standing(Paging.X86_64)
    got = read_guest(told(old), world.registers, ram.view).host
    assert {"memory", "relocation", "text.virt", "cr4"} <= {each.field for each in got.facts}
    assert got.assumed() == ()
    assert rests_on(got) == "a host description of which nothing is assumed"


@pytest.mark.parametrize("paging", list(Paging))
def test_only_what_it_reserved_is_free(paging: Paging) -> None:
    old, world, ram = standing(paging)
    got = read_guest(told(old), world.registers, ram.view).host
    taken = [
        *(each.extent for each in got.busy),
        got.private,
        Extent.sized(got.text.phys, got.text.size),
    ]
    assert not any(RESERVED.overlaps(each) for each in taken)
    assert sum(each.size for each in taken) == sum(e.size for e in got.memory.ram) - RESERVED.size
    assert got.crash_region is None


def test_for_a_crash_what_it_reserved_is_the_crash_region() -> None:
    old, world, ram = standing(Paging.X86_64)
    notes = "2100000 1000 vmcoreinfo\n2200000 170 CPU 0\n"
    got = read_guest(told(old, notes=notes), world.registers, ram.view, crash=True).host
    assert got.crash_region == RESERVED
    assert [(note.what, note.extent) for note in got.crash_notes] == [
        ("CPU 0", Extent.sized(0x220_0000, 0x170)),
        ("vmcoreinfo", Extent.sized(0x210_0000, 0x1000)),
    ]


def test_of_two_regions_the_highest_is_where_the_image_goes() -> None:
    old, world, ram = standing(Paging.X86_64)
    high = "  1c000000-1cffffff : Crash kernel\n"
    lines = iomem(old).replace("  10000000", f"{high}  10000000")
    got = read_guest(told(old, iomem=lines), world.registers, ram.view, crash=True).host
    assert got.crash_region == Extent(0x1C00_0000, 0x1D00_0000)
    assert [each.extent for each in got.crash_memory] == [RESERVED]


@pytest.mark.parametrize("lowmem", [0x1800_0000, 0x17FF_F000, 0x1800_1000])
@pytest.mark.parametrize("paging", [Paging.I386, Paging.PAE])
def test_the_direct_map_ends_where_lowmem_does_to_the_page(paging: Paging, lowmem: int) -> None:
    old = host.read(host.example(paging, pc=512), "a PC")
    old = replace(old, direct_map=replace(old.direct_map, size=lowmem))
    world = world_room.lay(old, code_for(paging))
    ram = Ram(backed(old.memory, old.firmware))
    for piece in world.pieces:
        ram.write(piece.phys, piece.data)
    assert read_guest(told(old), world.registers, ram.view).host.direct_map.size == lowmem


@pytest.mark.parametrize("paging", [Paging.X86_64, Paging.LA57])
def test_a_64_bit_kernel_maps_all_of_ram(paging: Paging) -> None:
    old, world, ram = standing(paging)
    assert read_guest(told(old), world.registers, ram.view).host.direct_map.size == 1 << 52


@pytest.mark.parametrize("paging", list(Paging))
def test_its_world_has_the_code_over_its_own_page_at_v(paging: Paging) -> None:
    old, world, ram = standing(paging)
    guest = read_guest(told(old), world.registers, ram.view)
    code = code_for(paging)
    assert old.relocation is not None
    made = with_code(guest, code, old.relocation, ram.view)
    assert made.code_phys == world.code_phys
    assert made.pieces[0].data == code.data.ljust(PAGE_SIZE, b"\0")
    assert made.registers.rip == old.relocation
    assert made.registers.cr3 == world.registers.cr3


def test_code_that_is_data_is_called_in_the_direct_map_which_is_made_executable() -> None:
    """Linux since 6.14 copies relocate_kernel out of its data, and calls the copy."""
    old, world, ram = standing(Paging.X86_64)
    data = old.direct_map.virt + old.memory.ram[-1].end - PAGE_SIZE
    symbols = f"{old.text.virt:x} T _text\n{data + 0x8:x} d relocate_kernel\n"
    guest = read_guest(told(old, symbols=symbols), world.registers, ram.view)
    assert guest.host.relocation is None
    control = RESERVED.start
    virt = Virt(old.direct_map.virt + control)
    mmu = world.registers.mmu(guest.host.cpu)

    def fetched(tables: Mapping[int, memoryview] | None = None) -> Translated | Refused:
        def entry(at: int, size: int) -> int | None:
            view = ram.view(at, size)
            if tables is not None:
                view = tables[at & -PAGE_SIZE][at % PAGE_SIZE :][:size]
            return None if view is None else int.from_bytes(view, "little")

        return walk(entry, mmu, virt, Access.FETCH)

    assert isinstance(fetched(), Refused)
    made = with_code(guest, code_for(Paging.X86_64), virt, ram.view)
    assert (made.code_phys, made.registers.rip) == (control, virt)
    for found in (fetched(), fetched(made.tables)):
        assert isinstance(found, Translated)
        assert found.phys == control
    changed = [
        (frame, offset)
        for frame, page in guest.tables.items()
        for offset, byte in enumerate(bytes(page))
        if byte != made.tables[frame][offset]
    ]
    assert len(changed) == 1, "the one entry, in its bit 63"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"symbols": ""}, "tells no addresses of its text"),
        ({"symbols": "0 T _text\n0 T relocate_kernel\n"}, "tells no addresses"),
        ({"iomem": ""}, "memory"),
        ({"notes": "zz 1 vmcoreinfo\n"}, "is not a note"),
        ({"notes": "1\n"}, "is not a note"),
        ({"notes": "fffffff000 10 CPU 0\n"}, "is not all RAM"),
    ],
)
def test_a_guest_that_does_not_tell_enough_is_an_error(fields: dict[str, str], says: str) -> None:
    old, world, ram = standing(Paging.X86_64)
    with pytest.raises(HostError, match=says):
        read_guest(told(old, **fields), world.registers, ram.view, crash=True)


def test_a_guest_that_reserved_nothing_is_told_what_to_do() -> None:
    old, world, ram = standing(Paging.X86_64)
    with pytest.raises(HostError, match="crashkernel="):
        read_guest(told(old, iomem=iomem(old, None)), world.registers, ram.view)


def test_tables_that_lead_nowhere_are_an_error() -> None:
    old, world, ram = standing(Paging.X86_64)
    with pytest.raises(HostError, match="out of memory"):
        read_guest(told(old), replace(world.registers, cr3=0x7FFF_F000), ram.view)
