"""A kernel that was changed after it was built, told by its own checksum or by its signature."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import debian_kernel
from tests.makers.bzimage import bzimage, put, sign, with_certificate_table, with_checksum
from tightrope import image
from tightrope.errors import ImageError

PE_CHECKSUM, TABLE = 0x40 + 24 + 64, 0x40 + 24 + 144
"""Offsets of CheckSum and of the certificate table's row in the maker's PE32+ header."""
WITH_PE = with_certificate_table(bzimage(), 0, 0)
BUILT = with_checksum(WITH_PE)


def told(data: bytes) -> bool | None:
    """True: unchanged, False: changed, None: the file does not say."""
    found = image.kernel_unchanged(image.read(data, "vmlinuz"))
    return None if found is None else found.flaw is None


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def signed(kernel: bytes, algorithm: str = "sha256") -> bytes:
    """With certificates that hold the PE image hash: the two signed fields are skipped."""
    body = kernel + bytes(-len(kernel) % 8)
    digest = hashlib.new(algorithm)
    digest.update(body[:PE_CHECKSUM] + body[PE_CHECKSUM + 4 : TABLE] + body[TABLE + 8 :])
    whole = bytearray(sign(kernel, b"DER around it " + digest.digest() + b" and behind it"))
    whole[PE_CHECKSUM : PE_CHECKSUM + 4] = b"\x12\x34\x56\x78"
    return bytes(whole)


def test_a_kernel_as_it_was_built_fits_its_checksum() -> None:
    assert told(with_checksum(bzimage())) is True
    assert told(BUILT) is True


@given(st.integers(min_value=0, max_value=8 * len(BUILT) - 1))
def test_any_flipped_bit_is_seen(bit: int) -> None:
    with suppress(ImageError):  # refused before anybody asks
        assert told(flipped(BUILT, bit)) is not True or _signers(bit // 8)


def _signers(at: int) -> bool:
    return PE_CHECKSUM <= at < PE_CHECKSUM + 4 or TABLE <= at < TABLE + 8


def test_signing_leaves_the_checksum_as_it_was() -> None:
    assert told(signed(BUILT)) is True
    assert told(signed(BUILT) + bytes(512)) is True
    assert told(flipped(signed(BUILT), 8 * 0x900)) is False


@pytest.mark.parametrize("version", ["6.15.0-rc1 (maker@tests)", "7.3.4+deb13-amd64 (maker@tests)"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha1", "sha384", "sha512"])
def test_a_kernel_without_a_checksum_is_told_by_its_signature(version: str, algorithm: str) -> None:
    kernel = with_certificate_table(bzimage(version=version), 0, 0)
    whole = signed(kernel, algorithm)
    assert told(whole) is True
    assert told(whole + bytes(4096)) is True  # a padded section of a unified kernel image
    assert told(flipped(whole, 8 * 0x900)) is False


@pytest.mark.parametrize(
    "data",
    [
        bzimage(),  # nothing but zeros where the checksum would be
        bzimage(version="6.15.0 (maker@tests)")[:-4] + b"code",
        bzimage(version="tightrope-shipped 1")[:-4] + b"code",
        bzimage(version=None)[:-4] + b"code",
        sign(bzimage(version="7.3.4 (maker@tests)"), b"cut off")[:-3],
    ],
)
def test_what_says_nothing_of_itself_is_not_blamed(data: bytes) -> None:
    assert told(data) is None


def test_a_field_that_somebody_set_by_hand_is_a_change() -> None:
    assert told(put(BUILT, "cmdline_size", 255)) is False


@pytest.mark.parametrize("flavour", ["cloud-amd64", "686-pae", "amd64-6.12", "cloud-amd64-7.3"])
def test_debians_kernels_are_as_they_were_built_and_a_flipped_bit_is_seen(flavour: str) -> None:
    data = debian_kernel(flavour).read_bytes()
    assert told(data) is True
    for at in (0x1000, len(data) // 2, len(data) - 0x1000):
        assert told(flipped(data, 8 * at + 5)) is False
