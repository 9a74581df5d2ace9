"""Single bits flipped, as many as ten minutes permit: what an oracle sees may not hold.

    python -m bench.flips [SECONDS] [PROCESSES] [SEED]      600 seconds and a process for each core
    python -m bench.flips replay NAME...                    these alone, by the names that a run gives them

Rules: each process has machines of its own and makes its own bases; parts are handed out in order, so that
the same flips are tried wherever it runs, and as many of them as the time permits.  A flip that raises
what nobody foresaw is named with its traceback, and the run goes on: its end says so, with status 1.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
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


WAYS = (*BARE, *XEN, *LINUX)


def parts() -> Iterator[Part]:
    """All parts, for ever: each way with one base after the other."""
    for number in count():
        for way in WAYS:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A flip that was tried, with the name by which it is tried again."""

    name: str
    flipped: Flipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A flip, or a base, that raised what nobody foresaw."""

    name: str
    why: str
    """The traceback."""


def _walk(part: Part, seed: int) -> list[Named | Failed]:
    """In every third base pairs of bits, of one subject and of two by turns."""
    made: list[Named | Failed] = []
    try:
        trial = _trial(part, seed)
    except Exception:
        return [Failed(name=_name(seed, part), why=traceback.format_exc())]
    if trial is None:
        return made
    for subject in Subject:
        for at in range(EACH):
            try:
                found = _flip(trial, part, seed, subject, at)
            except Exception:
                name = _name(seed, part, subject, at)
                made.append(Failed(name=name, why=traceback.format_exc()))
                continue
            if found is None:
                break  # the base has nothing of the kind
            made.append(found)
    return made


def _name(seed: int, part: Part, *rest: Subject | int) -> str:
    tail = (each.name if isinstance(each, Subject) else str(each) for each in rest)
    return "/".join((str(seed), str(part.number), str(WAYS.index(part.way)), *tail))


def _trial(part: Part, seed: int) -> Trial | None:
    """None where nothing can be made of it, or it is not sound."""
    try:
        old = _old(part.way.linux) if part.way.linux else None
        return Trial(_walkers(), base(seed, part.number, part.way, old))
    except BadInput:
        return None


def _flip(trial: Trial, part: Part, seed: int, subject: Subject, at: int) -> Named | None:
    subjects = list(Subject)
    random = Random(f"{seed}:{part}:{subject}:{at}")
    other = subjects[(subjects.index(subject) + part.number) % len(subjects)] if at % 2 else subject
    try:
        found = trial.flip(subject, random, other if part.number % 3 == 2 else None)
    except BadInput:
        return None
    return Named(name=_name(seed, part, subject, at), flipped=found)


def replay(*names: str) -> None:
    """Each of these once more, with all that is known of it."""
    for name in names:
        seed, number, way, subject, at = name.split("/")
        part = Part(number=int(number), way=WAYS[int(way)])
        trial = _trial(part, int(seed))
        found = None if trial is None else _flip(trial, part, int(seed), Subject[subject], int(at))
        if found is None:
            print(f"{name}: nothing can be made of it")
            continue
        it = found.flipped
        print(f"{name}: {it.base}: {it.says}")
        print(f"  {it.fate}: {it.differs or 'nothing differs'}; {', '.join(it.rules) or 'no rule'}")


RARE = (Open.X87, Open.IDT, Open.NUMBER, Open.MCE)
"""What is so seldom that each is named."""


@dataclass(slots=True)
class Tally:
    """What became of the flips."""

    fates: Counter[Fate] = field(default_factory=Counter)
    subjects: Counter[tuple[Subject, Fate]] = field(default_factory=Counter)
    alarms: Counter[str] = field(default_factory=Counter)
    open: Counter[Open] = field(default_factory=Counter)
    bad: list[Named] = field(default_factory=list)
    odd: list[Named] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    @property
    def right(self) -> bool:
        """All came out as they should."""
        return not self.bad and not self.failed

    def add(self, named: Named | Failed) -> None:
        """One more."""
        if isinstance(named, Failed):
            self.failed.append(named)
            return
        each = named.flipped
        self.fates[each.fate] += 1
        self.subjects[each.subject, each.fate] += 1
        if each.fate is Fate.ALARM:
            self.alarms[each.rules[0]] += 1
        if each.open is not None:
            self.open[each.open] += 1
        unknown = each.fate is Fate.ALARM and not set(each.rules) <= WANTED.keys()
        silent = each.fate is Fate.UNASKED and not each.rules
        if silent or unknown or each.fate in (Fate.UNSEEN, Fate.ERROR):
            self.bad.append(named)
        elif each.open in RARE:
            self.odd.append(named)


def flips(seconds: float = SECONDS, processes: int | None = None, seed: int = SEED) -> bool:
    """A hundred thousand flips, or as many as the time permits; whether all came out as they should."""
    cores = processes or len(os.sched_getaffinity(0))
    work = parts()
    started = said = time.perf_counter()
    tally = Tally()
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        waiting: dict[Future[list[Named | Failed]], Part] = {}

        def more(many: int) -> None:
            for each in islice(work, many):
                waiting[pool.submit(_walk, each, seed)] = each

        more(2 * cores)
        while waiting:
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            now = time.perf_counter()
            for future in done:
                part = waiting.pop(future)
                try:
                    for each in future.result():
                        tally.add(each)
                except BrokenProcessPool as err:
                    # Whoever comes after it in a pool is told the same.
                    tally.add(Failed(name=_name(seed, part), why=f"a process died: {err}"))
                    seconds = 0
                if now - started < seconds and tally.fates.total() < FLIPS:
                    more(1)
            if now - said > 10 and sys.stderr.isatty():
                said = now
                print(
                    f"\r{tally.fates.total()} flips, {now - started:.0f} s", end="", file=sys.stderr
                )
    _report(tally, time.perf_counter() - started, cores)
    return tally.right


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
    for named in (*tally.bad[:40], *tally.odd[:40]):
        each = named.flipped
        show(f"  {named.name} {each.base}: {each.says}", each.differs or ", ".join(each.rules))
    if tally.failed:
        show("  RAISED WHAT NOBODY FORESAW", str(len(tally.failed)))
    for failed in tally.failed[:40]:
        print(f"  {failed.name}: {failed.why}", flush=True)


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["replay"]:
        replay(*given[1:])
        sys.exit()
    right = flips(
        float(given[0]) if given else SECONDS,
        int(given[1]) if len(given) > 1 else None,
        int(given[2]) if len(given) > 2 else SEED,
    )
    sys.exit(not right)
