"""Signals that come while an engine runs: held back, and then they end what was going on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.machine.walks import moving, sound
from tightrope.machine.held import ENDING, held
from tightrope.machine.unicorn import Emulator
from tightrope.model import Stop
from tightrope.observe.familiar import NONE
from tightrope.observe.watch import Watch

WALK = sound(moving())
LENGTH = Emulator().run(WALK).instructions


@pytest.fixture
def handlers() -> Iterator[None]:
    """The handlers of this process, as they were."""
    before = {each: signal.getsignal(each) for each in ENDING}
    yield
    for each, handler in before.items():
        signal.signal(each, handler)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, LENGTH - 1), in_bulk=st.booleans())
def test_ctrl_c_at_any_instruction_ends_the_walk_and_the_next_one_is_whole(
    monkeypatch: pytest.MonkeyPatch, at: int, in_bulk: bool
) -> None:
    emulator, looked = Emulator(in_bulk=in_bulk), Watch.instruction
    sent: list[int] = []

    def interrupted(watch: Watch, rip: int) -> None:
        looked(watch, rip)
        watch.familiar.rips = NONE  # come here for each that is not done in bulk
        if watch.index >= at and not sent:
            sent.append(watch.index)
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Watch, "instruction", interrupted)
        with pytest.raises(KeyboardInterrupt):
            emulator.run(WALK)
    assert in_bulk or sent == [at]
    again = emulator.run(WALK)
    assert (again.stop, again.instructions) == (Stop.ENTRY, LENGTH)


@pytest.mark.parametrize("number", ENDING)
def test_a_handler_is_called_once_the_engine_has_stopped(
    handlers: None, number: signal.Signals
) -> None:
    order: list[str] = []
    signal.signal(number, lambda *_: order.append("handled"))
    with held(lambda: order.append("stopped")):
        os.kill(os.getpid(), number)
        order.append("goes on")
    assert order == ["stopped", "goes on", "handled"]


def test_a_signal_that_is_ignored_stays_ignored(handlers: None) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with held(lambda: pytest.fail("nothing is to be stopped")):
        os.kill(os.getpid(), signal.SIGHUP)


def test_nothing_changes_where_none_comes(handlers: None) -> None:
    before = {each: signal.getsignal(each) for each in ENDING}
    with held(lambda: None):
        pass
    assert {each: signal.getsignal(each) for each in ENDING} == before


def test_another_thread_leaves_signals_alone() -> None:
    seen: list[object] = []

    def work() -> None:
        with held(lambda: None):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]
