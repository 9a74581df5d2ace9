"""The clock beside the engine: progress, the time limit, Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from tests.conftest import REPOSITORY
from tightrope.machine.port import no_progress
from tightrope.machine.unicorn.ticker import Ticker


def test_at_the_limit_it_stops_the_run_once_it_is_over() -> None:
    stopped = threading.Event()
    over: list[bool] = []

    def stop() -> None:
        over.append(ticker.over)
        stopped.set()

    ticker = Ticker(seconds=0.1, progress=no_progress, stop=stop)
    with ticker:
        assert stopped.wait(60)
    assert ticker.over
    assert all(over)
    assert ticker.passed >= 0.1


def test_before_the_limit_it_does_not() -> None:
    stops: list[None] = []
    looks = threading.Event()
    with Ticker(
        seconds=1000, progress=lambda *_: looks.set(), stop=lambda: stops.append(None)
    ) as ticker:
        assert looks.wait(60)
    assert not stops
    assert not ticker.over


def test_it_ends_with_its_block_and_gives_the_signals_back() -> None:
    before = signal.set_wakeup_fd(-1)
    with Ticker(seconds=1000, progress=no_progress, stop=lambda: None) as ticker:
        assert ticker._thread.is_alive()
    assert not ticker._thread.is_alive()
    assert signal.set_wakeup_fd(before) == -1


def test_what_progress_raises_ends_the_run_and_surfaces() -> None:
    stopped = threading.Event()

    def progress(_what: str, _done: int, _total: int) -> None:
        raise BrokenPipeError

    def run() -> None:
        with Ticker(seconds=1000, progress=progress, stop=stopped.set):
            assert stopped.wait(60)

    with pytest.raises(BrokenPipeError):
        run()


def test_it_works_in_another_thread_too() -> None:
    stopped = threading.Event()

    def work() -> None:
        with Ticker(seconds=0.1, progress=no_progress, stop=stopped.set):
            assert stopped.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert stopped.is_set()


ENDLESS = """
import sys
from tests.machine.kernels import FOREVER, handover, say
from tightrope.machine.unicorn import Emulator

emulator = Emulator()
emulator.run(handover(say("half") + FOREVER))
try:
    heard = emulator.console(seconds=100, progress=lambda *_: print("runs", flush=True))
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(7)
print(heard.stopped)
"""


def test_ctrl_c_ends_a_new_kernel_that_says_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "runs\n"
        child.send_signal(signal.SIGINT)
        rest = child.stdout.read().splitlines()
    assert rest[-1] == "interrupted"
    assert child.returncode == 7
