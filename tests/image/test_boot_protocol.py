"""abi.boot: the layout adds up, and a field refuses what it cannot hold.

The second door is the maker's own table of offsets and the C struct's size as boot.rst gives it.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.bzimage import OFFSETS, bzimage
from tightrope.abi import boot
from tightrope.memory import RegionKind

EVERY_FIELD = (*boot.BOOT_PARAMS_FIELDS, *boot.SETUP_HEADER_FIELDS)


@pytest.mark.parametrize("name", OFFSETS)
def test_a_field_lies_where_the_maker_puts_it(name: str) -> None:
    assert (boot.field(name).offset, boot.field(name).size) == OFFSETS[name]


def test_the_setup_header_is_as_long_as_boot_rst_says() -> None:
    header = boot.SETUP_HEADER_FIELDS
    assert header[0].offset == boot.SETUP_HEADER
    # "It is currently 119 bytes long" (2.13); 2.15 has four more.
    assert boot.header_end(0x020D) - boot.SETUP_HEADER == 119
    assert boot.header_end(0x020F) - boot.SETUP_HEADER == 123
    assert sum(field.size for field in header) == 123


def test_names_are_unique_and_lead_to_their_fields() -> None:
    assert {boot.field(field.name) for field in EVERY_FIELD} == set(EVERY_FIELD)
    with pytest.raises(KeyError):
        boot.field("no_such_field")


@given(st.sampled_from(EVERY_FIELD), st.data())
def test_what_is_written_is_read_and_nothing_else_changes(
    field: boot.Field, data: st.DataObject
) -> None:
    value = data.draw(st.integers(0, (1 << 8 * field.size) - 1))
    page = bytearray(b"\xa5" * boot.BOOT_PARAMS_SIZE)
    field.write(page, value)
    assert field.read(page) == value
    assert page[field.offset : field.end] == value.to_bytes(field.size, "little")
    assert set(page[: field.offset]) == set(page[field.end :]) == {0xA5}


@given(st.sampled_from(EVERY_FIELD), st.integers(1))
def test_a_value_that_does_not_fit_is_refused(field: boot.Field, more: int) -> None:
    page = bytearray(boot.BOOT_PARAMS_SIZE)
    for value in ((1 << 8 * field.size) - 1 + more, -more):
        with pytest.raises(ValueError, match=f"{field.name}: .* does not fit"):
            field.write(page, value)
    assert not any(page)


@given(st.sampled_from(EVERY_FIELD), st.integers(0, 0x300), st.integers(0, 0x300))
def test_a_field_is_read_whole_or_refused(field: boot.Field, base: int, length: int) -> None:
    whole = base <= field.offset and field.end <= base + length
    if whole:
        assert field.read(b"\xff" * length, base) == (1 << 8 * field.size) - 1
    else:
        with pytest.raises(ValueError, match=f"{field.name}: .* is not inside"):
            field.read(b"\xff" * length, base)
        with pytest.raises(ValueError, match="is not inside"):
            field.write(bytearray(length), 0, base)


def test_a_field_of_a_header_alone_is_read_with_the_headers_base() -> None:
    image = bzimage(init_size=0x345000)
    header = image[0x1F1:0x26C]
    assert boot.field("init_size").read(header, boot.SETUP_HEADER) == 0x345000
    # The first and the last field of it are inside too.
    assert boot.field("setup_sects").read(header, boot.SETUP_HEADER) == 1
    assert boot.field("kernel_info_offset").read(header, boot.SETUP_HEADER) == 0x400


@pytest.mark.parametrize(
    ("fields", "gaps"),
    [
        pytest.param([boot.Field("a", 4, 4, 0), boot.Field("b", 6, 2, 0)], True, id="overlap"),
        pytest.param([boot.Field("a", 8, 4, 0), boot.Field("b", 0, 4, 0)], True, id="unsorted"),
        pytest.param([boot.Field("a", 0, 4, 0), boot.Field("b", 6, 2, 0)], False, id="gap"),
        pytest.param([boot.Field("a", 0, 17, 0)], True, id="beyond the end"),
        pytest.param([boot.Field("a", 0, 0, 0)], True, id="empty"),
    ],
)
def test_a_layout_that_does_not_add_up_is_refused(fields: list[boot.Field], gaps: bool) -> None:
    with pytest.raises(ValueError, match="ends at"):
        boot.check_layout(fields, end=16, gaps=gaps)


def test_a_gap_is_fine_where_gaps_are() -> None:
    boot.check_layout([boot.Field("a", 0, 4, 0), boot.Field("b", 6, 2, 0)], end=8, gaps=True)


def test_every_kind_of_memory_has_an_e820_type() -> None:
    assert {kind.name for kind in RegionKind} == {kind.name for kind in boot.E820Type}
    assert [int(kind) for kind in boot.E820Type] == [1, 2, 3, 4, 5, 7, 12, 0xEFFF_FFFF]


def test_rows_of_memory_are_those_that_the_page_counts_and_has_room_for() -> None:
    page = bytearray(4096)
    rows = [(0x1000, 0x9E000, 1), (1 << 32, 1 << 30, 0xEFFF_FFFF), (0xF000_0000, 0x1000, 77)]
    page[0x1E8] = 2
    page[0x2D0 : 0x2D0 + 60] = b"".join(struct.pack("<QQI", *row) for row in rows)
    told = [(0x1000, 0x9E000, "RAM"), (1 << 32, 1 << 30, "SOFT_RESERVED")]
    assert list(boot.e820_rows(bytes(page))) == told
    page[0x1E8] = 3
    assert list(boot.e820_rows(bytes(page))) == [*told, (0xF000_0000, 0x1000, "RESERVED")]
    page[0x1E8] = 255
    assert len(list(boot.e820_rows(bytes(page)))) == 128
