"""What follows from a host alone, worked out once for many handovers of it.

Rules: a host is frozen, so that the same object has the same answer; only the last one is kept, and
what is given out is frozen as well.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TypeVar

from tightrope.model.host import Host

T = TypeVar("T")


def once_a_host(work: Callable[[Host], T]) -> Callable[[Host], T]:
    """`work`, which is not done again while the same host is asked about.  An error is not kept."""
    last: tuple[Host, T] | None = None

    @wraps(work)
    def kept(host: Host) -> T:
        nonlocal last
        # Read once: another thread may ask about another host meanwhile.
        known = last
        if known is None or known[0] is not host:
            known = last = (host, work(host))
        return known[1]

    return kept
