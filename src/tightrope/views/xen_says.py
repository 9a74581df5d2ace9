"""What a Xen says of itself: the shape of `tightrope perform xen --json`.

Rules: `perform` makes these facts with nothing but Python at hand; the shape is written down here,
so that it is exported with the others.
"""

from __future__ import annotations

from typing import TypedDict


class SaidExtentFacts(TypedDict):
    start: int
    size: int


class SaidMemoryFacts(SaidExtentFacts):
    type: int


class XenSaysFacts(TypedDict):
    """Everything that `tightrope perform xen --json` prints without a FILE."""

    version: str
    relocation: int | None
    ranges: dict[str, SaidExtentFacts]
    cpu_notes: list[SaidExtentFacts]
    memory: list[SaidMemoryFacts]
    loaded: dict[str, bool]
    cpuinfo: dict[str, str]


NAME, VERSION = "perform xen", 1
