"""Whether a loader's program goes round and round: nothing new for a while.

Rules: counts and addresses; what is done then is `unseen`'s.
"""

from __future__ import annotations

from tightrope.memory import Extent
from tightrope.model import Stretch
from tightrope.observe.familiar import Familiar

NEVER = 1 << 62
SETTLED = 20_000
"""Instructions without a new one among them, after which it goes round and round."""


class Settled:
    """What is counted of one walk."""

    def __init__(self, program: Extent, saves: frozenset[int], familiar: Familiar) -> None:
        self.program = program
        self.saves = saves
        """Frame numbers into which it saves low memory."""
        self._familiar, self._limit = familiar, familiar.limit
        self.pause = NEVER
        """The instruction from which on `stands` is to be asked."""
        self.now = False
        """The walk was stopped, before an instruction of the program, with only known ones before
        it."""
        self.rip = 0
        """Where it goes on then."""
        self.stretches: list[Stretch] = []

    def new(self, rip: int, index: int) -> None:
        """An instruction that was not executed before."""
        if self.program.size:
            self._pause(index + SETTLED if rip in self.program else NEVER)

    def stands(self, rip: int) -> bool:
        """Whether to stop here."""
        self.now, self.rip = rip in self.program, rip
        if self.now:
            self._pause(NEVER)
        return self.now

    def again(self, index: int) -> None:
        """A stretch is over, at the fence or not: what goes round may do so for long still."""
        self._pause(index + SETTLED)

    def _pause(self, at: int) -> None:
        self.pause = at
        self._familiar.limit = min(self._limit, at)
