"""Findings to the byte: which byte is wrong, where its twin is, and what a move may change.

Rules: verdicts are asked in test_rules; here it is what they say, and that the bytes beside are let be.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.check.breaking_told import Overlaid, flipped
from tests.rehearse.runs import backed_up, sound
from tightrope.check import alike, check
from tightrope.check.alike import wrong
from tightrope.check.call import _left
from tightrope.check.case import Case
from tightrope.check.told.inputs import _differs
from tightrope.memory import Extent
from tightrope.model import Part
from tightrope.model.participant import Done
from tightrope.x86.cpu import CR4_CET, RFLAGS_IF

BASE, OFFSET, SIZE, DISTANCE = 0x40_0000, 0x1000, 64, 0x12_3456


def test_the_first_of_several_wrong_bytes_of_the_kernel_is_named_and_all_are_counted() -> None:
    good = sound()
    broken = flipped("kernel", 0x23C)(*flipped("kernel", 0x234)(good.handover, good.run))
    [found] = [each for each in check(*broken) if each.rule == "kernel-as-given"]
    assert found.message == "part 1 of the kernel is not the image's: byte 0x234, at 0x1000234"
    assert found.evidence["wrong bytes"] == "2"


def test_low_memory_that_is_not_saved_is_named_where_it_was_and_where_it_should_be() -> None:
    good = backed_up()
    [saved] = good.handover.intent.backup
    at = saved.copy + 0x1234
    there = bytes(good.run.memory.read(Extent.sized(at, 9)))
    wrong = bytes([there[0] ^ 1, *there[1:8], there[8] ^ 1])
    broken = replace(good.run, memory=Overlaid(good.run.memory, at, wrong))
    [found] = [each for each in check(good.handover, broken) if each.rule == "backup-complete"]
    assert f"{saved.source.start + 0x1234:#x} is not at {at:#x}" in found.message


@pytest.mark.parametrize(("past", "told"), [(-1, True), (0, False)])
def test_a_jump_into_the_stubs_last_byte_is_told_and_one_behind_it_is_nobodys(
    past: int, told: bool
) -> None:
    good = sound()
    intent, run = good.handover.intent, good.run
    stub = next(each for each in intent.segments if intent.entry in each.destination)
    at = int((run.trace == np.uint64(intent.entry)).argmax())
    trace = np.insert(run.trace, at, np.uint64(stub.destination.end + past))
    found = check(good.handover, replace(run, trace=trace))
    jumps = [each.message for each in found if each.rule == "entry-jump"]
    assert len(jumps) == told
    assert all(f"{stub.destination.end + past:#x}" in each for each in jumps)


@pytest.mark.parametrize("done", Done)
def test_what_the_old_kernels_c_code_leaves_is_what_its_contract_says(done: Done) -> None:
    world = sound().handover.world.registers
    world = replace(world, rflags=world.rflags | RFLAGS_IF, cr4=world.cr4 | CR4_CET)
    assert _left(world, frozenset(), 8) == world
    left = _left(world, frozenset({done}), 8)
    by_hand = {
        Done.INTERRUPTS_OFF: replace(world, rflags=world.rflags ^ RFLAGS_IF),
        Done.DESCRIPTORS_GONE: replace(world, gdt=(0, 0), idt=(0, 0)),
        Done.CET_OFF: replace(world, cr4=world.cr4 ^ CR4_CET),
    }
    if done is not Done.SEGMENTS_LOADED:
        assert left == by_hand.get(done, world)


class Moved:
    """An image's part that was moved, and the words that a move changes."""

    def __init__(self, data: bytes, relocations: list[int] | None, distance: int) -> None:
        self.part = Part(offset=OFFSET, data=memoryview(data), size=SIZE)
        self.place = Extent.sized(BASE + OFFSET, SIZE)
        words = None if relocations is None else np.array(relocations, np.int64)
        image = SimpleNamespace(relocations=words, pref_address=BASE - distance)
        self.memory = bytearray(data)
        for at in relocations or ():
            if OFFSET <= at <= OFFSET + SIZE - 4:
                (word,) = struct.unpack_from("<I", data, at - OFFSET)
                moved = (word + distance) % (1 << 32)
                struct.pack_into("<I", self.memory, at - OFFSET, moved)
        self.case = cast(
            Case,
            SimpleNamespace(
                intent=SimpleNamespace(image=image),
                base=BASE,
                planned=lambda _place: None,
                run=SimpleNamespace(
                    memory=SimpleNamespace(read=lambda _place: memoryview(bytes(self.memory)))
                ),
            ),
        )

    def differs(self) -> list[int]:
        return _differs(self.case, self.part, self.place).tolist()


DATA = st.binary(min_size=SIZE, max_size=SIZE)
PLACES = st.sets(st.sampled_from(range(OFFSET - 8, OFFSET + SIZE + 8, 4))).map(
    lambda some: sorted({OFFSET, OFFSET + SIZE - 4, *some})
)


@given(DATA, PLACES, st.integers(0, 8 * SIZE - 1))
def test_a_moved_part_is_the_images_but_for_the_words_that_a_move_changes(
    data: bytes, places: list[int], bit: int
) -> None:
    moved = Moved(data, places, DISTANCE)
    assert moved.differs() == []
    moved.memory[bit // 8] ^= 1 << bit % 8
    first = moved.differs()[0]
    word = bit // 8 & ~3
    if OFFSET + word in places:
        assert bit // 8 <= first < word + 4
    else:
        assert first == bit // 8


@given(DATA, PLACES)
def test_a_part_that_is_not_moved_has_the_images_words(data: bytes, places: list[int]) -> None:
    assert Moved(data, places, 0).differs() == []
    assert Moved(data, None, DISTANCE).differs() == []


@given(st.binary(max_size=9), st.lists(st.sampled_from([0, 0, 1]), max_size=9))
def test_all_that_is_wrong_is_told_before_the_end_of_what_is_wanted_and_behind_it(
    wanted: bytes, tail: list[int]
) -> None:
    got = bytes(each ^ (number % 3 == 1) for number, each in enumerate(wanted)) + bytes(tail)
    padded = wanted.ljust(len(got), b"\0")
    expected = [at for at in range(len(got)) if got[at] != padded[at]]
    assert wrong(got, wanted).tolist() == expected


@given(st.integers(0, 200), st.integers(0, 199))
def test_a_large_buffer_is_compared_in_every_place(size: int, at: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(alike, "SMALL", -1)
        patched.setattr(alike, "PIECE", 64)
        one, other = bytes(size), bytearray(size)
        assert alike.alike(one, other)
        if at < size:
            other[at] = 1
            assert not alike.alike(one, other)
            assert alike.any_set(other)
