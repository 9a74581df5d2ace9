"""The machine port: one method to walk, one to listen.

Rules: a machine gets a finished `Handover` and gives back a `Run`; it finds nothing and judges
nothing.  `Run.sees` names what it observed.  `Run.blind` says what it could not see, in phrases for
a reader; no rule asks for them.  A machine that cannot be a given host, for want of a paging mode
for instance, raises CannotBe from `run` with the reason.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from tightrope.model import Console, Handover, Host, Run

Progress = Callable[[str, int, int], None]
"""(what is going on, done, of how many; 0 = unknown), called now and then during long work."""


Ends = Callable[[str], bool]
"""Whether a whole line of the console is the last one that is waited for."""


def first_line(_line: str) -> bool:
    """`Ends` of whoever wants one line."""
    return True


def never(_line: str) -> bool:
    """`Ends` of whoever wants all that is said."""
    return False


def no_progress(what: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


class Machine(Protocol):
    """Something that can walk."""

    name: str

    def run(self, handover: Handover) -> Run:
        """Walk from V to the new kernel's first instruction, or to where it falls."""

    def close(self) -> None:
        """Give back processes, devices and memory; the machine is not used again."""

    def console(self, *, seconds: float, ends: Ends, progress: Progress) -> Console:
        """Go on from the entry and listen to the first serial port.

        Until `ends` of a whole line, or until the new kernel says no more.  Only after a run that
        stopped at the entry.  Raises MachineError otherwise.
        """


@runtime_checkable
class WholeMachine(Machine, Protocol):
    """One that has all of a computer, so that a new kernel gets to its userspace."""

    def with_own_firmware(self, host: Host) -> Host:
        """The host with what this computer has in the place of its firmware and screen: a new
        kernel that is told of tables which are not there goes wrong where no handover is to blame.
        """

    def userspace(self, token: str, *, seconds: float, progress: Progress) -> Console:
        """Go on from the entry until a line of the console has `token`, which only an init says.

        `stopped` is the token then; else why it never came.  Raises MachineError as `console` does.
        """
