"""Reading whatever a protocol hands over, at the entry or as it was loaded.

Rules: None where the protocol hands nothing over, or where it cannot be read: a rule of its own
says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tightrope.check.case import Case
from tightrope.check.told import boot_params
from tightrope.check.told.boot_params import ZeroPage
from tightrope.check.told.information import READERS
from tightrope.check.told.memory import Garbled, Told
from tightrope.errors import MachineError
from tightrope.memory import Extent
from tightrope.model import Handover, Memory, Protocol

LINUX = (Protocol.LINUX_64, Protocol.LINUX_32)


def _linux(memory: Memory, at: int) -> Told:
    return boot_params.read(memory, at).told(memory)


ALL: Mapping[Protocol, Callable[[Memory, int], Told]] = {
    **READERS,
    **dict.fromkeys(LINUX, _linux),
}


def told_at_entry(case: Case) -> Told | None:
    """What the new kernel makes of memory as the walk left it."""
    return case.once(_at_entry)


def told_as_loaded(case: Case) -> Told | None:
    """The same of the segments, before anything ran."""
    return case.once(_as_loaded)


def linux_page(case: Case) -> ZeroPage | str:
    """boot_params as the walk left them; why they cannot be read."""
    return case.once(_page)


def _page(case: Case) -> ZeroPage | str:
    try:
        return boot_params.read(case.run.memory, case.intent.boot_params)
    except (Garbled, MachineError) as err:
        return str(err)


def _at_entry(case: Case) -> Told | None:
    if case.intent.protocol not in LINUX:
        return _told(case, case.run.memory)
    page = linux_page(case)
    if isinstance(page, str):
        return None
    try:
        return page.told(case.run.memory)
    except (Garbled, MachineError, ValueError):
        return None


def _as_loaded(case: Case) -> Told | None:
    return _told(case, AsLoaded(case.handover))


def _told(case: Case, memory: Memory) -> Told | None:
    reader = ALL.get(case.intent.protocol)
    if reader is None:
        return None
    try:
        at = case.intent.boot_params if reader is _linux else case.intent.arguments["rbx"]
        return reader(memory, at)
    except (Garbled, MachineError, ValueError):
        return None


class AsLoaded:
    """Memory as the segments fill it, before anything ran."""

    def __init__(self, handover: Handover) -> None:
        self._segments = handover.segments

    def read(self, extent: Extent) -> memoryview:
        """Raises MachineError outside of one segment."""
        for each in self._segments:
            if each.destination.covers(extent):
                start = extent.start - each.destination.start
                part = bytes(each.data[start : start + extent.size])
                return memoryview(part.ljust(extent.size, b"\0"))
        raise MachineError(f"no segment has {extent}")

    def held(self, extent: Extent) -> tuple[Extent, ...]:
        """All of it."""
        return (extent,)

    def written(self) -> None:
        """Nobody has written to it."""
