"""Instructions that are known from an earlier walk, against a plain list of the bytes that they have."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tightrope.memory import Extent
from tightrope.observe.decode import Operation
from tightrope.observe.known_code import KnownCode
from tightrope.observe.physical import Ram

PAGE = 4096
START, PAGES = 0x10_0000, 3
NOP, MOV = b"\x90", bytes.fromhex("48b8 0102030405060708")  # movabs $..., %rax: ten bytes
PLACES = st.integers(START, START + PAGES * PAGE - len(MOV))


def known(*placed: tuple[int, bytes]) -> tuple[KnownCode, Ram]:
    """Each instruction at its physical address, which is its linear one as well."""
    ram = Ram((Extent.sized(START, PAGES * PAGE),))
    code = KnownCode(ram)
    for at, data in placed:
        ram.write(at, data)
        code.keep(at, at, 64, Operation(data, at))
    return code, ram


@given(
    st.lists(st.tuples(PLACES, st.sampled_from([NOP, MOV])), max_size=5),
    PLACES,
    st.sampled_from([1, 2, 8, 64, PAGE]),
)
def test_a_write_hits_code_where_it_has_a_byte_of_an_instruction(
    placed: list[tuple[int, bytes]], at: int, size: int
) -> None:
    code, _ = known(*placed)
    bytes_of_code = {each for start, data in placed for each in range(start, start + len(data))}
    assert code.hit(at, size) == any(each in bytes_of_code for each in range(at, at + size))


def test_an_instruction_is_known_in_its_mode_and_place_alone() -> None:
    code, _ = known((START, NOP))
    assert code.get(START, START, 64) is not None
    assert code.get(START, START, 32) is None
    assert code.get(START, START + PAGE, 64) is None
    assert code.get(START + PAGE, START, 64) is None


def test_the_rest_of_an_instruction_on_the_next_frame_is_code_too() -> None:
    code, ram = known((START + PAGE - 1, MOV))
    assert set(code.frames) == {START // PAGE, START // PAGE + 1}
    ram.write(START + PAGE + len(MOV) - 2, NOP)
    assert code.changed()


def test_a_changed_frame_is_told_until_all_is_dropped() -> None:
    code, ram = known((START, NOP))
    ram.write(START + 2 * PAGE, MOV)
    assert not code.changed()
    ram.write(START + PAGE - 1, NOP)
    assert code.changed()
    code.drop_instructions()
    assert code.get(START, START, 64) is None
    assert code.changed()
    code.drop()
    assert not code.changed()
