"""What a worker does: sort hosts into classes, and rehearse one of a class.

    Sort(hosts)          --> for each host, kernel and kind: its class, or why it has none
    Walk(host, new, crash) --> the answer that its class has

Rules: a task and what comes of it can be pickled, and are small but for the cargo, which the pool
brings.  Nothing that is wrong with a host is raised: it is an answer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from tightrope import host, plan
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.sweep.cargo import Cargo, hold
from tightrope.deeds.sweep.decisive import key
from tightrope.errors import BadInput, CannotBe, TightropeError
from tightrope.model import Outcome
from tightrope.model.sweep import Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class HostText:
    """A host file's bytes."""

    name: str
    digest: str
    text: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class Sort:
    """Which classes these hosts are of."""

    hosts: tuple[HostText, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Walk:
    """The answer for a class, by one of its hosts."""

    host: HostText
    new: int
    """Which of the cargo's kernels."""
    crash: bool
    group: str


Task = Sort | Walk


@dataclass(frozen=True, kw_only=True, slots=True)
class Sorted:
    """One host against one kernel: its class, or the answer where there is nothing to rehearse."""

    host: HostText
    new: int
    crash: bool
    assumed: tuple[str, ...]
    group: str | None = None
    answer: Answer | None = None


Done = tuple[Sorted, ...] | Answer
"""What comes of a task."""


def sort(cargo: Cargo, task: Sort) -> tuple[Sorted, ...]:
    """Every host against every kernel."""
    return tuple(each for text in task.hosts for each in _against_all(cargo, text))


def _against_all(cargo: Cargo, text: HostText) -> Iterator[Sorted]:
    """One host, read once.  What is wrong with it is an answer."""
    held = hold(cargo)
    cases = [(new, crash) for new in range(len(cargo.news)) for crash in cargo.kinds]
    try:
        old = held.host(host.read_bytes(text.text, text.name))
    except BadInput as err:
        for new, crash in cases:
            yield Sorted(host=text, new=new, crash=crash, assumed=(), answer=_untold(err))
        return
    assumed = tuple(each.field for each in old.assumed())
    for new, crash in cases:
        group = answer = None
        try:
            group = key(plan.prepare(held.images[new], old, held.request(crash=crash)))
        except (BadInput, CannotBe) as err:
            answer = _untold(err)
        yield Sorted(host=text, new=new, crash=crash, assumed=assumed, group=group, answer=answer)


def _untold(why: Exception) -> Answer:
    return Answer(outcome=None, detail=str(why))


def walk(cargo: Cargo, task: Walk) -> Answer:
    """One rehearsal."""
    held = hold(cargo)
    started = time.perf_counter()
    try:
        verdict = rehearse(
            held.images[task.new],
            held.host(host.read_bytes(task.host.text, task.host.name)),
            held.request(crash=task.crash),
            design=held.design,
            machine=held.machine(),
            unpacking=held.unpackings[task.new],
        )
    except TightropeError as err:
        return Answer(outcome=None, detail=str(err), seconds=time.perf_counter() - started)
    first = verdict.findings[0] if verdict.findings else None
    unknown = verdict.outcome is Outcome.UNKNOWN
    return Answer(
        outcome=None if unknown else verdict.outcome,
        rule=first.rule if first else None,
        step=int(first.step) if first else None,
        detail=first.message if first else "",
        advice=tuple(dict.fromkeys(each.rule for each in verdict.advice)),
        seconds=time.perf_counter() - started,
        asked=verdict.rules,
    )


def do(cargo: Cargo, task: Task) -> Done:
    """Whichever it is."""
    return sort(cargo, task) if isinstance(task, Sort) else walk(cargo, task)
