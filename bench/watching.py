"""A kexec that is watched against the same one that is not, in turn: from the call to the first line.

Rules: one guest of 6.1 that stands at the call; each run begins from there, and ends with the new kernel's
first line on the console.  Wall seconds, and the least of several: the machine does other things too.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from bench.clock import show
from tests.watch.guests import LEAVE, Guest, load
from tightrope.deeds.rehearse import Stages
from tightrope.deeds.watch.console import Console
from tightrope.deeds.watch.deed import arrive, judge
from tightrope.deeds.watch.follow import follow
from tightrope.machine.port import no_progress
from tightrope.model.watched import Passed

RUNS = 5
SECONDS = 300.0
WORD = "Linux version"


def first_line(rounds: int = RUNS) -> None:
    """By breakpoints at most 1.2 times as long."""
    stages = Stages(no_progress)
    watched: list[float] = []
    alone: list[float] = []
    with (
        tempfile.TemporaryDirectory(prefix="watched-") as name,
        Guest(Path(name) / "guest", "amd64") as guest,
    ):
        guest.wait("guest: up")
        guest.do(load("-s", "-l"))
        with guest.attached() as attached:
            guest.say(LEAVE)
            call = arrive(attached, stages=stages)
            verdict = judge(call, walk=False, stages=stages)
            attached.leave(standing=True)
            guest.save("called")
        for _ in range(rounds):
            guest.back("called", run=False)
            started = time.monotonic()
            guest.monitor("cont")
            guest.wait(WORD)
            alone.append(time.monotonic() - started)
            guest.back("called", run=False)
            with guest.attached() as attached:
                console = Console(str(guest.console))
                started = time.monotonic()
                went = follow(
                    attached,
                    verdict.handover,
                    begun=0.0,
                    seconds=SECONDS,
                    said=_nobody,
                    console=console,
                )
                watched.append(time.monotonic() - started)
            assert went.heard is not None
            guest.monitor("stop")
    ratio = min(watched) / min(alone)
    show(
        "watched against unwatched, from the call to the first line (aim 1.2)",
        f"{ratio:.2f} times",
        f"{min(watched):.2f} s, {min(alone):.2f} s; least of {rounds} in turn; guest of 6.1 under TCG",
    )
    show(
        "  before it is let go: read, checked",
        f"{sum(stages.seconds.values()):.1f} s",
        "kallsyms and all",
    )


def _nobody(_: Passed) -> None:
    """Nobody listens."""


if __name__ == "__main__":
    first_line()
