"""Plain instructions that were met before: all that is to be known of them is that they run.

    met in this walk        `rips`: written into the trace
    known from another      `ready`: met now, which is told once; then one of `rips`

Rules: most of a walk is a loop of such, so whoever comes to one does no more than `Familiar` says.
What makes an instruction plain, and when none may be passed over, is the watch's to say.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field

from tightrope.observe.decode import Operation

NONE: frozenset[int] = frozenset()


def nobody(_rip: int, _operation: Operation) -> None:
    """Who meets an instruction when nobody watches."""


@dataclass(slots=True)
class Familiar:
    """An address in `rips` is written into the trace, as long as that is shorter than `limit`.

    `rips` is NONE while none may be passed over; then `ready` is not asked either.
    """

    rips: Set[int]
    trace: array[int]
    limit: int
    meet: Callable[[int, Operation], object] = nobody
    """Told of an address of `ready` ahead of its instruction."""
    ready: dict[int, Operation] = field(default_factory=dict)

    def expect(self, known: Mapping[int, Operation], *, but: Set[int]) -> None:
        """What another walk has decoded in a page that is executed now; `but` is looked at."""
        self.ready.update(known)
        for rip in self.ready.keys() & but:
            del self.ready[rip]

    def known(self, rip: int) -> bool:
        """Whether the instruction at `rip` is met by this, and in the trace: it was one of
        `ready`."""
        trace, ready = self.trace, self.ready
        # A jump backwards may lead to a loop's head.
        if self.rips is NONE or rip not in ready or rip < trace[-1] or len(trace) >= self.limit:
            return False
        self.meet(rip, ready.pop(rip))
        trace.append(rip)
        return True
