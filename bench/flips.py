"""Single bits flipped, as many as ten minutes permit: what an oracle sees may not hold.

    python -m bench.flips [SECONDS] [PROCESSES] [SEED]      600 seconds and a process for each core

Rules: each process has machines of its own and makes its own bases; parts are handed out in order, so that
the same flips are tried wherever it runs, and as many of them as the time permits.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from itertools import count, islice
from pathlib import Path
from random import Random

from bench.clock import show
from tightrope.deeds import old_kernel
from tightrope.deeds.flips import Fate, Flipped, Trial, Walkers, walkers
from tightrope.deeds.flips.bases import BARE, LINUX, XEN, Way, base
from tightrope.deeds.flips.ends import Open
from tightrope.deeds.flips.subjects import Subject
from tightrope.deeds.flips.wanted import WANTED
from tightrope.deeds.old_kernel import OldKernel
from tightrope.errors import BadInput
from tightrope.participants.linux import Convention

SEED, FLIPS, SECONDS = 2006, 100_000, 600.0
EACH = 4
"""Flips of a subject in a base."""
REPOSITORY = Path(__file__).resolve().parent.parent
OLD = {
    Convention.LINUX_6: "amd64-6.12",
    Convention.LINUX_7: "amd64-7.3",
    Convention.LINUX_I386: "686",
}
"""The kernels whose own code jumps: see scripts/fetch-kernels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Flips of every subject in one base."""

    number: int
    way: Way


def parts() -> Iterator[Part]:
    """All parts, for ever: each way with one base after the other."""
    for number in count():
        for way in (*BARE, *XEN, *LINUX):
            yield Part(number=number, way=way)


@cache
def _old(convention: Convention) -> OldKernel:
    rows = (REPOSITORY / ".cache/kernels/kernels.txt").read_text().split()
    path = dict(zip(rows[::2], rows[1::2], strict=True))[OLD[convention]]
    return old_kernel.read((REPOSITORY / path).read_bytes(), path)


@cache
def _walkers() -> Walkers:
    """This process's machines, which live as long as it does."""
    return ExitStack().enter_context(walkers())


def _walk(part: Part, seed: int) -> list[Flipped]:
    """In every third base pairs of bits, of one subject and of two by turns."""
    subjects = list(Subject)
    made: list[Flipped] = []
    try:
        old = _old(part.way.linux) if part.way.linux else None
        trial = Trial(_walkers(), base(seed, part.number, part.way, old))
    except BadInput:
        return []  # nothing can be made of it, or it is not sound
    for number, subject in enumerate(subjects):
        for at in range(EACH):
            random = Random(f"{seed}:{part}:{subject}:{at}")
            other = subjects[(number + part.number) % len(subjects)] if at % 2 else subject
            try:
                made.append(trial.flip(subject, random, other if part.number % 3 == 2 else None))
            except BadInput:
                break  # the base has nothing of the kind
    return made


@dataclass(slots=True)
class Tally:
    """What became of the flips."""

    fates: Counter[Fate]
    subjects: Counter[tuple[Subject, Fate]]
    alarms: Counter[str]
    open: Counter[Open]
    bad: list[Flipped]

    def add(self, each: Flipped) -> None:
        """One more."""
        self.fates[each.fate] += 1
        self.subjects[each.subject, each.fate] += 1
        if each.fate is Fate.ALARM:
            self.alarms[each.rules[0]] += 1
        if each.open is not None:
            self.open[each.open] += 1
        unknown = each.fate is Fate.ALARM and not set(each.rules) <= WANTED.keys()
        silent = each.fate is Fate.UNASKED and not each.rules
        if silent or unknown or each.fate in (Fate.UNSEEN, Fate.ERROR):
            self.bad.append(each)


def flips(seconds: float = SECONDS, processes: int | None = None, seed: int = SEED) -> None:
    """A hundred thousand flips, or as many as the time permits."""
    cores = processes or len(os.sched_getaffinity(0))
    work = parts()
    started = said = time.perf_counter()
    tally = Tally(Counter(), Counter(), Counter(), Counter(), [])
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        waiting: set[Future[list[Flipped]]] = {
            pool.submit(_walk, each, seed) for each in islice(work, 2 * cores)
        }
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            now = time.perf_counter()
            for part in done:
                for each in part.result():
                    tally.add(each)
                if now - started < seconds and tally.fates.total() < FLIPS:
                    waiting |= {pool.submit(_walk, each, seed) for each in islice(work, 1)}
            if now - said > 10 and sys.stderr.isatty():
                said = now
                print(
                    f"\r{tally.fates.total()} flips, {now - started:.0f} s", end="", file=sys.stderr
                )
    _report(tally, time.perf_counter() - started, cores)


def _report(tally: Tally, taken: float, cores: int) -> None:
    total = tally.fates.total()
    show(
        "single bits flipped, and pairs (aim 167/s on two cores)",
        f"{total / taken:.0f} /s",
        f"{total} in {taken:.0f} s, {cores} processes",
    )
    # Elsewhere than on an idle computer that tells more than the clock.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    show("  a second of one core's own time", f"{total / (used.ru_utime + used.ru_stime):.0f}")
    for fate in Fate:
        show(f"  {fate}", str(tally.fates[fate]))
    for subject in Subject:
        row = {fate.name.lower(): tally.subjects[subject, fate] for fate in Fate}
        show(f"  {subject}", ", ".join(f"{count} {name}" for name, count in row.items() if count))
    for why, number in tally.open.most_common():
        show(f"  open: {why}", str(number))
    for rule, number in tally.alarms.most_common():
        show(f"  alarm: {rule}", str(number), WANTED.get(rule, "NOBODY SAYS WHY"))
    for each in tally.bad[:20]:
        show(f"  {each.base}: {each.says}", each.differs or ", ".join(each.rules))


if __name__ == "__main__":
    given = sys.argv[1:]
    flips(
        float(given[0]) if given else SECONDS,
        int(given[1]) if len(given) > 1 else None,
        int(given[2]) if len(given) > 2 else SEED,
    )
