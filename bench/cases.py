"""Random cases on every quick machine, as `tightrope agree` walks them.

Rules: one process for each core, each with machines of its own; cases are handed out in order, so that
those that were walked are the first ones of the seed.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice

from bench.clock import show
from tightrope.deeds import machines
from tightrope.deeds.agree import Agreement, agree

SEED, CASES, SECONDS = 2006, 100_000, 600.0
PART = 200
"""Cases that a process walks at a time."""


def _walk(numbers: range) -> Agreement:
    with machines.present() as on:
        return agree(on, seed=SEED, numbers=numbers)


def agreement() -> None:
    """A hundred thousand cases, or as many as ten minutes permit."""
    cores = len(os.sched_getaffinity(0))
    parts = iter(range(at, min(at + PART, CASES)) for at in range(0, CASES, PART))
    started = time.perf_counter()
    # A new interpreter each: what this one has open is not theirs.
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        got = list(_finished(pool, parts, cores, started + SECONDS))
    taken = time.perf_counter() - started
    cases = sum(each.cases for each in got)
    unexplained = sorted(each.number for part in got for each in part.unexplained)
    show(
        f"random cases that agree, {', '.join(got[0].machines)}",
        f"{cases / taken:.0f} /s",
        f"{cases} cases in {taken:.0f} s on {cores} cores, {len(unexplained)} unexplained",
    )
    for number in unexplained[:10]:
        show(f"  tightrope agree --seed {SEED} --only {number}", "does not agree")


def _finished(
    pool: ProcessPoolExecutor, parts: Iterator[range], at_once: int, until: float
) -> Iterator[Agreement]:
    """The parts as they are done; none is begun when the time is over."""
    waiting: set[Future[Agreement]] = {pool.submit(_walk, each) for each in islice(parts, at_once)}
    while waiting:
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for each in done:
            yield each.result()
            if time.perf_counter() < until:
                waiting |= {pool.submit(_walk, numbers) for numbers in islice(parts, 1)}
