"""The machine port: one method to walk, one to listen.

Rules: a machine gets a finished `Handover` and gives back a `Run`; it finds nothing and judges
nothing.  `Run.sees` names what it observed.  `Run.blind` says what it could not see, in phrases for a
reader; no rule asks for them.  A machine that cannot be a given host, for want of a paging mode for
instance, raises CannotBe from `run` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from tightrope.model import Console, Handover, Run

Progress = Callable[[str, int, int], None]
"""(what is going on, done, of how many; 0 = unknown), called now and then during long work."""


def no_progress(what: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


class Machine(Protocol):
    """Something that can walk."""

    name: str

    def run(self, handover: Handover) -> Run:
        """Walk from V to the new kernel's first instruction, or to where it falls."""

    def close(self) -> None:
        """Give back processes, devices and memory; the machine is not used again."""

    def console(self, *, seconds: float, whole: bool, progress: Progress) -> Console:
        """Go on from the entry and listen to the first serial port.

        Ends with the first whole line, or with `whole` when the new kernel halts.  Only after a run that
        stopped at the entry.  Raises MachineError otherwise.
        """


@runtime_checkable
class WholeMachine(Machine, Protocol):
    """One that has all of a computer, so that a new kernel gets to its userspace."""

    def userspace(self, token: str, *, seconds: float, progress: Progress) -> Console:
        """Go on from the entry until a line of the console has `token`, which only an init says.

        `stopped` is the token then; else why it never came.  Raises MachineError as `console` does.
        """
