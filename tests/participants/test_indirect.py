"""The last call through a register of a 32-bit function, as it is compiled and as it is patched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tightrope.participants.linux.indirect import NAMES, last_call

IP, THUNK = 0xC105_FC30, 0xC190_0000
DIRECT = b"\xe8\x00\x01\x00\x00"


def near(at: int, target: int) -> bytes:
    return b"\xe8" + (target - at - 5 & 0xFFFF_FFFF).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("code", "found"),
    [
        (b"\xff\xd0\xc3", (IP, "eax")),
        (DIRECT + b"\xff\xd6\x90", (IP + 5, "esi")),
        (near(IP, THUNK) + DIRECT, (IP, "ecx")),
        (b"\xff\xd0" + near(IP + 2, THUNK), (IP + 2, "ecx")),
        # What is no call through a register: a direct one, one through memory, a jump.
        (DIRECT, None),
        (b"\xff\x10", None),
        (b"\xff\xe0", None),
        (b"", None),
    ],
)
def test_the_last_call_through_a_register(code: bytes, found: tuple[int, str] | None) -> None:
    assert last_call(code, IP, {THUNK: "ecx"}) == found


@given(st.binary(max_size=60))
def test_any_bytes_are_a_call_or_none(code: bytes) -> None:
    found = last_call(code, IP, {})
    assert found is None or found[1] in NAMES
