"""What a Xen says of itself: the shape of `tightrope perform xen --json`, and its lines.

Rules: `perform` makes these facts with nothing but Python at hand; the shape is written down here,
so that it is exported with the others.
"""

from __future__ import annotations

from typing import TypedDict

from tightrope.memory import Extent


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


def told(said: XenSaysFacts) -> list[str]:
    """The facts as lines."""
    ranges = {name: _extent(each) for name, each in said["ranges"].items()}
    loaded = {name: "yes" if each else "no" for name, each in said["loaded"].items()}
    return [
        f"Xen {said['version']}",
        *(f"  ranges  {name:11} {text}" for name, text in ranges.items()),
        *(f"  loaded  {name:11} {text}" for name, text in loaded.items()),
        *(f"  cpu_notes {_extent(each)}" for each in said["cpu_notes"]),
        *(f"  memory    {_extent(each)} type {each['type']}" for each in said["memory"]),
    ]


def _extent(said: SaidExtentFacts) -> Extent:
    return Extent.sized(said["start"], said["size"])
