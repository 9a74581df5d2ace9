"""A machine that sees less is asked less, says so, and is believed in what it does see."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.makers.screens import facts, screen
from tests.rehearse.runs import (
    crashed,
    example_host,
    shared,
    shipped_kernel,
    shipped_request,
    sound,
)
from tightrope import check
from tightrope.check.case import Case
from tightrope.check.rule import Rule
from tightrope.deeds import machines
from tightrope.deeds.rehearse import rehearse
from tightrope.errors import BadInput
from tightrope.machine.port import Ends, Progress
from tightrope.machine.unicorn import Emulator
from tightrope.model import (
    EVERYTHING,
    Console,
    Handover,
    Outcome,
    Run,
    Sight,
    Step,
    Stop,
    Verdict,
)
from tightrope.sabotage import SABOTAGES
from tightrope.views.rehearsal import VIEW as REHEARSAL

FIELDS: dict[Sight, tuple[str, ...]] = {
    Sight.INSTRUCTIONS: ("trace", "texts", "step_starts"),
    Sight.TRANSLATIONS: ("translations",),
    Sight.REGISTER_WRITES: ("register_writes",),
    Sight.STORES: ("stores",),
    Sight.LOADS: ("loads",),
    Sight.COPIES: ("copies",),
    Sight.FAULTS: ("fault",),
}


class Guarded:
    """A run whose fields of some sights may not be touched."""

    def __init__(self, run: Run, closed: frozenset[Sight]) -> None:
        self._run = run
        self._closed = {name for sight in closed for name in FIELDS[sight]}

    def __getattr__(self, name: str) -> object:
        assert name not in self._closed, f"looked at {name}"
        return getattr(self._run, name)


def blinded(run: Run, sees: frozenset[Sight]) -> Run:
    """The same run as a machine that observes only `sees` would tell it."""
    none = np.zeros((0, 4), np.int64)
    empty: dict[Sight, dict[str, object]] = {
        Sight.INSTRUCTIONS: {
            "trace": run.trace[:0],
            "texts": {},
            "step_starts": ((0, Step.CALL),),
        },
        Sight.TRANSLATIONS: {"translations": ()},
        Sight.REGISTER_WRITES: {"register_writes": ()},
        Sight.STORES: {"stores": none},
        Sight.LOADS: {"loads": none},
        Sight.COPIES: {"copies": none},
        Sight.FAULTS: {"fault": None},
    }
    lost = {name: value for sight in EVERYTHING - sees for name, value in empty[sight].items()}
    kept = {each.name: getattr(run, each.name) for each in fields(Run)}
    return Run(**(kept | lost | {"sees": sees}))


class Dim:
    """The emulator, with its eyes half closed."""

    name = "dim"

    def __init__(self, sees: frozenset[Sight]) -> None:
        self._sees = sees

    def run(self, handover: Handover) -> Run:
        return replace(blinded(shared().run(handover), self._sees), machine=self.name)

    def close(self) -> None:
        pass

    def console(self, *, seconds: float, ends: Ends, progress: Progress) -> Console:
        raise NotImplementedError


def dimly(sees: frozenset[Sight], sabotage: str | None = None) -> Verdict:
    return rehearse(
        shipped_kernel(),
        example_host(),
        shipped_request(),
        sabotage=SABOTAGES[sabotage] if sabotage else None,
        machine=Dim(sees),
    )


@pytest.mark.parametrize("rule", check.RULES, ids=lambda rule: rule.id)
def test_a_rule_looks_only_at_what_it_says_it_needs(rule: Rule) -> None:
    run = sound().run
    guarded: Callable[..., Run] = Guarded  # type: ignore[assignment]
    # A run without a fault says the same whether or not its machine sees them: "arrived" looks.
    closed = EVERYTHING - rule.needs - {Sight.FAULTS}
    case = Case(sound().handover, guarded(run, closed))
    assert list(rule.check(case)) == []


@given(st.frozensets(st.sampled_from(Sight)))
def test_every_rule_is_either_asked_or_named_with_what_it_lacks(sees: frozenset[Sight]) -> None:
    run = blinded(sound().run, sees)
    asked, unasked = check.asked(run), check.unasked(run)
    assert {rule.id for rule in asked} | set(unasked) == {rule.id for rule in check.RULES}
    assert not {rule.id for rule in asked} & set(unasked)
    for rule in check.RULES:
        for sight in Sight:
            told = sight.value in unasked.get(rule.id, "")
            assert told == (sight in rule.needs and sight not in sees)


@given(st.frozensets(st.sampled_from(Sight)))
def test_a_sound_handover_holds_however_little_is_seen(sees: frozenset[Sight]) -> None:
    assert check.check(sound().handover, blinded(sound().run, sees)) == ()


def test_a_machine_that_sees_all_is_asked_all() -> None:
    assert sound().unasked == {}
    assert set(sound().rules) == {rule.id for rule in check.RULES}
    assert "could not be asked" not in screen(REHEARSAL, sound())


def test_what_was_not_seen_is_said_and_never_shown_as_done() -> None:
    verdict = dimly(frozenset())
    assert verdict.outcome is Outcome.HOLDS
    text = screen(REHEARSAL, verdict)
    assert f"{len(verdict.unasked)} rules could not be asked: dim does not show" in text
    for rule in verdict.unasked:
        assert rule in text
    for step in ("1 call", "2 load", "3 set", "4 jump", "5 load", "6 copy"):
        [line] = [each for each in text.splitlines() if each.startswith(step)]
        assert line.endswith(" ?")
    document = facts(REHEARSAL, verdict)
    assert document["unasked"] == dict(verdict.unasked)
    assert document["stats"]["sees"] == []
    assert {step["ok"] for step in document["steps"][1:]} == {None}


def test_a_reset_that_nobody_saw_is_still_a_fall() -> None:
    verdict = dimly(frozenset(), "no-v")
    assert verdict.run.stop is Stop.FAULT
    assert verdict.outcome is Outcome.FALLS
    [told] = [each for each in verdict.findings if each.rule == "arrived"]
    assert "reset the machine" in told.message


def test_a_store_that_was_not_seen_is_not_judged() -> None:
    assert "stores-owned" in dimly(EVERYTHING - {Sight.STORES}).unasked
    assert "loads-owned" in dimly(EVERYTHING - {Sight.STORES}).rules


SEEING_NONE = [frozenset[Sight](), EVERYTHING - {Sight.STORES}, EVERYTHING - {Sight.COPIES}]


@pytest.mark.parametrize("sees", SEEING_NONE, ids=["nothing", "no stores", "no copies"])
def test_a_crash_list_that_leaves_the_region_is_found_without_sight(sees: frozenset[Sight]) -> None:
    verdict = crashed(name="crash-outside")
    handover, run = verdict.handover, blinded(verdict.run, sees)
    told = [each for each in check.check(handover, run) if each.rule == "crash-region-only"]
    assert len(told) == 1
    assert "the page list has" in told[0].message


@pytest.mark.parametrize("sees", SEEING_NONE, ids=["nothing", "no stores", "no copies"])
def test_what_a_crash_walk_leaves_in_free_memory_is_found_without_sight(
    sees: frozenset[Sight],
) -> None:
    verdict = rehearse(
        shipped_kernel(),
        crashed().handover.host,
        shipped_request(crash=True),
        machine=Emulator(),
    )
    handover, run = verdict.handover, blinded(verdict.run, sees)
    assert check.check(handover, run) == ()
    free = 0x2000_0000
    run.memory.write(free + 8, b"!")  # type: ignore[attr-defined]
    told = check.check(handover, run)
    assert [each.rule for each in told] == ["crash-region-only"]
    assert f"something was written at {free:#x}" in told[0].message


# --------------------------------------------------------------------------------- the registry


def test_a_machine_that_is_none_is_said_so() -> None:
    with pytest.raises(BadInput, match=r"--on: 'abacus' is none of emulator"):
        machines.named("abacus")


def test_a_machine_is_closed_also_when_the_work_was_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    closed: list[bool] = []

    class Closing(Dim):
        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(machines, "MACHINES", {"made": lambda: Closing(EVERYTHING)})
    with pytest.raises(KeyboardInterrupt), machines.opened("made"):
        raise KeyboardInterrupt
    assert closed == [True]
