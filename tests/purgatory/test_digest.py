"""The purgatory's SHA-256 against hashlib's: its bytes on this computer's CPU, and where they may store."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import iced_x86 as x
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import lacking
from tightrope import routines
from tightrope.check.programs import _digest_of_nine
from tightrope.memory import PAGE_SIZE
from tightrope.plan.purgatory import digest as plan_digest

CODE = routines.read(routines.PURGATORY_64)
Digest = Callable[[bytes], bytes]


def has(word: str) -> bool:
    """This computer's CPU."""
    return word in Path("/proc/cpuinfo").read_text(encoding="ascii").split()


@pytest.fixture(scope="module")
def base() -> Iterator[int]:
    """The routine in this process, at an address."""
    if platform.machine() != "x86_64":
        lacking("the purgatory is x86_64 code")
    page = mmap.mmap(-1, 3 * PAGE_SIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page[: len(CODE.data)] = CODE.data
    yield ctypes.addressof(ctypes.c_char.from_buffer(page))
    assert page[: CODE.symbols["rows"]] == CODE.data[: CODE.symbols["rows"]]


@pytest.fixture(scope="module", params=["portable", "SHA instructions"])
def digest(request: pytest.FixtureRequest, base: int) -> Digest:
    """The routine as a function of this process."""
    own = request.param == "SHA instructions"
    if own and not has("sha_ni"):
        pytest.skip("this CPU has no SHA instructions")
    ctypes.c_uint64.from_address(base + CODE.symbols["has_sha"]).value = int(own)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
    called = kind(base + CODE.symbols["digest"])

    def make(data: bytes) -> bytes:
        out = ctypes.create_string_buffer(32)
        called(out, data, len(data))
        return out.raw

    return make


@pytest.fixture(scope="module")
def eight(base: int) -> Callable[[bytes, int], list[bytes]]:
    """Digests of eight stripes of so many bytes, by AVX2."""
    if not has("avx2"):
        pytest.skip("this CPU has no AVX2")
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
    called = kind(base + CODE.symbols["digest_eight"])

    def make(data: bytes, size: int) -> list[bytes]:
        out = ctypes.create_string_buffer(9 * 32)
        called(out, data, size)
        assert not any(out.raw[8 * 32 :])
        return [out.raw[n : n + 32] for n in range(0, 8 * 32, 32)]

    return make


@given(data=st.data(), blocks=st.integers(0, 40))
def test_eight_stripes_have_their_own_sha_256_each(
    eight: Callable[[bytes, int], list[bytes]], data: st.DataObject, blocks: int
) -> None:
    size = 64 * blocks
    seed = data.draw(st.binary(min_size=1, max_size=600))
    whole = (seed * (8 * size // len(seed) + 1))[: 8 * size]
    stripes = [whole[n * size : (n + 1) * size] for n in range(8)]
    assert eight(whole, size) == [hashlib.sha256(each).digest() for each in stripes]


def test_a_stripe_may_be_long_and_lies_where_its_lane_says(
    eight: Callable[[bytes, int], list[bytes]],
) -> None:
    stripes = [bytes([n]) * (64 * 5000) for n in range(8)]
    made = eight(b"".join(stripes), 64 * 5000)
    assert made == [hashlib.sha256(each).digest() for each in stripes]


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 4096, 100_001])
def test_it_is_sha_256_around_every_edge_of_a_block(digest: Digest, size: int) -> None:
    data = bytes(n * 7 + n // 251 & 0xFF for n in range(size))
    assert digest(data) == hashlib.sha256(data).digest()


@given(data=st.binary(max_size=300))
def test_it_is_sha_256_of_anything(digest: Digest, data: bytes) -> None:
    assert digest(data) == hashlib.sha256(data).digest()


@given(data=st.binary(max_size=3000))
def test_a_plan_and_the_rule_make_of_a_segment_what_the_routine_makes(data: bytes) -> None:
    stripe = len(data) // 512 * 64
    parts = [data[n * stripe : (n + 1) * stripe] for n in range(8)] + [data[8 * stripe :]]
    assert b"".join(parts) == data
    nine = b"".join(hashlib.sha256(each).digest() for each in parts)
    assert plan_digest(data) == _digest_of_nine(data) == hashlib.sha256(nine).digest()


def stores() -> Iterator[tuple[int, x.Instruction]]:
    """(offset, instruction) of everything in the routine that writes memory."""
    data = range(CODE.symbols["constants"], CODE.symbols["digest_eight"])
    information = x.InstructionInfoFactory()
    code = [
        *x.Decoder(64, CODE.data[: data.start], ip=0),
        *x.Decoder(64, CODE.data[data.stop : CODE.symbols["lanes"]], ip=data.stop),
    ]
    for each in code:
        for used in information.info(each).used_memory():
            if used.access not in (x.OpAccess.READ, x.OpAccess.COND_READ, x.OpAccess.NO_MEM_ACCESS):
                yield each.ip, each


def test_every_store_is_to_the_stack_to_its_second_page_or_to_where_the_digest_goes() -> None:
    """A base register is rsp, or one that was pointed into the second page, and nothing else is stored to.

    rdi is `found`, `nine` or `last`, rbp and r14 the schedule, rbx the state; no other value is given to rdi.
    """
    kinds = set()
    for at, each in stores():
        base = each.memory_base
        if base == x.Register.RIP:
            target = each.ip_rel_memory_address
            assert 2 * PAGE_SIZE <= target < 3 * PAGE_SIZE, hex(at)
            kinds.add("own page")
        elif each.mnemonic in (x.Mnemonic.PUSH, x.Mnemonic.CALL) or base == x.Register.RSP:
            kinds.add("stack")
        else:
            strings = (x.Mnemonic.STOSB, x.Mnemonic.MOVSB)
            register = x.Register.RDI if each.mnemonic in strings else base
            named = {v: k for k, v in vars(x.Register).items() if isinstance(v, int)}[register]
            assert named in {"RDI", "RBP", "R14", "RBX", "RSI"}, (hex(at), str(each))
            kinds.add(named)
    assert {"own page", "stack", "RDI", "RBP", "R14", "RBX"} <= kinds
