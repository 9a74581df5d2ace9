"""Physical memory: bytes in extents, holes between them, and 6 TiB at no cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.errors import MachineError
from tightrope.memory import Extent, MemoryMap, Region, RegionKind
from tightrope.model import Named
from tightrope.observe.physical import Ram, backed

PAGE = 4096
TIB = 1 << 40
LOW, HIGH = Extent(0x1000, 0x4000), Extent(0x8000, 0xA000)


def ram() -> Ram:
    return Ram((LOW, HIGH))


def test_bytes_that_were_written_are_read_at_the_same_address() -> None:
    memory = ram()
    memory.write(0x1FFE, b"across")
    assert bytes(memory.read(Extent.sized(0x1FFE, 6))) == b"across"
    assert memory.word(0x1FFE, 4) == int.from_bytes(b"acro", "little")


def test_extents_do_not_share_bytes() -> None:
    memory = ram()
    memory.write(0x1000, b"\x11" * LOW.size)
    memory.write(0x8000, b"\x22" * HIGH.size)
    assert memory.read(LOW) == b"\x11" * LOW.size
    assert memory.read(HIGH) == b"\x22" * HIGH.size


@pytest.mark.parametrize(
    ("phys", "size"),
    [(0, 8), (0xFFF, 1), (0xFF8, 16), (0x4000, 1), (0x3FFF, 2), (0x7FFF, 2), (0xA000, 1), (TIB, 8)],
)
def test_what_is_not_wholly_in_one_extent_is_a_hole(phys: int, size: int) -> None:
    memory = ram()
    assert memory.view(phys, size) is None
    assert memory.word(phys, size) is None
    with pytest.raises(MachineError, match="not memory of this machine"):
        memory.write(phys, bytes(size))
    with pytest.raises(MachineError, match="not memory of this machine"):
        memory.read(Extent.sized(phys, size))


@pytest.mark.parametrize("phys", [0x1000, 0x3FFF, 0x8000, 0x9FFF])
def test_the_first_and_the_last_byte_of_an_extent_are_memory(phys: int) -> None:
    memory = ram()
    memory.write(phys, b"\x7e")
    assert memory.word(phys, 1) == 0x7E


def test_a_view_writes_through_and_what_read_gives_does_not() -> None:
    memory = ram()
    view = memory.view(0x2000, 2)
    assert view is not None
    view[:] = b"hi"
    assert bytes(memory.read(Extent.sized(0x2000, 2))) == b"hi"
    assert memory.read(Extent.sized(0x2000, 2)).readonly


def test_zeroed_pages_read_as_zeros_and_their_neighbours_stay() -> None:
    memory = ram()
    memory.write(0x1000, b"\xee" * LOW.size)
    memory.zero(Extent(0x2000, 0x3000))
    assert bytes(memory.read(LOW)) == b"\xee" * PAGE + bytes(PAGE) + b"\xee" * PAGE


def test_zeroing_nothing_changes_nothing() -> None:
    memory = ram()
    memory.write(0x2000, b"\xee" * PAGE)
    memory.zero(Extent(0x2000, 0x2000))
    assert memory.read(Extent.sized(0x2000, PAGE)) == b"\xee" * PAGE


@pytest.mark.parametrize(
    "extent", [Extent(0, 0x1000), Extent(0x3000, 0x5000), Extent(0x1800, 0x2800)]
)
def test_only_whole_pages_of_memory_can_be_zeroed(extent: Extent) -> None:
    with pytest.raises(MachineError, match="not whole pages"):
        ram().zero(extent)


def test_six_tebibytes_cost_what_is_touched() -> None:
    memory = Ram((Extent(0, 0x9F000), Extent(TIB, 7 * TIB)))
    memory.write(7 * TIB - 4, b"last")
    memory.write(TIB, b"frst")
    assert bytes(memory.read(Extent(7 * TIB - 4, 7 * TIB))) == b"last"
    assert memory.word(TIB, 4) == int.from_bytes(b"frst", "little")
    memory.zero(Extent(7 * TIB - PAGE, 7 * TIB))
    assert memory.word(7 * TIB - 4, 4) == 0


def test_more_than_the_address_space_is_an_error_of_ours() -> None:
    with pytest.raises(MachineError, match="no address space"):
        Ram((Extent(0, 1 << 60),))


writes = st.lists(
    st.tuples(st.integers(0, LOW.size + HIGH.size + 2 * PAGE), st.binary(min_size=1, max_size=60)),
    max_size=12,
)


@given(writes)
def test_memory_behaves_as_a_dict_of_bytes(sequence: list[tuple[int, bytes]]) -> None:
    memory, model = ram(), dict.fromkeys([*range(0x1000, 0x4000), *range(0x8000, 0xA000)], 0)
    for at, data in sequence:
        places = range(at, at + len(data))
        inside = all(place in LOW for place in places) or all(place in HIGH for place in places)
        if inside:
            memory.write(at, data)
            model.update(zip(places, data, strict=True))
        else:
            assert memory.view(at, len(data)) is None
    for extent in (LOW, HIGH):
        assert bytes(memory.read(extent)) == bytes(
            model[at] for at in range(extent.start, extent.end)
        )


def region(start: int, end: int, kind: RegionKind) -> Region:
    return Region(Extent(start, end), kind)


def test_ram_acpi_and_firmware_areas_hold_something_and_the_rest_does_not() -> None:
    memory = MemoryMap(
        (
            region(0, 0x9FC00, RegionKind.RAM),
            region(0xF0000, 0x100000, RegionKind.RESERVED),
            region(0x100000, 0x200000, RegionKind.RAM),
            region(0x200000, 0x201000, RegionKind.ACPI),
            region(0x300000, 0x301000, RegionKind.NVS),
            region(0x400000, 0x401000, RegionKind.PMEM),
            region(0x500000, 0x501000, RegionKind.UNUSABLE),
        )
    )
    firmware = (Named(extent=Extent(0xE0800, 0xE0900), what="setup_data"),)
    assert backed(memory, firmware) == (
        Extent(0, 0xA0000),
        Extent(0xE0000, 0xE1000),
        Extent(0x100000, 0x201000),
        Extent(0x300000, 0x301000),
    )


@given(st.sets(st.integers(0, 255), max_size=20))
def test_the_frames_in_use_are_those_that_were_written(frames: set[int]) -> None:
    ram = Ram((Extent(0x10_0000, 0x20_0000),))
    for frame in frames:
        ram.write(0x10_0000 + frame * 0x1000 + 7, b"\x01")
    assert ram.in_use() == {0x100 + frame for frame in frames}
    ram.clear()
    assert ram.in_use() == frozenset()
    assert not any(bytes(ram.read(Extent(0x10_0000, 0x20_0000))))


def test_without_a_pagemap_every_frame_may_be_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tightrope.observe.physical.PAGEMAP", "/nowhere/pagemap")
    ram = Ram((Extent(0, 0x4000), Extent(0x8000, 0x9000)))
    assert ram.in_use() == {0, 1, 2, 3, 8}
