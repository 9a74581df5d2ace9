"""Timing.  Rules: CPU-bound work in this process, wall clock, the median of several runs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def seconds(work: Callable[[], object], *, runs: int = 5) -> float:
    """The median wall time of `work`, after one run that does not count."""
    work()
    taken = []
    for _ in range(runs):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken)


def show(what: str, figure: str, beside: str = "") -> None:
    """One line of the report."""
    print(f"{what:<58} {figure:<24} {beside}", flush=True)
