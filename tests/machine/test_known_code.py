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


JUMP = b"\xeb\xfe"
"""To itself."""


def test_what_lies_behind_a_jump_is_data_and_may_differ() -> None:
    code, ram = known((START, NOP), (START + 1, JUMP))
    ram.write(START + 3, MOV)
    assert code.changed() == []
    ram.write(START + 2, NOP)
    assert code.changed() == [START // PAGE]


def test_what_follows_an_instruction_that_was_the_last_may_have_been_translated() -> None:
    code, ram = known((START, NOP))
    ram.write(START + 100, MOV)
    assert code.changed() == [START // PAGE]


def test_an_instruction_is_compared_as_it_was_when_it_was_decoded() -> None:
    code, ram = known((START, JUMP))
    ram.write(START + 64, JUMP)
    code.keep(START + 64, START + 64, 64, Operation(JUMP, START + 64))
    assert code.changed() == []
    ram.write(START + 64, NOP)
    assert code.changed() == [START // PAGE]


@given(st.lists(st.tuples(PLACES, st.sampled_from([NOP, MOV, JUMP])), max_size=6))
def test_a_dropped_frame_is_forgotten_with_all_that_has_a_byte_in_it(
    placed: list[tuple[int, bytes]],
) -> None:
    code, _ = known(*placed)
    number = START // PAGE + 1
    first = number * PAGE
    was_known = number in code.frames
    if was_known:
        code.drop_frame(number)
    assert number not in code.frames
    left = {at: data for at, data in placed if at + len(data) <= first or at >= first + PAGE}
    for at, _ in placed:
        assert (code.get(at, at, 64) is not None) == (at in left)
    assert not code.hit(first, PAGE)
    for page in (START, first, first + PAGE):
        plain = {at for at in code.plain(page, page, 64) if code.get(at, at, 64) is None}
        assert not plain
