"""What rules read as the new kernel will: each number to its last bit, each byte to the last page."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rehearse.runs import sound
from tightrope.abi import multiboot
from tightrope.check import check
from tightrope.check.told.core_header import named
from tightrope.check.told.information import READERS
from tightrope.check.told.memory import Garbled, string
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Protocol, Step
from tightrope.sabotage.edits import with_tables
from tightrope.x86 import cpu as x86

KIB = 1 << 10


class Bytes:
    """Memory that begins at 0 and has no hole."""

    def __init__(self, data: bytes) -> None:
        self._data = data.ljust(-(-len(data) // PAGE_SIZE) * PAGE_SIZE, b"\xff")

    def read(self, extent: Extent) -> memoryview:
        assert extent.end <= len(self._data)
        return memoryview(self._data)[extent.start : extent.end]

    def held(self, extent: Extent) -> tuple[Extent, ...]:
        return (extent,)

    def written(self) -> frozenset[int] | None:
        return None


@pytest.mark.parametrize(
    ("word", "address"),
    [
        ("1", 1),
        ("0x10", 16),
        ("010", 8),
        ("0", 0),
        ("64K", 64 * KIB),
        ("64k", 64 * KIB),
        ("0x2m", 2 * KIB**2),
        ("3G", 3 * KIB**3),
        ("4k@0x100000", 1 << 20),
        ("4k@1024K", 1 << 20),
        ("08", None),
        ("1kk", None),
        ("1x", None),
        ("k", None),
    ],
)
def test_a_core_headers_address_has_a_unit_or_none(word: str, address: int | None) -> None:
    assert named(f"quiet elfcorehdr={word} ro".encode()) == address


def test_the_last_address_of_a_core_header_counts() -> None:
    assert named(b"elfcorehdr=1K elfcorehdr=2K") == 2 * KIB


@given(st.integers(0, 2 * PAGE_SIZE), st.integers(0, 3 * PAGE_SIZE))
def test_a_string_is_read_across_pages_to_its_zero(at: int, size: int) -> None:
    text = bytes(1 + number % 255 for number in range(size))
    assert string(Bytes(b"\xff" * at + text + b"\0"), at) == text


def test_a_string_without_a_zero_is_garbled() -> None:
    with pytest.raises(Garbled, match="does not end"):
        string(Bytes(b"\xff" * (1 << 18)), 3)


@pytest.mark.parametrize("padding", [0, 4])
def test_a_row_of_multiboot_is_as_long_as_its_size_says_and_four_more(padding: int) -> None:
    wanted = [Extent(0, 0x9000), Extent(0x10_0000, 0x20_0000), Extent(0x40_0000, 0x50_0000)]
    rows = b"".join(
        multiboot.MEMORY_1.pack(20 + padding, each.start, each.size, 1) + bytes(padding)
        for each in wanted
    )
    at, line = PAGE_SIZE, 2 * PAGE_SIZE
    flags = multiboot.Given.COMMAND_LINE | multiboot.Given.MEMORY_MAP
    head = multiboot.INFORMATION_1.pack(flags, 0, 0, 0, line, 0, 0, len(rows), at, *[0] * 5)
    memory = Bytes(head.ljust(at, b"\0") + rows.ljust(line - at, b"\0") + b"quiet\0")
    told = READERS[Protocol.MULTIBOOT](memory, 0)
    assert (told.line, [each.extent for each in told.rows]) == (b"quiet", wanted)


@pytest.mark.parametrize("on", [False, True])
def test_global_pages_that_were_never_on_need_not_be_turned_off(on: bool) -> None:
    good = sound()
    handover, run = good.handover, good.run
    cr4 = handover.registers.cr4 & ~x86.CR4_PGE | (x86.CR4_PGE if on else 0)
    handover = replace(handover, registers=replace(handover.registers, cr4=cr4))
    kept = tuple(each for each in run.register_writes if each.register != "cr4")
    found = {each.rule for each in check(handover, replace(run, register_writes=kept))}
    assert ("pge-before-identity" in found) == on


@pytest.mark.parametrize(("above", "found"), [(-1, False), (0, True), (1, True)])
def test_the_first_address_bit_that_a_cpu_lacks_is_reserved(above: int, found: bool) -> None:
    """In an entry that nothing is translated by: of those on the way the walk says so."""
    good = sound()
    tables = good.handover.page_table_a
    bit = good.handover.host.cpu.physical_bits + above
    page = bytearray(tables.pages[tables.root])
    slot = next(n for n in range(0, PAGE_SIZE, 8) if not any(page[n : n + 8]))
    page[slot : slot + 8] = (1 << bit | 1).to_bytes(8, "little")
    broken = with_tables(good.handover, tables.root, bytes(page))
    said = [each for each in check(broken, good.run) if each.rule == "reserved-bits"]
    assert [each.evidence["entry"] for each in said] == (
        [f"{1 << bit | 1:#x} at {tables.root + slot:#x}"] if found else []
    )
    assert all(each.step is Step.TABLE_A for each in said)
