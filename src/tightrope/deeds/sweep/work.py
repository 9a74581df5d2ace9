"""What a worker does: sort hosts into classes, and rehearse one of a class.

    Sort(hosts)          --> for each host, kernel and kind: its class, or why it has none
    Walk(host, new, crash) --> the answer that its class has

Rules: a task and what comes of it can be pickled, and are small but for the cargo, which the pool
brings.  Nothing that is wrong with a host is raised: it is an answer.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from tightrope import host as host_room
from tightrope import plan
from tightrope.deeds.rehearse import rehearse
from tightrope.deeds.sweep.cargo import Cargo, hold
from tightrope.deeds.sweep.decisive import key
from tightrope.errors import BadInput, CannotBe, TightropeError
from tightrope.model import Host, Outcome
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


def sort(cargo: Cargo, task: Sort) -> tuple[Sorted, ...]:
    """Every host against every kernel."""
    return tuple(
        each
        for host in task.hosts
        for new in range(len(cargo.news))
        for crash in cargo.kinds
        for each in (_sorted(cargo, host, new, crash),)
    )


def _sorted(cargo: Cargo, text: HostText, new: int, crash: bool) -> Sorted:
    held = hold(cargo)
    assumed: tuple[str, ...] = ()
    try:
        old = held.host(read(text))
        assumed = tuple(each.field for each in old.assumed())
        planned = plan.prepare(held.images[new], old, held.request(crash=crash))
    except (BadInput, CannotBe) as err:
        answer = Answer(outcome=None, detail=str(err))
        return Sorted(host=text, new=new, crash=crash, assumed=assumed, answer=answer)
    return Sorted(host=text, new=new, crash=crash, assumed=assumed, group=key(planned))


def read(text: HostText) -> Host:
    """The host that a file describes.  Raises BadInput."""
    try:
        decoded = text.text.decode("utf-8")
    except UnicodeDecodeError as err:
        raise BadInput("not UTF-8 text", source=text.name, offset=err.start) from err
    return host_room.read(decoded, text.name)


def walk(cargo: Cargo, task: Walk) -> Answer:
    """One rehearsal."""
    held = hold(cargo)
    started = time.perf_counter()
    try:
        verdict = rehearse(
            held.images[task.new],
            held.host(read(task.host)),
            held.request(crash=task.crash),
            design=held.design,
            machine=held.machine,
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
    )


def do(cargo: Cargo, task: Task) -> tuple[Sorted, ...] | Answer:
    """Whichever it is."""
    return sort(cargo, task) if isinstance(task, Sort) else walk(cargo, task)
