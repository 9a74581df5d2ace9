"""How far a rehearsal goes, and what is heard on the way.

    ENTRY                  the new kernel's first instruction
    Spoken(seconds)        on from there until it has spoken, or is not going to
    Userspace(token, ...)  on until its init says a word; only a whole machine gets there

Rules: one of them is asked for, and whoever asks matches them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from tightrope.deeds import spoken
from tightrope.errors import MissingPart
from tightrope.machine.port import Machine, Progress, WholeMachine
from tightrope.model import Console, Finding, Image

LISTENING = 900.0
"""Seconds that a new kernel is listened to where nobody says how long."""


@dataclass(frozen=True, slots=True)
class Entry:
    """The walk alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spoken:
    """Until the new kernel has spoken: Linux its banner, another kernel a word."""

    seconds: float = LISTENING


@dataclass(frozen=True, kw_only=True, slots=True)
class Userspace:
    """Until a line of the console has `token`, which only an init says."""

    token: str
    seconds: float = LISTENING


Until = Entry | Spoken | Userspace
ENTRY = Entry()


def refuse(until: Until, machine: Machine) -> None:
    """Raises MissingPart where a machine does not get so far."""
    if isinstance(until, Userspace) and not isinstance(machine, WholeMachine):
        raise MissingPart(f"the {machine.name} has no devices: a userspace needs --on qemu")


def listen(machine: Machine, until: Until, image: Image, progress: Progress) -> Console | None:
    """Go on from the entry, where the machine stands; who spoke is said in the answer."""
    match until:
        case Entry():
            return None
        case Spoken(seconds=seconds):
            ends = spoken.ends_for(image)
            heard = machine.console(seconds=seconds, ends=ends, progress=progress)
        case Userspace(token=token, seconds=seconds):
            refuse(until, machine)
            assert isinstance(machine, WholeMachine)
            heard = machine.userspace(token, seconds=seconds, progress=progress)
        case _:
            assert_never(until)
    return spoken.attributed(heard, image)


def judged(heard: Console | None, until: Until, image: Image) -> Iterator[Finding]:
    """What is wrong with what was heard."""
    if heard is not None and isinstance(until, Spoken):
        yield from spoken.judged(heard, image)
    if heard is not None and isinstance(until, Userspace):
        yield from spoken.reached(heard, until.token)
