"""What the sweep's callers ask of it: reserved bits, runs of mappings; and small facts of the walk."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.x86.cpu import Gate
from tightrope.x86.ladder import CR4_PAE, EFER_LMA, ladder
from tightrope.x86.ranges import runs
from tightrope.x86.sweep import reserved
from tightrope.x86.walk import Mmu, Refused, load_pdptes

PAGE = 4096


@pytest.mark.parametrize(
    ("entry", "wrong"),
    [
        (0x20_0083, False),  # a page of 2 MiB, present and writable
        (0x20_1083, False),  # bit 12 is PAT
        (0x20_2083, True),  # bit 13 is reserved in a large page (SDM table 4-18)
        (0x20_2003, False),  # and address in an entry that leads to a table
        (1 << 46 | 0x20_0083, True),  # above MAXPHYADDR
        (1 << 46 | 0x3, True),
    ],
)
def test_reserved_bits_of_a_level_with_large_pages(entry: int, wrong: bool) -> None:
    mode = ladder(EFER_LMA, CR4_PAE, True, 46)
    [directory] = [each for each in mode.rungs if each.name == "PD"]
    found = reserved(np.array([0x1000 | 3, entry], np.uint64), directory, mode)
    assert found.tolist() == [False, wrong]


@st.composite
def mappings(draw: st.DrawFn) -> list[tuple[int, int, int, int]]:
    """(linear, physical, size, rights), by linear address, none over another."""
    out, virt, phys = [], 0, 0
    for _ in range(draw(st.integers(1, 12))):
        virt += PAGE * draw(st.sampled_from([0, 0, 0, 1]))
        phys += PAGE * draw(st.sampled_from([0, 0, 0, 3]))
        size = draw(st.sampled_from([PAGE, 512 * PAGE]))
        out.append((virt, phys, size, draw(st.sampled_from([0, 0, 0, 1]))))
        virt, phys = virt + size, phys + size
    return out


@given(mappings())
def test_a_run_goes_on_as_long_as_both_addresses_and_the_rights_do(
    rows: list[tuple[int, int, int, int]],
) -> None:
    wanted: list[list[int]] = []
    for virt, phys, size, rights in rows:
        if wanted:
            first, last, base, its = wanted[-1]
            if (virt, phys - base, rights) == (last + 1, virt - first, its):
                wanted[-1][1] = virt + size - 1
                continue
        wanted.append([virt, virt + size - 1, phys, rights])
    columns = list(zip(*rows, strict=True))
    virt_, phys_, size_ = (np.array(each, np.uint64) for each in columns[:3])
    got = runs(virt_, phys_, size_, np.array(columns[3], np.uint8))
    assert [
        list(row)
        for row in zip(
            *(each.tolist() for each in (got.virt, got.last, got.phys, got.rights)), strict=True
        )
    ] == wanted


@given(st.integers(0, (1 << 32) - 1), st.integers(0, 3))
def test_the_pdptes_lie_at_cr3_without_its_lowest_bits(cr3: int, bad: int) -> None:
    """SDM volume 3, 4.4.1: CR3 holds the address of a table of 32 bytes on a boundary of 32."""
    asked = []

    def read(at: int, size: int) -> int:
        asked.append((at, size))
        return 0x1001 if len(asked) <= bad else 0x1003

    mmu = Mmu(cr0=1 << 31, cr3=cr3, cr4=CR4_PAE, efer=0, physical_bits=36)
    got = load_pdptes(read, mmu)
    assert asked == [(cr3 // 32 * 32 + 8 * number, 8) for number in range(bad + 1)]
    assert isinstance(got, Refused)
    assert got.visits[0].at == asked[-1][0]


def test_a_gate_without_a_stack_of_its_own_says_so() -> None:
    raw = Gate(handler=0x1234, selector=0x10, type=0xE).encode(long_mode=True)
    assert raw[4] == 0


def test_a_gate_of_long_mode_has_its_bytes_where_the_manual_has_them() -> None:
    """SDM figure 6-8, by hand: the last four bytes are reserved."""
    gate = Gate(handler=0x1122_3344_5566_7788, selector=0x0810, type=0xF, dpl=3, ist=5)
    raw = gate.encode(long_mode=True)
    assert raw == bytes.fromhex("8877 1008 05 ef 6655 44332211 00000000")
    assert gate.encode(long_mode=False) == raw[:8]
    assert Gate.decode(raw) == gate
