"""The last value on either side of a rule's bound: what is just right passes, the next one does not."""

from __future__ import annotations

import struct
from dataclasses import replace

import numpy as np
import pytest

from tests.check.breaking_told import planned
from tests.rehearse.runs import sound
from tests.xen.runs import OLD_WAYS, Way, identifier, walk
from tightrope.check import check
from tightrope.check.told.boot_params import MOST_OF_A_NODE, PLACES, SIZE, read
from tightrope.check.told.memory import Garbled
from tightrope.memory import Extent, Machine, Phys
from tightrope.model import Intent, SegmentRole, UnderXen
from tightrope.sabotage.edits import with_tables
from tightrope.x86 import cpu as x86

SETUP_DATA = next(place for place in PLACES if place.name == "setup_data")
NODE = 0x10_0000


class Setup:
    """A zero page at 0 whose one setup_data node has so many bytes."""

    def __init__(self, size: int) -> None:
        page = bytearray(SIZE)
        struct.pack_into("<Q", page, SETUP_DATA.at, NODE)
        self.parts = {0: bytes(page), NODE: struct.pack("<QII", 0, 1, size), NODE + 16: bytes(size)}

    def read(self, extent: Extent) -> memoryview:
        got = memoryview(self.parts[extent.start])
        assert len(got) == extent.size
        return got

    def held(self, extent: Extent) -> tuple[Extent, ...]:
        return (extent,)

    def written(self) -> frozenset[int] | None:
        return None


def test_a_setup_data_node_of_the_most_bytes_is_read_and_a_larger_one_is_not() -> None:
    most = MOST_OF_A_NODE
    [(at, kind, data)] = read(Setup(most), 0).nodes
    assert (at, kind, len(data)) == (NODE, 1, most)
    with pytest.raises(Garbled, match=f"{most + 1:#x} bytes"):
        read(Setup(most + 1), 0)


@pytest.mark.parametrize(("size", "rows"), [(0, 0), (19, 0), (20, 1), (39, 1), (40, 2)])
def test_of_a_nodes_rows_those_are_taken_that_are_whole(size: int, rows: int) -> None:
    assert len(read(Setup(size), 0).rows) == rows


@pytest.mark.parametrize("size", sorted({place.size for place in PLACES if place.size <= 16}))
def test_a_field_of_up_to_8_bytes_is_shown_as_a_number_and_a_longer_one_byte_by_byte(
    size: int,
) -> None:
    good = sound()
    page = next(e for e in good.handover.intent.segments if e.role is SegmentRole.BOOT_PARAMS).data
    for place in PLACES:
        if place.size != size or any(page[place.at : place.at + size]):
            continue
        value = bytes(range(0xA1, 0xA1 + size))

        def put(data: bytearray, _intent: Intent, at: int = place.at, value: bytes = value) -> None:
            data[at : at + size] = value

        found = check(*planned("boot_params", put)(good.handover, good.run))
        shown = f"{int.from_bytes(value, 'little'):#x}" if size <= 8 else value.hex()
        if [each.rule for each in found] == ["boot-params-told"]:
            assert shown in str(found), place.name
            return
    pytest.fail(f"no field of {size} bytes is looked at")


CR0 = {"PE": x86.CR0_PE, "PG": x86.CR0_PG}


@pytest.mark.parametrize("bit", CR0)
def test_paging_and_protection_are_wanted_on_at_a_64_bit_entry_each_by_itself(bit: str) -> None:
    good = sound()
    registers = replace(good.run.registers, cr0=good.run.registers.cr0 & ~CR0[bit])
    found = check(good.handover, replace(good.run, registers=registers))
    assert "known-state" in {each.rule for each in found}


def test_what_nobody_asks_of_cr0_may_be_on_or_off() -> None:
    good = sound()
    for bit in (x86.CR0_MP, x86.CR0_NE):
        registers = replace(good.run.registers, cr0=good.run.registers.cr0 ^ bit)
        found = check(good.handover, replace(good.run, registers=registers))
        assert "known-state" not in {each.rule for each in found}


@pytest.mark.parametrize("way", OLD_WAYS, ids=identifier)
def test_a_pseudo_physical_address_of_a_table_is_found_in_every_level_above_it(way: Way) -> None:
    """And what lies in the root's page behind the four entries of PAE is no entry."""
    good = walk(way)
    handover, size = good.handover, 4 if way[0].value == "i386" else 8
    through = handover.intent.through
    assert isinstance(through, UnderXen)
    p2m = through.xen.dom0.p2m
    tables = handover.page_table_a
    led = 0

    def raw(machine: int) -> int:
        pseudo = p2m.pseudo(Machine(Phys(machine)))
        assert pseudo is not None
        return int(pseudo)

    for frame, page in tables.pages.items():
        words = np.frombuffer(page, f"<u{size}").tolist()
        for slot, entry in enumerate(words):
            child = entry & 0x000F_FFFF_FFFF_F000
            if not entry & 1 or child not in tables.pages:
                continue
            pseudo = raw(child)
            broken = bytearray(page)
            value = entry - child + pseudo
            broken[slot * size : (slot + 1) * size] = value.to_bytes(size, "little")
            changed = with_tables(handover, frame, bytes(broken))
            found = [e for e in check(changed, good.run) if e.rule == "xen-entries-machine"]
            assert [f"{frame + slot * size:#x}" in e.message for e in found] == [True]
            led += 1
    assert led >= {4: 1, 8: 2}[size]
    root = tables.root
    if way[0].value == "pae":
        behind = bytearray(tables.pages[root])
        behind[32:40] = (raw(min(tables.pages)) | 1).to_bytes(8, "little")
        found = list(check(with_tables(handover, root, bytes(behind)), good.run))
        assert "xen-entries-machine" not in {each.rule for each in found}
