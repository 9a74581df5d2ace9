"""Repeated string instructions: done as memmoves, and the same as the CPU's own.

The scene is the identity map at step 6, where 16 pages of one segment are all that is touched:

    A + 0 ..           B = A + 8 pages
    source pages       destination pages
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine import bare
from tests.machine.walks import (
    CLD,
    HLT,
    PAGE,
    REP_MOVSB,
    REP_MOVSQ,
    REP_STOSQ,
    STD,
    fault_of,
    kernel,
    made,
    plan,
    put,
    to_identity,
)
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Extent
from tightrope.model import Handover, Run, Stop
from tightrope.x86.walk import Access

REP_MOVSW, REP_MOVSL = b"\xf3\x66\xa5", b"\xf3\xa5"
REP_STOSB, REP_STOSW, REP_STOSL = b"\xf3\xaa", b"\xf3\x66\xab", b"\xf3\xab"
REPNE_MOVSB, REP_MOVSQ_32 = b"\xf2\xa4", b"\x67\xf3\x48\xa5"
WIDTHS = {
    REP_MOVSB: 1, REP_MOVSW: 2, REP_MOVSL: 4, REP_MOVSQ: 8, REPNE_MOVSB: 1, REP_MOVSQ_32: 8,
    REP_STOSB: 1, REP_STOSW: 2, REP_STOSL: 4, REP_STOSQ: 8,
}  # fmt: skip
CONTENT = bytes((n * 89 + n // 256 * 7) % 256 for n in range(16 * PAGE))
PLAN = plan(new=kernel(kernel_size=16 * PAGE, init_size=17 * PAGE))
A = PLAN.segments[0].destination.start
B = A + 8 * PAGE
ARENA = Extent(A, A + 16 * PAGE)
RAX = 0x8877_6655_4433_2211
EMULATOR = Emulator()


@dataclass(frozen=True)
class Move:
    """One repeated instruction and what it starts from."""

    instruction: bytes
    source: int
    destination: int
    count: int
    direction: bytes = CLD

    def handover(self) -> Handover:
        """At P under page_table_b, and a hlt behind it."""
        code = (
            to_identity(PLAN.host)
            + b"\x41\x0f\x22\xd8"  # mov %r8, %cr3
            + put("rsi", self.source)
            + put("rdi", self.destination)
            + put("rcx", self.count)
            + put("rax", RAX)
            + self.direction
            + self.instruction
            + HLT
        )
        built = made(code, PLAN)
        kernel_ = replace(built.segments[0], data=CONTENT)
        return replace(built, segments=(kernel_, *built.segments[1:]))


def is_as_unicorn_s_own(move: Move) -> Run:
    """The same bytes and registers as without any hook; the run."""
    handover = move.handover()
    ours, alone = EMULATOR.run(handover), bare.run(handover)
    assert ours.stop is Stop.HALT, ours.fault
    assert alone.error is None
    assert alone.general == ours.registers.general
    assert alone.read("eflags") == ours.registers.rflags
    assert alone.memory(ARENA) == bytes(ours.memory.read(ARENA))
    return ours


CASES = {
    "one page": Move(REP_MOVSQ, A, B, 512),
    "nothing": Move(REP_MOVSQ, A, B, 0),
    "bytes in the middle of pages": Move(REP_MOVSB, A + 5, B + 77, 3 * PAGE + 1),
    "source and destination of another alignment": Move(REP_MOVSQ, A + 8, B + 16, 1500),
    "an element across two source pages": Move(REP_MOVSQ, A + 4, B, 1000),
    "an element across two destination pages": Move(REP_MOVSQ, A, B + 4, 1000),
    "words": Move(REP_MOVSW, A + 2, B + 6, 5000),
    "long words": Move(REP_MOVSL, A + 4, B + 8, 2500),
    "the other prefix": Move(REPNE_MOVSB, A, B, 100),
    "32-bit registers": Move(REP_MOVSQ_32, A | 1 << 40, B | 1 << 41, 4 | 1 << 33),
    "overlapping upwards by one byte": Move(REP_MOVSB, A, A + 1, 5000),
    "overlapping upwards by a word": Move(REP_MOVSQ, A, A + 8, 700),
    "overlapping upwards by a page": Move(REP_MOVSQ, A, A + PAGE, 1024),
    "overlapping downwards": Move(REP_MOVSQ, A + 24, A, 700),
    "onto itself": Move(REP_MOVSQ, A, A, 512),
    "just touching": Move(REP_MOVSQ, A, A + 4096, 512),
    "downwards": Move(REP_MOVSQ, A + 4096, B + 8192, 512, STD),
    "downwards, overlapping": Move(REP_MOVSB, A + 5000, A + 5003, 4000, STD),
    "filled": Move(REP_STOSQ, A, B + 8, 1200),
    "filled with bytes": Move(REP_STOSB, A, B + 3, 5000),
    "filled with words": Move(REP_STOSW, A, B + 2, 3000),
    "filled with long words": Move(REP_STOSL, A, B + 4, 3000),
    "filled across two pages by an element": Move(REP_STOSQ, A, B + 4092, 600),
    "filled downwards": Move(REP_STOSQ, A, B + 8192, 700, STD),
}


@pytest.mark.parametrize("name", CASES)
def test_it_does_what_the_cpu_does(name: str) -> None:
    is_as_unicorn_s_own(CASES[name])


@settings(max_examples=60)
@given(
    instruction=st.sampled_from(sorted(set(WIDTHS) - {REP_MOVSQ_32})),
    source=st.integers(0, 4 * PAGE),
    distance=st.integers(-64, 64) | st.integers(0, 6 * PAGE),
    size=st.integers(0, 3 * PAGE),
    down=st.booleans(),
)
def test_any_move_does(
    instruction: bytes, source: int, distance: int, size: int, down: bool
) -> None:
    start = A + 4 * PAGE + source
    move = Move(
        instruction, start, start + distance, size // WIDTHS[instruction], STD if down else CLD
    )
    is_as_unicorn_s_own(move)


def test_a_copy_is_recorded_by_pages_with_both_addresses() -> None:
    got = is_as_unicorn_s_own(Move(REP_MOVSQ, A + 8, B + 16, 1024))
    assert got.copies[:, 1:].tolist() == [
        [B + 16, A + 8, PAGE - 16],
        [B + PAGE, A + PAGE - 8, 8],
        [B + PAGE + 8, A + PAGE, PAGE - 8],
        [B + 2 * PAGE, A + 2 * PAGE - 8, 8],
        [B + 2 * PAGE + 8, A + 2 * PAGE, 8],
    ]
    string = [n for n, rip in enumerate(got.trace.tolist()) if "movsq" in got.texts[rip]]
    assert len(string) == 1
    assert set(got.copies[:, 0].tolist()) == set(string)
    assert not any(A <= at < A + 16 * PAGE for at in got.stores[:, 2].tolist())


def test_a_fill_is_recorded_as_a_copy_from_nowhere() -> None:
    got = is_as_unicorn_s_own(Move(REP_STOSQ, A, B, 513))
    assert got.copies[:, 1:].tolist() == [[B, -1, PAGE], [B + PAGE, -1, 8]]
    assert bytes(got.memory.read(Extent.sized(B, 8))) == RAX.to_bytes(8, "little")


def test_what_is_left_to_the_cpu_is_recorded_as_its_loads_and_stores() -> None:
    got = is_as_unicorn_s_own(Move(REP_MOVSQ, A + 4096, B + 4096, 3, STD))
    assert not len(got.copies)
    assert [row for row in got.stores[:, 2].tolist() if row in ARENA] == [
        B + 4096, B + 4088, B + 4080,
    ]  # fmt: skip
    assert [row for row in got.loads[:, 2].tolist() if row in ARENA] == [
        A + 4096, A + 4088, A + 4080,
    ]  # fmt: skip


# ---------------------------------------------------------------------------- a fault in the middle

END = A + PLAN.segments[0].destination.size
"""Behind it nothing is mapped."""


@pytest.mark.parametrize(
    ("move", "access", "address", "done"),
    [
        (Move(REP_MOVSQ, A, END - PAGE - 64, 1024), Access.WRITE, END, PAGE + 64),
        (Move(REP_MOVSQ, END - 64, A, 1024), Access.READ, END, 64),
        (Move(REP_MOVSB, END - 63, A + 1, 1024), Access.READ, END, 63),
        (Move(REP_STOSQ, A, END - 8, 1024), Access.WRITE, END, 8),
        (Move(REP_MOVSQ, A, END, 1), Access.WRITE, END, 0),
        (Move(REP_MOVSQ, END - 60, A, 1024), Access.READ, END, 56),
        (Move(REP_MOVSQ, A, END - 60, 1024), Access.WRITE, END, 56),
    ],
)
def test_it_stops_at_the_element_that_faults_with_the_registers_there(
    move: Move, access: Access, address: int, done: int
) -> None:
    handover = move.handover()
    got = EMULATOR.run(handover)
    fault = fault_of(got)
    assert (fault.vector, fault.access, fault.address) == (14, access, address)
    assert fault.text.startswith(("rep movs", "rep stos"))
    assert got.texts[fault.rip] == fault.text
    width = WIDTHS[move.instruction]
    general = got.registers.general
    assert general["rcx"] == move.count - done // width
    assert general["rdi"] == move.destination + done
    if move.instruction not in (REP_STOSQ,):
        assert general["rsi"] == move.source + done
        wanted = CONTENT.ljust(17 * PAGE, b"\0")[move.source - A :][:done]
    else:
        wanted = RAX.to_bytes(8, "little") * (done // 8)
    assert bytes(got.memory.read(Extent.sized(move.destination, done))) == wanted
    alone = bare.run(handover)
    assert alone.error is not None
    assert {name: alone.read(name) for name in ("rcx", "rdi", "rsi")} == {
        name: general[name] for name in ("rcx", "rdi", "rsi")
    }


def test_of_two_missing_pages_the_source_is_read_first() -> None:
    fault = fault_of(EMULATOR.run(Move(REP_MOVSQ, END, END + 8 * PAGE, 4).handover()))
    assert (fault.access, fault.address) == (Access.READ, END)


def test_a_count_beyond_the_address_space_ends_at_the_first_missing_page() -> None:
    got = EMULATOR.run(Move(REP_STOSQ, A, END - PAGE, (1 << 64) - 1).handover())
    assert fault_of(got).address == END
    assert got.registers.general["rcx"] == (1 << 64) - 1 - 512
