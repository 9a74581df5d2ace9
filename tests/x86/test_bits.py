"""Fields of a word: what goes in comes out, what does not fit is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.x86.bits import Field, add_up, bit, named_bits

fields = st.builds(Field, st.integers(0, 60), st.integers(1, 40))
words = st.integers(0, (1 << 64) - 1)


def test_a_field_is_read_by_shifting_and_then_masking() -> None:
    assert Field(12, 8).get(0xABCD_E123) == 0xDE
    assert Field(12, 8).put(0xDE) == 0xDE000
    assert Field(12, 8).mask == 0xFF000
    assert bit(0) == 1
    assert bit(63) == 0x8000_0000_0000_0000


@pytest.mark.parametrize("value", [-1, 0x100, 1 << 40])
def test_a_value_that_does_not_fit_is_refused(value: int) -> None:
    assert Field(12, 8).put(0xFF) == 0xFF000
    with pytest.raises(ValueError, match="does not fit 8 bits"):
        Field(12, 8).put(value)


@given(fields, words)
def test_a_field_is_its_binary_digits(field: Field, word: int) -> None:
    digits = f"{word:0128b}"[::-1]
    assert field.get(word) == int(digits[field.lo : field.lo + field.width][::-1], 2)


@given(fields, words, st.data())
def test_what_is_put_is_got_and_lies_inside_the_mask(
    field: Field, word: int, data: st.DataObject
) -> None:
    value = data.draw(st.integers(0, (1 << field.width) - 1))
    placed = field.put(value)
    assert field.get(word & ~field.mask | placed) == value
    assert placed & ~field.mask == 0


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_fields_that_tile_a_word_add_up(widths: list[int]) -> None:
    tiles = [Field(sum(widths[:n]), width) for n, width in enumerate(widths)]
    add_up(tiles, sum(widths))
    assert sum(tile.mask for tile in tiles) == (1 << sum(widths)) - 1


@pytest.mark.parametrize(
    ("tiles", "width", "problem"),
    [
        ([Field(0, 12), Field(13, 9)], 22, "starts at bit 13, the last one ended at 12"),
        ([Field(0, 12), Field(11, 9)], 20, "starts at bit 11, the last one ended at 12"),
        ([Field(1, 12)], 13, "starts at bit 1, the last one ended at 0"),
        ([Field(0, 12), Field(12, 9)], 22, "end at bit 21 of 22"),
        ([], 1, "end at bit 0 of 1"),
    ],
)
def test_a_gap_an_overlap_and_a_short_end_are_refused(
    tiles: list[Field], width: int, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        add_up(tiles, width)


@pytest.mark.parametrize(
    ("word", "text"),
    [(0, "-"), (1, "P"), (3, "P W"), (0x83, "P W 0x80"), (0x30, "RPL"), (0x10, "0x10")],
)
def test_set_bits_are_named_and_the_rest_is_shown(word: int, text: str) -> None:
    names = {"P": bit(0), "W": bit(1), "RPL": 0x30}
    assert named_bits(word, names) == text
