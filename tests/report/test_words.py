"""Each notation, as a table."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.rehearse.runs import sound
from tightrope.memory import Phys
from tightrope.views import words
from tightrope.x86.walk import TableVisit

UNITS = {"bytes": 1, "byte": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (4096, "4 KiB"),
        (1 << 20, "1 MiB"),
        ((1 << 20) + 1, "1.0 MiB"),
        (3 << 29, "1.5 GiB"),
        (6 << 40, "6 TiB"),
        (5000 << 40, "5,000 TiB"),
    ],
)
def test_a_size_has_the_largest_unit_that_is_not_larger(size: int, text: str) -> None:
    assert words.size(size) == text


@given(st.integers(0, 1 << 50))
def test_a_size_is_right_to_a_twentieth_of_its_unit(size: int) -> None:
    number, unit = words.size(size).split(" ")
    value = float(number.replace(",", "")) * UNITS[unit]
    assert abs(value - size) <= UNITS[unit] * 0.0501
    assert "." in number or value == size


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 pages"),
        (1, "1 page"),
        (2, "2 pages"),
        (1485, "1,485 pages"),
        (10**7, "10,000,000 pages"),
    ],
)
def test_a_count_has_its_noun(number: int, text: str) -> None:
    assert words.count(number, "page") == text


def test_a_walk_is_read_level_by_level() -> None:
    visits = [
        TableVisit(level="PML4", at=Phys(0x1000), entry=0x2023),
        TableVisit(level="PDPT", at=Phys(0x2008), entry=0),
    ]
    assert words.walked(visits) == "PML4 0x2023 -> PDPT 0x0"
    assert words.walked([]) == "paging is off"


@pytest.mark.parametrize(
    ("register", "value", "text"),
    [
        ("cr0", 0x80000033, "0x80000033 (PE MP ET NE PG)"),
        ("cr4", 0x20, "0x20 (PAE)"),
        ("cr4", 0, "0x0 (-)"),
        ("cr4", 0x8000_0020, "0x80000020 (PAE 0x80000000)"),
        ("efer", 0xD01, "0xd01 (SCE LME LMA NXE)"),
        ("rflags", 0x2, "0x2 (-)"),
        ("rflags", 0x246, "0x246 (PF ZF IF)"),
        ("cr3", 0x5000, "0x5000"),
        ("dr7", 0x400, "0x400"),
    ],
)
def test_a_register_has_the_names_of_its_bits(register: str, value: int, text: str) -> None:
    assert words.control(register, value) == text


def test_a_descriptor_table_has_base_and_limit() -> None:
    assert words.table("gdt", 0x1_0001_1110 << 16 | 0x1F) == "gdt at 0x100011110, limit 0x1f"
    assert words.table("idt", 0) == "idt at 0x0, limit 0x0"


@pytest.mark.parametrize(
    ("offset", "label"),
    [(0, "relocate"), (4, "relocate"), (5, "after_table_a"), (0x10, "set_stack"), (0x12F, "gdt")],
)
def test_an_instruction_of_the_relocation_code_has_a_place(offset: int, label: str) -> None:
    handover = sound().handover
    assert words.place(handover, handover.intent.relocation + offset) == f"V + {offset:#x} {label}"
    assert (
        words.place(handover, handover.intent.control_page + offset) == f"P + {offset:#x} {label}"
    )


def test_an_instruction_of_a_segment_has_a_place_and_a_stray_one_has_none() -> None:
    handover = sound().handover
    assert words.place(handover, handover.intent.entry + 9) == "entry stub + 0x9"
    assert words.place(handover, handover.intent.kernel_entry) == "kernel + 0x200"
    for stray in (0, handover.intent.control_page - 1, handover.intent.relocation + 4096):
        assert words.place(handover, stray) == ""


def test_every_instruction_of_a_good_walk_has_a_place() -> None:
    run = sound().run
    places = {words.place(sound().handover, rip) for rip in set(run.trace.tolist())}
    assert all(re.fullmatch(r"[\w ]+ \+ 0x[0-9a-f]+( \w+)?", each) for each in places)
