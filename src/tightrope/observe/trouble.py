"""An exception as a watcher meets it, before anybody follows it to a handler.

Rules: a value; what becomes of it is `delivery`'s.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.x86.walk import Access, TableVisit


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """An exception as it was met: `address` is linear, for page faults."""

    vector: int
    error_code: int | None
    address: int | None
    access: Access | None
    reason: str
    visits: tuple[TableVisit, ...] = ()
    rip: int | None = None
    """Where it differs from the CPU's: INT n leaves rip behind itself."""
    explained: bool = True
    """False where the CPU raised it and nothing here says why."""
