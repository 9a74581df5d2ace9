"""Flip, walk and judge.

Rules: machines are the caller's, and stay the caller's to close; the first has the rules, the others are
oracles.  An oracle that cannot be this old kernel is not asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from tightrope import check
from tightrope.deeds.flips.bases import Base
from tightrope.deeds.flips.ends import End, differ, end_of
from tightrope.deeds.flips.subjects import Broken, Subject, broken
from tightrope.errors import BadInput, MachineError, TightropeError
from tightrope.machine.port import Machine
from tightrope.model import Handover
from tightrope.observe.physical import Ram


class Fate(StrEnum):
    """What became of a flip."""

    SEEN = "it changes the end, and is told"
    HARMLESS = "it changes nothing, and holds"
    ALARM = "it changes nothing that an oracle sees, and is told"
    UNSEEN = "it changes the end, and holds"
    ERROR = "our machine gave up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flipped:
    """One flip and its fate."""

    base: str
    subject: Subject
    says: str
    fate: Fate
    rules: tuple[str, ...]
    """The ids of the findings, each once."""
    differs: str
    """What an oracle finds otherwise, and which oracle; empty if nothing."""


def flip(
    first: Machine,
    oracles: Sequence[Machine],
    base: Base,
    subject: Subject,
    randoms: Sequence[Random],
    *,
    pairs: bool = False,
) -> Iterator[Flipped]:
    """A flip for each source of random numbers; `pairs` flips two bits at once.

    Raises BadInput where the base is not sound or has nothing of the kind, MachineError where no machine can walk it.
    """
    found = check.check(base.handover, first.run(base.handover))
    if found:
        raise BadInput(f"{base.says} is not sound: {found[0].message}", source="flips")
    sound = {each.name: _end(each, base.handover) for each in oracles}
    for random in randoms:
        it = broken(base, subject, random)
        if pairs:
            it = _again(base, it, subject, random)
        yield _judged(first, oracles, sound, base, subject, it)


def _again(base: Base, once: Broken, subject: Subject, random: Random) -> Broken:
    """A second bit on top of the first."""
    second = broken(base.over(once.handover), subject, random)
    return Broken(
        handover=second.handover,
        says=f"{once.says}, and {second.says}",
        places=(*once.places, *second.places),
    )


def _end(machine: Machine, handover: Handover) -> End | None:
    try:
        run = machine.run(handover)
    except TightropeError:
        return None
    end = end_of(handover, run)
    if isinstance(run.memory, Ram):
        run.memory.clear()
    return end


def _judged(
    first: Machine,
    oracles: Sequence[Machine],
    sound: dict[str, End | None],
    base: Base,
    subject: Subject,
    it: Broken,
) -> Flipped:
    rules: tuple[str, ...] = ()
    problem = ""
    try:
        run = first.run(it.handover)
        rules = tuple(dict.fromkeys(each.rule for each in check.check(it.handover, run)))
        if isinstance(run.memory, Ram):
            run.memory.clear()
    except MachineError as err:
        rules = tuple(dict.fromkeys(each.rule for each in check.laid(it.handover)[1]))
        problem = "" if rules else str(err)
    differs = ""
    for oracle in oracles:
        before = sound[oracle.name]
        after = _end(oracle, it.handover) if before else None
        told = differ(before, after, it.places) if before and after else None
        if told:
            differs = f"{oracle.name}: {told}"
            break
    if problem:
        fate = Fate.ERROR
    elif rules:
        fate = Fate.SEEN if differs else Fate.ALARM
    else:
        fate = Fate.UNSEEN if differs else Fate.HARMLESS
    return Flipped(
        base=base.says,
        subject=subject,
        says=it.says,
        fate=fate,
        rules=rules,
        differs=problem or differs,
    )
