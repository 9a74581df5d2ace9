"""Two runs of one handover, compared.

    verdict     the ids of the findings, of the rules that both machines could be asked
    fault       vector, error code, address, instruction
    registers   at the entry, all but CR2, which is only defined after a page fault
    memory      at the entry, every frame that either machine has written to

Rules: the first of two runs is the one that the other is compared with; nothing is explained here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from tightrope import check
from tightrope.errors import MachineError
from tightrope.memory import PAGE_SIZE, Extent
from tightrope.model import Fault, Finding, Registers, Run, Sight, Stop
from tightrope.observe.physical import Ram


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A run, and what the rules found in it."""

    run: Run
    findings: tuple[Finding, ...]

    @property
    def rules(self) -> tuple[str, ...]:
        """The ids of the findings, each once."""
        return tuple(dict.fromkeys(each.rule for each in self.findings))


def compare(one: Told, other: Told) -> Iterator[tuple[str, str, str, int | None]]:
    """(what, was, got, where): every difference between two runs."""
    yield from _verdicts(one, other)
    if one.run.stop is Stop.FAULT and other.run.stop is Stop.FAULT:
        yield from _faults(one.run, other.run)
    if one.run.stop is Stop.ENTRY and other.run.stop is Stop.ENTRY:
        yield from _registers(one.run.registers, other.run.registers)
        yield from _memory(one.run, other.run)


def _verdicts(one: Told, other: Told) -> Iterator[tuple[str, str, str, int | None]]:
    unasked = check.unasked(one.run).keys() | check.unasked(other.run).keys()
    was, got = (
        f"{each.run.stop.value}: {', '.join(r for r in sorted(each.rules) if r not in unasked)}"
        for each in (one, other)
    )
    if was != got:
        yield "verdict", was, got, None


def _told(fault: Fault) -> str:
    code = "-" if fault.error_code is None else f"{fault.error_code:#x}"
    address = "-" if fault.address is None else f"{fault.address:#x}"
    return f"vector {fault.vector}, error code {code}, address {address}, at {fault.rip:#x}"


def _faults(one: Run, other: Run) -> Iterator[tuple[str, str, str, int | None]]:
    blind = Sight.FAULTS not in one.sees & other.sees
    if blind or one.fault is None or other.fault is None:
        return
    was, got = _told(one.fault), _told(other.fault)
    if was != got:
        yield "fault", was, got, None


def _registers(one: Registers, other: Registers) -> Iterator[tuple[str, str, str, int | None]]:
    was, got = [], []
    for field in fields(Registers):
        before, after = getattr(one, field.name), getattr(other, field.name)
        if field.name == "cr2" or before == after:
            continue
        if isinstance(before, int):
            before, after = {field.name: before}, {field.name: after}
        elif isinstance(before, tuple):
            names = (f"{field.name} base", f"{field.name} limit")
            before, after = (dict(zip(names, each, strict=True)) for each in (before, after))
        for name in before:
            if before[name] != after[name]:
                was.append(f"{name} {before[name]:#x}")
                got.append(f"{name} {after[name]:#x}")
    if was:
        yield "registers", ", ".join(was), ", ".join(got), None


def _frames(run: Run) -> frozenset[int] | None:
    return run.memory.in_use() if isinstance(run.memory, Ram) else None


def _memory(one: Run, other: Run) -> Iterator[tuple[str, str, str, int | None]]:
    """Frame by frame; a machine that does not say which frames it has written is read where the
    other has.  What is memory of one machine alone, a PC's firmware for instance, is left out."""
    mine, theirs = _frames(one), _frames(other)
    for frame in sorted((mine or frozenset()) | (theirs or frozenset())):
        place = Extent.sized(frame * PAGE_SIZE, PAGE_SIZE)
        try:
            was, got = bytes(one.memory.read(place)), bytes(other.memory.read(place))
        except MachineError:
            continue
        if was != got:
            at = next(n for n in range(PAGE_SIZE) if was[n] != got[n]) & ~7
            where = place.start + at
            yield (
                "memory",
                f"{was[at : at + 8].hex()} at {where:#x}",
                f"{got[at : at + 8].hex()} at {where:#x}",
                where,
            )
