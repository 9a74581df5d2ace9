"""Single bits flipped, as many as ten minutes permit: what an oracle sees may not hold.

Rules: one process for each core, each with machines of its own; parts are handed out in order.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice, product
from random import Random

from bench.clock import show
from tightrope.deeds import machines
from tightrope.deeds.flips import Fate, Flipped, flip
from tightrope.deeds.flips.bases import base
from tightrope.deeds.flips.subjects import Subject
from tightrope.errors import BadInput
from tightrope.machine.unicorn import Emulator
from tightrope.model import Paging

SEED, FLIPS, SECONDS = 2006, 100_000, 600.0
PART = 50
"""Flips of one base."""
Work = tuple[int, Subject, Paging, bool, bool]


def _walk(work: Work) -> list[Flipped]:
    number, subject, paging, crash, pairs = work
    randoms = [Random(f"{SEED}:{work}:{at}") for at in range(PART)]
    with machines.present() as present:
        ours = Emulator(instruction_limit=200_000)
        try:
            made = base(SEED, number, paging, crash=crash)
            return list(flip(ours, present[1:], made, subject, randoms, pairs=pairs))
        except BadInput:
            return []  # the base is not sound, or has nothing of the kind
        finally:
            ours.close()


def flips() -> None:
    """A hundred thousand flips, or as many as ten minutes permit."""
    cores = len(os.sched_getaffinity(0))
    kinds = product(range(10_000), Subject, Paging, (False, True), (False, True))
    work = iter(kinds)
    started = time.perf_counter()
    fates: Counter[Fate] = Counter()
    alarms: Counter[str] = Counter()
    unseen: list[Flipped] = []
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        waiting: set[Future[list[Flipped]]] = {
            pool.submit(_walk, each) for each in islice(work, cores)
        }
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for part in done:
                for each in part.result():
                    fates[each.fate] += 1
                    if each.fate is Fate.ALARM:
                        alarms[each.rules[0]] += 1
                    if each.fate in (Fate.UNSEEN, Fate.ERROR):
                        unseen.append(each)
                if time.perf_counter() - started < SECONDS and fates.total() < FLIPS:
                    waiting |= {pool.submit(_walk, each) for each in islice(work, 1)}
    taken = time.perf_counter() - started
    show(
        "single bits flipped, and pairs",
        f"{fates.total() / taken:.0f} /s",
        f"{fates.total()} in {taken:.0f} s, {fates[Fate.UNSEEN]} unseen, {fates[Fate.ERROR]} errors",
    )
    for fate, count in sorted(fates.items()):
        show(f"  {fate}", str(count))
    for rule, count in alarms.most_common(8):
        show(f"  an alarm on what changes nothing: {rule}", str(count))
    for each in unseen[:10]:
        show(f"  {each.base}: {each.says}", each.differs)
