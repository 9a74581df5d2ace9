"""What is passed over of plain instructions is nothing: the same run comes out without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.machine.walks import moving, sound
from tightrope.machine.unicorn import Emulator
from tightrope.memory import Phys
from tightrope.model import Run, Stop
from tightrope.observe.familiar import NONE
from tightrope.observe.watch import Watch

WALK = sound(moving())


def told(run: Run) -> tuple[object, ...]:
    """All that a run says of its instructions."""
    rows = (run.trace, run.stores, run.loads, run.copies)
    return (
        *(each.tolist() for each in rows),
        run.stop,
        run.registers,
        run.translations,
        run.register_writes,
        run.step_starts,
        run.texts,
    )


def test_a_run_is_the_same_when_nothing_is_familiar(monkeypatch: pytest.MonkeyPatch) -> None:
    quick, looked, calls = Emulator().run(WALK), Watch.instruction, 0

    def each(watch: Watch, rip: int) -> None:
        nonlocal calls
        calls += 1
        looked(watch, rip)
        watch.familiar.rips = NONE

    monkeypatch.setattr(Watch, "instruction", each)
    slow = Emulator(in_bulk=False).run(WALK)
    assert told(slow) == told(quick)
    assert calls == slow.instructions + 1, "the entry is looked at, and not run"


def test_most_of_a_walk_is_familiar(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, calls = Watch.instruction, 0

    def counted(watch: Watch, rip: int) -> None:
        nonlocal calls
        calls += 1
        looked(watch, rip)

    monkeypatch.setattr(Watch, "instruction", counted)
    run = Emulator().run(WALK)
    assert run.stop is Stop.ENTRY
    assert calls < run.instructions


@pytest.mark.parametrize("limit", [1, 7, 60, 200])
def test_the_limit_holds_for_familiar_instructions_too(limit: int) -> None:
    run = Emulator(instruction_limit=limit).run(WALK)
    assert (run.stop, run.instructions) == (Stop.LIMIT, limit + 1)


def test_what_an_earlier_walk_met_is_told_again_and_not_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, looked, calls = Emulator(), Watch.instruction, 0

    def counted(watch: Watch, rip: int) -> None:
        nonlocal calls
        calls += 1
        looked(watch, rip)

    monkeypatch.setattr(Watch, "instruction", counted)
    first = told(machine.run(WALK))
    anew, calls = calls, 0
    assert told(machine.run(WALK)) == first
    assert calls < anew / 2


@pytest.mark.parametrize("limit", [1, 7, 60, 200])
def test_the_limit_holds_for_what_an_earlier_walk_met(limit: int) -> None:
    machine = Emulator(instruction_limit=limit)
    first = told(machine.run(WALK))
    assert told(machine.run(WALK)) == first


def test_an_entry_that_an_earlier_walk_ran_through_ends_the_walk() -> None:
    machine = Emulator()
    run = machine.run(WALK)
    stub = WALK.intent.segments[-1].destination
    for rip in [int(rip) for rip in run.trace if int(rip) in stub][1:]:
        machine.run(WALK)
        early = replace(WALK, intent=replace(WALK.plan, kernel_entry=Phys(rip)))
        again = machine.run(early)
        assert (again.stop, again.registers.rip) == (Stop.ENTRY, rip)
        assert len(again.trace) < len(run.trace)
