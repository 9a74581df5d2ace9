"""What a dump says of the kernel that died, for people and for programs.

Rules: the sheet is for people; the facts are the same with addresses and sizes as numbers.  A name
or a line that came out of a dump is shown with what cannot be printed escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypedDict

from tightrope.errors import visible
from tightrope.model.dead import Belonging, Dead, Match, Stopped
from tightrope.model.sheet import Line, Pairs, Section, Sheet, Span, Text, Tone
from tightrope.printk import Record, lines
from tightrope.views import words
from tightrope.views.pgd import format_of
from tightrope.views.view import View

LOG_LINES = 12
"""Of the log's end, unless more was asked for."""
_NAMES = 10
_CPUS = 4
"""Whose registers are printed; a program gets those of all."""
_TAINTS = (
    ("P", "a proprietary module"),
    ("F", "a module was forced in"),
    ("S", "a CPU out of its specification"),
    ("R", "a module was forced out"),
    ("M", "a machine check"),
    ("B", "a bad page"),
    ("U", "userspace asked for it"),
    ("D", "it died before: an oops or a BUG"),
    ("A", "an ACPI table was overridden"),
    ("W", "a warning"),
    ("C", "a staging driver"),
    ("I", "a workaround for the firmware"),
    ("O", "a module from outside the tree"),
    ("E", "an unsigned module"),
    ("L", "a soft lockup"),
    ("K", "a live patch"),
    ("X", "the distribution's own"),
    ("T", "built with struct randomisation"),
    ("N", "an in-kernel test"),
    ("J", "a debug command of a device's firmware"),
)
"""Bit 0 and on (Linux Documentation/admin-guide/tainted-kernels.rst)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """A dead kernel, and how much of its log is wanted."""

    dead: Dead
    log_lines: int | None = LOG_LINES
    """None: all of it."""


def sheet(told: Told) -> Sheet:
    """Whose dump it is, where its CPUs stood, the log's end, and the CPUs' registers."""
    dead = told.dead
    sections = [Section(None, (Pairs(rows=tuple(_rows(dead)), names=_NAMES),))]
    if dead.log:
        said = [line for record in dead.log for line in lines(record)]
        last = said if told.log_lines is None else said[-told.log_lines :]
        title = f"log: the last of {words.count(len(said), 'line')}"
        sections.append(Section(title, tuple(Line(each, 2) for each in last)))
    left = [(number, cpu) for number, cpu in enumerate(dead.cpus) if cpu.registers]
    for number, cpu in left[:_CPUS]:
        lined = (Line(each, 2) for each in _registers(cpu))
        sections.append(Section(f"CPU {number}: registers", tuple(lined)))
    if len(left) > _CPUS:
        rest = f"those of {words.count(len(left) - _CPUS, 'more CPU', 'more CPUs')}: --json"
        sections.append(Section(None, (Line(rest),)))
    return Sheet(tuple(sections), headline=headline(dead))


def headline(dead: Dead) -> Text:
    """The release, when it died and of what."""
    what = visible(dead.panic) if dead.panic else "why it died is not in the dump"
    when = f", {_time(dead.crashed)}" if dead.crashed is not None else ""
    start = f"{dead.core.source}: Linux {visible(dead.release or 'of an unknown release')}{when}: "
    if dead.match is not None and dead.match.belonging is Belonging.APART:
        return (start, Span(f"not of {dead.match.source}", Tone.WORST), f": {dead.match.differ[0]}")
    return (start, Span(what, Tone.HEAD))


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"at {seconds} s"


def _rows(dead: Dead) -> Iterator[tuple[str, str]]:
    yield "dump", f"{dead.core.source}: {format_of(dead.core)}"
    yield "kernel", visible(dead.release) if dead.release else "not named"
    yield "crashed", "no time in the dump" if dead.crashed is None else _time(dead.crashed)
    yield "panic", visible(dead.panic) if dead.panic else "no line of the log says why"
    yield "tainted", _tainted(dead.tainted)
    yield "memory", f"{words.size(dead.held)} in the dump, {words.size(dead.left_out)} left out"
    for number, cpu in enumerate(dead.cpus):
        yield f"CPU {number}", _stood(cpu)
    if not dead.cpus:
        yield "CPUs", "no CPU left a note"
    yield from _matched(dead.match)
    for each in (*dead.untold, *dead.core.unused):
        yield "not told", each


def _tainted(mask: int | None) -> str:
    if mask is None:
        return "not known"
    said = [f"{letter}, {what}" for bit, (letter, what) in enumerate(_TAINTS) if mask >> bit & 1]
    return "; ".join(said) or "no"


def _stood(cpu: Stopped) -> str:
    if not cpu.registers:
        return "left no registers"
    where = "in a process's own code" if cpu.user else visible(cpu.place or f"{cpu.at:#x}")
    return f"{where}, process {cpu.pid}"


def _registers(cpu: Stopped) -> Iterator[str]:
    """Names and bare hexadecimal, in the order of the note, as many a line as 80 columns take."""
    digits, columns = (16, 3) if "rip" in cpu.registers else (8, 4)
    cells = [f"{name:>8} {value:0{digits}x}" for name, value in cpu.registers.items()]
    for at in range(0, len(cells), columns):
        yield " ".join(cells[at : at + columns])


def _matched(match: Match | None) -> Iterator[tuple[str, str]]:
    if match is None:
        return
    yield "host", f"this dump and {match.source}: {match.belonging.value}"
    for each in match.differ:
        yield "", f"differs: {each}"
    for each in match.agree:
        yield "", f"agrees: {each}"


class CpuFacts(TypedDict):
    pid: int
    at: int
    user: bool
    place: str | None
    registers: dict[str, int]


class RecordFacts(TypedDict):
    sequence: int
    nanoseconds: int
    level: int | None
    caller: int | None
    text: str


class MatchFacts(TypedDict):
    host: str
    together: bool | None
    agree: list[str]
    differ: list[str]


class DumpInfoFacts(TypedDict):
    """Everything that `tightrope dump info --json` prints."""

    source: str
    format: str
    kernel: str | None
    crashed: int | None
    panic: str | None
    tainted: int | None
    held: int
    left_out: int
    cpus: list[CpuFacts]
    log: list[RecordFacts]
    belongs: MatchFacts | None
    not_told: list[str]


def _record(record: Record) -> RecordFacts:
    return {
        "sequence": record.sequence,
        "nanoseconds": record.nanoseconds,
        "level": record.level,
        "caller": record.caller,
        "text": record.text,
    }


def facts(told: Told) -> DumpInfoFacts:
    """The same as plain data, with all of the log."""
    dead, match = told.dead, told.dead.match
    return {
        "source": dead.core.source,
        "format": format_of(dead.core),
        "kernel": dead.release,
        "crashed": dead.crashed,
        "panic": dead.panic,
        "tainted": dead.tainted,
        "held": dead.held,
        "left_out": dead.left_out,
        "cpus": [
            {
                "pid": each.pid,
                "at": each.at,
                "user": each.user,
                "place": each.place,
                "registers": dict(each.registers),
            }
            for each in dead.cpus
        ],
        "log": [_record(each) for each in dead.log],
        "belongs": None
        if match is None
        else {
            "host": match.source,
            "together": None
            if match.belonging is Belonging.UNTOLD
            else match.belonging is Belonging.TOGETHER,
            "agree": list(match.agree),
            "differ": list(match.differ),
        },
        "not_told": [*dead.untold, *dead.core.unused],
    }


VIEW = View(name="dump info", version=1, shape=DumpInfoFacts, sheet=sheet, facts=facts)
