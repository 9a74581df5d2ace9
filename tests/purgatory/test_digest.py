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
from tightrope.memory import PAGE_SIZE

CODE = routines.read(routines.PURGATORY_64)
Digest = Callable[[bytes], bytes]


def sha_here() -> bool:
    return " sha_ni " in Path("/proc/cpuinfo").read_text(encoding="ascii").replace("\n", " ")


@pytest.fixture(scope="module", params=["portable", "SHA instructions"])
def digest(request: pytest.FixtureRequest) -> Iterator[Digest]:
    """The routine as a function of this process."""
    if platform.machine() != "x86_64":
        lacking("the purgatory is x86_64 code")
    own = request.param == "SHA instructions"
    if own and not sha_here():
        pytest.skip("this CPU has no SHA instructions")
    page = mmap.mmap(-1, 2 * PAGE_SIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page[: len(CODE.data)] = CODE.data
    at = CODE.symbols["has_sha"]
    page[at : at + 8] = int(own).to_bytes(8, "little")
    base = ctypes.addressof(ctypes.c_char.from_buffer(page))
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t)
    called = kind(base + CODE.symbols["digest"])

    def make(data: bytes) -> bytes:
        out = ctypes.create_string_buffer(32)
        called(out, data, len(data))
        return out.raw

    yield make
    assert page[: CODE.symbols["rows"]] == CODE.data[: CODE.symbols["rows"]]


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, 4096, 100_001])
def test_it_is_sha_256_around_every_edge_of_a_block(digest: Digest, size: int) -> None:
    data = bytes(n * 7 + n // 251 & 0xFF for n in range(size))
    assert digest(data) == hashlib.sha256(data).digest()


@given(data=st.binary(max_size=300))
def test_it_is_sha_256_of_anything(digest: Digest, data: bytes) -> None:
    assert digest(data) == hashlib.sha256(data).digest()


def stores() -> Iterator[tuple[int, x.Instruction]]:
    """(offset, instruction) of everything in the routine that writes memory."""
    end = CODE.symbols["constants"]
    information = x.InstructionInfoFactory()
    for each in x.Decoder(64, CODE.data[:end], ip=0):
        for used in information.info(each).used_memory():
            if used.access not in (x.OpAccess.READ, x.OpAccess.COND_READ, x.OpAccess.NO_MEM_ACCESS):
                yield each.ip, each


def test_every_store_is_to_the_stack_to_its_second_page_or_to_where_the_digest_goes() -> None:
    """A base register is rsp, or one that was pointed into the second page, and nothing else is stored to.

    rdi is `found` or `last`, rbp and r14 the schedule; `next_row` gives rdi no other value.
    """
    kinds = set()
    for at, each in stores():
        base = each.memory_base
        if base == x.Register.RIP:
            target = each.ip_rel_memory_address
            assert PAGE_SIZE <= target < 2 * PAGE_SIZE, hex(at)
            kinds.add("own page")
        elif each.mnemonic in (x.Mnemonic.PUSH, x.Mnemonic.CALL) or base == x.Register.RSP:
            kinds.add("stack")
        else:
            strings = (x.Mnemonic.STOSB, x.Mnemonic.MOVSB)
            register = x.Register.RDI if each.mnemonic in strings else base
            named = {v: k for k, v in vars(x.Register).items() if isinstance(v, int)}[register]
            assert named in {"RDI", "RBP", "R14", "RSI"}, (hex(at), str(each))
            kinds.add(named)
    assert {"own page", "stack", "RDI", "RBP", "R14"} <= kinds
