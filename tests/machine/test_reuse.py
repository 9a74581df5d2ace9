"""One emulator for many walks: nothing of a former run may be seen in a later one.

A run on a used emulator has to equal the run of the same handover on a fresh one, whatever ran
before: a sound walk, a fallen one, other code at the same V, another stub in the same frame.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any
from weakref import ref

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.machine.walks import (
    HLT,
    INT3,
    JMP_RAX,
    LOOP_FOREVER,
    MIB,
    NOP,
    PAGE,
    REP_MOVSQ,
    TABLE_A_TO_CR3,
    UD2,
    WRMSR,
    kernel,
    made,
    moving,
    plan,
    put,
    sound,
    to_identity,
    with_registers,
)
from tests.makers.hosts import small_host
from tightrope.machine.unicorn import Emulator
from tightrope.machine.unicorn import emulator as emulator_module
from tightrope.memory import Extent
from tightrope.model import Handover, Plan, Run
from tightrope.observe.watch import Watch

LIMIT = 5000


def with_stub(handover: Handover, prefix: bytes) -> Handover:
    """The same handover where the entry stub begins with other bytes."""
    segments = tuple(
        replace(each, data=prefix + bytes(each.data)[len(prefix) :])
        if each.name == "entry stub"
        else each
        for each in handover.segments
    )
    return replace(handover, segments=segments)


def without_table_b(handover: Handover) -> Handover:
    """Falls at step 5, before the stub runs."""
    return with_registers(handover, general={"r8": 9 * MIB})


def self_changing(the_plan: Plan) -> Handover:
    """At P: writes a hlt over its own next instruction."""
    head = to_identity(the_plan.host)
    return made(head + b"\xc6\x05\x00\x00\x00\x00\xf4" + NOP + UD2, the_plan)


PLAN, MOVING = plan(), moving()
SOUND, COPYING = sound(PLAN), sound(MOVING)
HANDOVERS: dict[str, Handover] = {
    "sound": SOUND,
    "copying": COPYING,
    "another stub": with_stub(SOUND, UD2),
    "the same stub, halting": with_stub(SOUND, HLT),
    "falls at step 5": without_table_b(SOUND),
    "other tables, same code": without_table_b(COPYING),
    "ud2 at V": made(UD2),
    "int3 at V": made(INT3),
    "halt at V": made(NOP + HLT),
    "the same length, another meaning": made(HLT + NOP),
    "divide by zero": made(put("rax", 0) + b"\xf7\xf0"),
    "#GP by Unicorn": made(b"\x66\xb8\x08\x00\x0f\x00\xd8" + HLT),
    "a page fault": made(put("rbx", 0x1234) + b"\x48\x8b\x03"),
    "a far fetch": made(put("rax", 0x5000_0000) + JMP_RAX),
    "endless": made(LOOP_FOREVER),
    "table_a only": made(TABLE_A_TO_CR3 + HLT),
    "cr2, fs base, debug and SSE state": made(
        put("rax", 0x7777) + b"\x0f\x22\xd0" + b"\x0f\x23\xf8"
        + put("rcx", 0xC000_0100) + put("rdx", 0) + WRMSR + b"\x0f\x6e\xc0" + HLT
    ),
    "reads fs": made(b"\x64\x48\x8b\x04\x25\x00\x00\x00\x00" + HLT),
    "reads SSE": made(b"\x66\x48\x0f\x7e\xc0" + HLT),
    "reads cr2": made(b"\x0f\x20\xd0" + HLT),
    "writes its own code": self_changing(PLAN),
    "at P, plain": made(to_identity(PLAN.host) + HLT, PLAN),
    "other cr4": with_registers(made(HLT), cr4=0x6B0),
    "another host": sound(plan(small_host(33), kernel())),
}  # fmt: skip


def same(one: Run, other: Run) -> None:
    """Every observation, and the memory that a handover lays out or writes."""
    assert one.stop is other.stop
    assert one.registers == other.registers
    assert one.fault == other.fault
    assert one.instructions == other.instructions
    assert one.texts == other.texts
    assert one.step_starts == other.step_starts
    assert one.translations == other.translations
    assert one.register_writes == other.register_writes
    assert one.descriptors == other.descriptors
    for name in ("trace", "stores", "loads", "copies"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name


def memory(run: Run, handover: Handover) -> list[bytes]:
    extents = [each.destination.page_aligned() for each in handover.segments]
    extents.append(Extent.sized(handover.intent.control_page, PAGE))
    extents += [each.extent for each in handover.world.pieces]
    return [bytes(run.memory.read(each)) for each in extents]


FRESH: dict[str, tuple[Run, list[bytes]]] = {}


def fresh(name: str) -> tuple[Run, list[bytes]]:
    """The run of a handover on an emulator that has done nothing before."""
    if name not in FRESH:
        run = Emulator(instruction_limit=LIMIT).run(HANDOVERS[name])
        FRESH[name] = run, memory(run, HANDOVERS[name])
    return FRESH[name]


def check(emulator: Emulator, name: str) -> None:
    got = emulator.run(HANDOVERS[name])
    wanted, bytes_ = fresh(name)
    same(got, wanted)
    assert memory(got, HANDOVERS[name]) == bytes_


@pytest.mark.parametrize("first", HANDOVERS)
def test_any_walk_after_any_other_is_as_on_a_fresh_emulator(first: str) -> None:
    emulator = Emulator(instruction_limit=LIMIT)
    for second in HANDOVERS:
        check(emulator, first)
        check(emulator, second)


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from(sorted(HANDOVERS)), min_size=3, max_size=12))
def test_so_is_any_sequence_of_them(names: list[str]) -> None:
    emulator = Emulator(instruction_limit=LIMIT)
    for name in names:
        check(emulator, name)


def test_code_that_a_walk_did_not_reach_is_not_remembered_from_the_walk_before() -> None:
    # The stub ran in the first walk, not in the second; the third has another one in its frame.
    emulator = Emulator(instruction_limit=LIMIT)
    for name in ("sound", "falls at step 5", "another stub"):
        check(emulator, name)


def copy_over_and_jump(target: int, source: int) -> Handover:
    """At P under page_table_b: rep movsq of one page from `source` to `target`, and a jump there."""
    code = (
        to_identity(PLAN.host)
        + b"\x41\x0f\x22\xd8"
        + put("rsi", source)
        + put("rdi", target)
        + put("rcx", PAGE // 8)
        + REP_MOVSQ
        + put("rax", target)
        + JMP_RAX
    )
    return made(code, PLAN)


def test_code_that_a_former_walk_executed_and_this_one_copies_over_is_new_code() -> None:
    emulator = Emulator(instruction_limit=LIMIT)
    stub, line = PLAN.entry, PLAN.segments[1].destination.start
    first = emulator.run(with_stub(copy_over_and_jump(line, stub), HLT))
    assert first.texts[line] == "hlt"
    # The same walk again, with ud2 where the hlt came from: the place it is copied to is executed.
    second = emulator.run(with_stub(copy_over_and_jump(line, stub), UD2))
    assert second.fault is not None
    assert second.fault.vector == 6
    assert second.texts[line] == "ud2"


def test_a_walk_that_was_interrupted_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyboardInterrupt

    emulator = Emulator(instruction_limit=LIMIT)
    with monkeypatch.context() as patch:
        patch.setattr(Watch, "access", broken)
        with pytest.raises(KeyboardInterrupt):
            emulator.run(HANDOVERS["sound"])
    check(emulator, "another stub")
    check(emulator, "ud2 at V")


def test_zero_tails_are_zero_after_a_larger_kernel_was_there() -> None:
    emulator = Emulator()
    large = sound(plan(initrd=b"\xff" * 9 * PAGE, command_line="x" * 900))
    small = sound(plan(initrd=b"\x01" * 9, command_line="y"))
    emulator.run(large)
    got = emulator.run(small)
    for segment in small.segments[:-1]:
        extent = segment.destination.page_aligned()
        assert bytes(got.memory.read(extent)) == bytes(segment.data).ljust(extent.size, b"\0")


def test_a_walk_is_freed_with_its_last_user_and_not_by_a_search_for_cycles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watches: list[ref[Watch]] = []

    def watch(*given: Any, **named: Any) -> Watch:
        made = Watch(*given, **named)
        watches.append(ref(made))
        return made

    monkeypatch.setattr(emulator_module, "Watch", watch)
    machine = Emulator()
    gc.disable()
    try:
        for each in (SOUND, without_table_b(SOUND), SOUND):
            machine.run(each)
        alive = [one() is not None for one in watches]
    finally:
        gc.enable()
    assert alive == [False, False, True], "the last is the engine's, until it is told of the next"
