"""image.read_flat: bytes at an address, entered at the first one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.image.laid_out import is_sound, laid_out
from tightrope import image
from tightrope.errors import ImageError
from tightrope.model import EntryPoint, Protocol


@given(st.binary(min_size=1, max_size=9000), st.integers(0, 1 << 31), st.sampled_from([32, 64]))
def test_the_bytes_are_at_the_address_and_entered_at_the_first(
    data: bytes, address: int, bits: int
) -> None:
    read = image.read_flat(data, "flat.bin", address, bits)
    is_sound(read)
    assert (read.format, read.source) == ("flat binary", "flat.bin")
    assert (read.pref_address, read.relocatable) == (address, False)
    assert laid_out(read) == data
    assert read.entries == (
        EntryPoint(name="first byte", offset=0, bits=bits, protocol=Protocol.FLAT),
    )


@pytest.mark.parametrize(
    ("size", "address", "bits", "words"),
    [
        pytest.param(0, 0, 32, "an empty file", id="empty"),
        pytest.param(1, 0, 16, "16-bit mode", id="16-bit"),
        pytest.param(1, -1, 32, "address", id="negative"),
        pytest.param(2, (1 << 32) - 1, 32, "not where 32-bit code can be", id="above 4 GiB"),
        pytest.param(2, (1 << 52) - 1, 64, "not where 64-bit code can be", id="above 2^52"),
    ],
)
def test_what_cannot_be_there_is_refused(size: int, address: int, bits: int, words: str) -> None:
    with pytest.raises(ImageError, match=f"^flat.bin: .*{words}"):
        image.read_flat(bytes(size), "flat.bin", address, bits)


@pytest.mark.parametrize(("address", "bits"), [((1 << 32) - 1, 32), ((1 << 52) - 1, 64)])
def test_the_last_byte_that_can_be_reached_can_be_used(address: int, bits: int) -> None:
    assert image.read_flat(b"\xf4", "flat.bin", address, bits).pref_address == address


def test_content_is_not_looked_at() -> None:
    assert image.read_flat(b"\x7fELF", "flat.bin", 0, 32).format == "flat binary"
