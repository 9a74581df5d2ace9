"""What the new kernel finds at its first instruction, and what is left of the old one.

    stop        entry, or how it ended otherwise
    registers   all but CR2, which is only defined after a page fault
    segments    the descriptors that the selectors name
    memory      every destination, and every piece of the old kernel

Rules: an end is compared with another as a whole; memory that was flipped itself is left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from tightrope.check.alike import Bytes
from tightrope.errors import MachineError
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Handover, Registers, Run, Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """Where a walk ended, as far as anybody can see it."""

    stop: Stop
    state: tuple[tuple[str, object], ...]
    memory: tuple[tuple[Extent, Bytes], ...]


def end_of(handover: Handover, run: Run) -> End:
    """The end of a run.  Where it did not get there, only that counts."""
    if run.stop is not Stop.ENTRY:
        return End(stop=run.stop, state=(), memory=())
    registers = run.registers
    state: list[tuple[str, object]] = []
    for field in fields(Registers):
        value = getattr(registers, field.name)
        if field.name == "cr2":
            continue
        if field.name in ("gdt", "idt") and value[1] == 0:
            value = (0, 0)  # where a table without a single entry begins is nobody's business
        state.append(
            (field.name, tuple(sorted(value.items())) if isinstance(value, dict) else value)
        )
    # What a null selector names is no part of a segment.
    state.append(("descriptors", tuple(sorted(run.descriptors.items()))))
    return End(stop=run.stop, state=tuple(state), memory=tuple(_memory(handover, run)))


def _memory(handover: Handover, run: Run) -> list[tuple[Extent, Bytes]]:
    places = [each.destination for each in handover.intent.segments]
    places += [each.extent for each in handover.world.pieces]
    out = []
    for place in sorted(set(places)):
        try:
            data = np.frombuffer(run.memory.read(place), np.uint8).copy()
        except MachineError:
            continue
        if place.start == handover.intent.stub_at & -PAGE_SIZE:
            data[-64:] = 0  # the stub's stack
        out.append((place, data))
    return out


def differ(one: End, other: End, flipped: Sequence[Extent]) -> str | None:
    """What of the second end is not as in the first, but for what was flipped; None if nothing is."""
    if one.stop is not other.stop:
        return f"ends in {other.stop.value}"
    if one.state != other.state:
        name = next(
            a for (a, was), (_, now) in zip(one.state, other.state, strict=True) if was != now
        )
        was, now = dict(one.state)[name], dict(other.state)[name]
        return f"{name}: {_short(was, now)}"
    there = dict(other.memory)
    for place, was in one.memory:
        now = there.get(place)
        if now is None:
            return f"{place} cannot be read"
        for at in np.nonzero(was != now)[0].tolist():
            if not any(place.start + at in each for each in flipped):
                return f"memory at {place.start + at:#x}"
    return None


def _short(was: object, now: object) -> str:
    if isinstance(was, tuple) and isinstance(now, tuple) and was and isinstance(was[0], tuple):
        before, after = dict(was), dict(now)
        names = [each for each in before if before[each] != after.get(each)]
        return ", ".join(f"{each} {before[each]:#x} -> {after.get(each, 0):#x}" for each in names)
    return f"{was} -> {now}"
