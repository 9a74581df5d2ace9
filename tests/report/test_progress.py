"""The bar: on a terminal for slow work, and nowhere else."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import termios
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import TextIOWrapper

import pytest

from tightrope.report import progress
from tightrope.report.progress import Bar

PATIENCE = 240.0
"""Seconds without a byte on the terminal until a test gives up."""


@dataclass
class Terminal:
    """A pseudo terminal as stderr; `until` waits for something to appear on it."""

    master: int
    stderr: TextIOWrapper
    monkeypatch: pytest.MonkeyPatch
    seen: str = ""

    def bar(self) -> Bar:
        """A bar on this terminal; sys.stderr is pytest's own until a test is under way."""
        self.monkeypatch.setattr(sys, "stderr", self.stderr)
        return Bar()

    def until(self, text: str) -> str:
        while text not in self.seen:
            assert select.select([self.master], [], [], PATIENCE)[0], f"{text!r} never appeared"
            self.seen += os.read(self.master, 4096).decode()
        return self.seen

    def rest(self) -> str:
        """All that was written before this call."""
        self.stderr.write("<end>")
        self.stderr.flush()
        return self.until("<end>").removesuffix("<end>")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 80))
    with open(slave, "w", encoding="utf-8") as stderr:
        yield Terminal(master, stderr, monkeypatch)
    os.close(master)


def test_slow_work_is_shown_although_it_reports_only_once(terminal: Terminal) -> None:
    bar = terminal.bar()
    bar("walk", 2, 0)
    assert "walk: 00:0" in terminal.until("walk: 00:0")
    bar.close()


def test_the_next_stage_takes_the_place_of_the_last(terminal: Terminal) -> None:
    bar = terminal.bar()
    bar("walk", 2, 0)
    terminal.until("walk: ")
    bar("check", 3, 0)
    after = terminal.until("check: ").rpartition("walk: ")[2]
    assert "check: " in after
    bar.close()


def test_work_with_a_limit_shows_how_far_it_is(terminal: Terminal) -> None:
    bar = terminal.bar()
    bar("the new kernel runs", 450, 900)
    shown = terminal.until("at most 900s")
    bar.close()
    assert "the new kernel runs: 00:0" in shown
    filled, empty = re.findall(r"\|([^|\r]*?)( *)\| at most 900s", shown)[-1]
    assert filled
    assert abs(len(filled) - len(empty)) <= 2


def test_work_that_goes_on_moves_the_bar(terminal: Terminal) -> None:
    bar = terminal.bar()
    bar("the new kernel runs", 1, 900)
    assert "█| at most 900s" not in terminal.until("at most 900s")
    bar("the new kernel runs", 900, 900)
    terminal.until("█| at most 900s")
    bar.close()


def test_work_on_many_shows_how_many_are_done(terminal: Terminal) -> None:
    bar = terminal.bar()
    bar("pairs", 3, 16)
    shown = terminal.until("3 of 16")
    bar.close()
    assert "pairs: 00:0" in shown
    assert "at most" not in shown


def test_the_bar_is_gone_when_it_is_closed(terminal: Terminal) -> None:
    bar = terminal.bar()
    bar("walk", 2, 0)
    terminal.until("walk: ")
    bar.close()
    text = terminal.rest()
    # A line that is taken away is overwritten with spaces, and the cursor is back at its start.
    assert text.endswith("\r")
    assert text.rstrip("\r").rpartition("\r")[2].strip() == ""
    assert "\n" not in text


def test_quick_work_shows_nothing(terminal: Terminal) -> None:
    bar = terminal.bar()
    for number, what in enumerate(("plan", "tables", "walk")):
        bar(what, number, 0)
    bar.close()
    assert terminal.rest() == ""


def test_nothing_is_drawn_before_the_delay_is_over(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "DELAY", 3600.0)
    monkeypatch.setattr(progress, "PERIOD", 0.01)
    bar = terminal.bar()
    bar("walk", 2, 0)
    threading.Event().wait(0.3)
    bar.close()
    assert terminal.rest() == ""


def test_a_closed_bar_stays_off_the_screen(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "PERIOD", 0.01)
    bar = terminal.bar()
    bar.close()
    bar("walk", 2, 0)
    bar.close()
    assert terminal.rest() == ""
    assert "progress" not in [thread.name for thread in threading.enumerate()]


def test_a_pipe_gets_nothing(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "DELAY", 0.0)
    monkeypatch.setattr(progress, "PERIOD", 0.01)
    bar = Bar()
    bar("walk", 2, 0)
    assert "progress" not in [thread.name for thread in threading.enumerate()]
    bar.close()
    assert capfd.readouterr() == ("", "")
