"""Plain instructions that were met before: all that is to be known of them is that they run.

Rules: most of a walk is a loop of such, so whoever comes to one does no more than `Familiar` says.
What makes an instruction plain, and when none may be passed over, is the watch's to say.
"""

from __future__ import annotations

from array import array
from collections.abc import Set
from dataclasses import dataclass

NONE: frozenset[int] = frozenset()


@dataclass(slots=True)
class Familiar:
    """An address in `rips` is written into the trace, as long as that is shorter than `limit`."""

    rips: Set[int]
    trace: array[int]
    limit: int
