"""The smallest crash region in which a crash kernel still comes as far as it does in its own.

Rules: `narrowed` knows nothing of kernels: it asks a question of sizes.  That more memory never
hurts is assumed, and all that was tried is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tightrope.deeds import defaults
from tightrope.deeds.kdump_check.deed import Asked, check
from tightrope.errors import HostError
from tightrope.machine.port import Progress, no_progress
from tightrope.memory import Extent, align_up
from tightrope.model import Host, Outcome
from tightrope.model.crash_boot import CrashBoot, Smallest

MIB = 1 << 20
STEP = 8 * MIB
"""How near the smallest one is found."""
LEAST_MARGIN = 32 * MIB
MOST = 4096 * MIB
"""No crash kernel of a PC takes more."""


def narrowed(
    works: Callable[[int], bool], *, known: int | None, guess: int, step: int, most: int = MOST
) -> tuple[int | None, tuple[tuple[int, bool], ...]]:
    """The smallest multiple of `step` that works, by bisection, and all that was tried.

    `known` is a size that works, None where none is known; `guess` is where to begin below it.
    None where nothing up to `most` works.
    """
    tried: list[tuple[int, bool]] = []

    def ask(size: int) -> bool:
        tried.append((size, works(size)))
        return tried[-1][1]

    low, high = 0, known
    guess = max(align_up(guess, step), step)
    while high is None:
        if guess > most:
            return None, tuple(tried)
        if ask(guess):
            high = guess
        else:
            low, guess = guess, guess * 2
    high = align_up(high, step)
    at = min(guess, high - step)
    while high - low > step:
        if not low < at < high:
            at = (low + high) // 2 // step * step
        if ask(at):
            high = at
            # The guess was what was in use: what works is near it, until something has not.
            at = at - step if not low else (low + high) // 2 // step * step
        else:
            low = at
            at = (low + high) // 2 // step * step
    return high, tuple(tried)


def smallest(asked: Asked, first: CrashBoot, progress: Progress = no_progress) -> Smallest | None:
    """The smallest region for a crash kernel that was tried in its own already; None where none is
    enough."""
    wanted = first.reached if first.outcome is Outcome.HOLDS else None

    def works(size: int) -> bool:
        try:
            got = check(replace(asked, host=with_region(asked.host, size)), progress)
        except HostError:
            return False
        if got.outcome is not Outcome.HOLDS:
            return False
        return wanted is None or got.reached >= wanted

    known = first.used.region[0].size if first.outcome is Outcome.HOLDS else None
    peak = first.used.peak
    guess = known // 2 if known and peak is None else peak or 2 * first.used.region[0].size
    beside = sum(each.size for each in first.used.region[1:])
    size, tried = narrowed(works, known=known, guess=max(guess - beside, STEP), step=STEP)
    if size is None:
        return None
    return Smallest(
        size=size,
        step=STEP,
        tried=tried,
        advised=align_up(size + max(size // 4, LEAST_MARGIN), STEP),
    )


def with_region(host: Host, size: int) -> Host:
    """The host with its region so large: where it is, or where Linux would put it if it grows.

    Raises HostError where there is no room.
    """
    region = host.crash_region
    assert region is not None
    if size <= region.size:
        return replace(host, crash_region=Extent.sized(region.start, size))
    return defaults.with_crash_region(host, size)
