"""Whose signature an image has, by Debian's own: whose keys these are is known from Debian's CA."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import debian_kernel
from tightrope import shipped
from tightrope.perform.linux.signature import Signature, is_pe, read

CA = "6ccece7e4c6c0d1f6149f3dd27dfcc5cbb419ea1"
"""The key of "Debian Secure Boot CA", as the kernel logs it ("Loaded X.509 cert")."""
SIGNER = "14011249c2675ea8e5148542202005810584b25f"
"""That of "Debian Secure Boot Signer 2022 - linux"."""


def door(data: bytes) -> Callable[[int, int], bytes]:
    return lambda size, offset: data[offset : offset + size]


def signature_of(data: bytes) -> Signature | None:
    return read(door(data), len(data))


def table(data: bytes) -> tuple[int, int, int]:
    """Where the directory's entry is, and what it says, of a PE32+ file."""
    entry = int.from_bytes(data[0x3C:0x40], "little") + 24 + 144
    return (
        entry,
        int.from_bytes(data[entry : entry + 4], "little"),
        int.from_bytes(data[entry + 4 : entry + 8], "little"),
    )


@pytest.mark.parametrize("flavour", ["amd64", "cloud-amd64", "amd64-7.3", "686"])
def test_a_kernel_of_debians_was_signed_by_debian_and_is_what_was_signed(flavour: str) -> None:
    found = signature_of(debian_kernel(flavour).read_bytes())
    assert found is not None
    assert not found.problem
    (one,) = found.certificates
    assert (one.subject, one.issuer) == (
        "Debian Secure Boot Signer 2022 - linux",
        "Debian Secure Boot CA",
    )
    assert (one.key, one.authority) == (SIGNER, CA)
    assert found.digest_right is True
    assert found.trusted_by(frozenset({CA}))
    assert found.trusted_by(frozenset({SIGNER}))
    assert not found.trusted_by(frozenset())
    assert not found.trusted_by(frozenset({"00", ""}))


def test_another_byte_is_no_longer_what_was_signed_but_where_the_format_leaves_room() -> None:
    data = debian_kernel("cloud-amd64").read_bytes()
    entry, at, _ = table(data)
    right = {}
    for place in (0x1F1, entry - 1, entry + 8, len(data) // 2, at - 1, entry - 144 + 64):
        changed = bytearray(data)
        changed[place] ^= 1
        found = signature_of(bytes(changed))
        assert found is not None
        right[place] = found.digest_right
    checksum = entry - 144 + 64
    assert right == {place: place == checksum for place in right}


def test_what_is_not_signed_has_none() -> None:
    data = bytearray(debian_kernel("cloud-amd64").read_bytes())
    entry, _, _ = table(bytes(data))
    assert is_pe(door(bytes(data)))
    data[entry : entry + 8] = bytes(8)
    assert signature_of(bytes(data)) is None
    assert is_pe(door(bytes(data)))
    plain = shipped.read()
    assert signature_of(plain) is None
    assert not is_pe(door(plain))


@settings(max_examples=150)
@given(
    at=st.integers(0, 1471),
    value=st.integers(0, 255),
    cut=st.one_of(st.none(), st.integers(0, 1471)),
)
def test_any_table_is_a_signature_or_says_what_is_wrong(
    at: int, value: int, cut: int | None
) -> None:
    data = bytearray(small())
    _, start, length = table(bytes(data))
    data[start + at] = value
    if cut is not None:
        del data[start + cut :]
    found = signature_of(bytes(data))
    assert found is not None
    assert found.problem or found.certificates or at in range(8, length)
    assert cut is None or found.problem


def small() -> bytes:
    """A kernel's headers and its table: what lies between is not looked at here."""
    data = debian_kernel("cloud-amd64").read_bytes()
    entry, at, length = table(data)
    head = bytearray(data[:4096])
    head[entry : entry + 4] = (4096).to_bytes(4, "little")
    return bytes(head) + data[at : at + length]
