"""A crashed kernel's page tables: what they map, what is wrong, what differs from another core's.

Rules: the sheet is for people; the facts are the same as numbers, addresses and sizes in bytes, and
their keys do not change between cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict, assert_never

from tightrope.model.dump import Core, Kind
from tightrope.model.pgd import Change, Pgd, Range, Wholeness
from tightrope.model.planned import Planned
from tightrope.model.sheet import Line, Pairs, Section, Sheet, Span, Text, Tone
from tightrope.views import words
from tightrope.views.view import View

_NAME_COLUMNS = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """Tables, and what more was asked of them."""

    pgd: Pgd
    ranges: Sequence[Range] | None = None
    """What is mapped where, None unless it was asked for."""
    changes: Sequence[Change] | None = None
    """What `other` maps differently, None unless it was asked for."""
    other: str = ""
    plan: Planned | None = None
    """The dump held against a host file, None unless it was asked for."""


def sheet(looked: Looked) -> Sheet:
    """The facts and the verdict; ranges and changes where they were asked for."""
    sections = [Section(None, (Pairs(rows=tuple(_rows(looked.pgd)), names=_NAME_COLUMNS),))]
    if looked.ranges is not None:
        title = "ranges: linear, physical, size, rights (write, execute, user, global)"
        sections.append(Section(title, tuple(Line(_range(each), 2) for each in looked.ranges)))
    if looked.changes is not None:
        count = words.count(len(looked.changes), "change")
        title = f"from {looked.pgd.core.source} to {looked.other}: {count}"
        sections.append(Section(title, tuple(_changes(looked.changes))))
    if looked.plan is not None:
        count = words.count(len(looked.plan.differ), "difference")
        title = f"the dump and the plan, {looked.plan.source}: {count}"
        rows = (
            *(("differs", each) for each in looked.plan.differ),
            *(("agrees", each) for each in looked.plan.agree),
        )
        sections.append(Section(title, (Pairs(rows=rows, names=_NAME_COLUMNS),)))
    return Sheet(tuple(sections), headline=headline(looked.pgd))


def headline(pgd: Pgd) -> Text:
    """Whose tables, and which of the three answers."""
    tone = {Wholeness.WHOLE: Tone.GOOD, Wholeness.NOT_WHOLE: Tone.WORST}.get(pgd.answer, Tone.HEAD)
    why = next(iter((*pgd.faults, *pgd.doubts)), "")
    return (f"{pgd.core.source}: ", Span(_verdict(pgd), tone), f": {why}" if why else "")


def _changes(changes: Sequence[Change]) -> Iterator[Line]:
    for change in changes:
        yield from (Line(f"{mark} {_range(each)}", 2) for mark, each in _sides(change))


class ExtentFacts(TypedDict):
    start: int
    size: int


class RootFacts(TypedDict):
    phys: int
    mode: str
    how: str


class SizeFacts(TypedDict):
    size: int
    count: int


class RangeFacts(TypedDict):
    virt: int
    phys: int
    size: int
    rights: str


class ChangeFacts(TypedDict):
    kind: str
    before: RangeFacts | None
    after: RangeFacts | None


class PlanFacts(TypedDict):
    host: str
    may_write: list[ExtentFacts]
    agree: list[str]
    differ: list[str]


class PgdFacts(TypedDict):
    """Everything that `tightrope pgd --json` prints."""

    source: str
    kernel: str | None
    cpus: int
    memory: list[ExtentFacts]
    root: RootFacts
    tables: int
    mappings: int
    mappings_by_size: list[SizeFacts]
    bytes_mapped: int
    held: int
    partly: int
    elsewhere: int
    missing_tables: int
    reserved_entries: int
    untold_tables: int
    whole: bool | None
    faults: list[str]
    doubts: list[str]
    left_out: list[str]
    ranges: list[RangeFacts] | None
    other: str | None
    changes: list[ChangeFacts] | None
    plan: PlanFacts | None


def facts(looked: Looked) -> PgdFacts:
    """The same as plain data; what was not asked for is None."""
    pgd = looked.pgd
    return {
        "source": pgd.core.source,
        "kernel": _kernel(pgd),
        "cpus": pgd.core.notes.cpus,
        "memory": [{"start": e.start, "size": e.size} for e in pgd.core.extents],
        "root": {"phys": pgd.root.phys, "mode": pgd.root.paging.value, "how": pgd.root.how},
        "tables": pgd.found.tables,
        "mappings": pgd.mappings,
        "mappings_by_size": [{"size": s, "count": n} for s, n in sorted(pgd.sizes.items())],
        "bytes_mapped": pgd.bytes_mapped,
        "held": pgd.held,
        "partly": pgd.partly,
        "elsewhere": pgd.elsewhere,
        "missing_tables": pgd.found.missing.count,
        "reserved_entries": pgd.found.reserved.count,
        "untold_tables": pgd.found.untold.count,
        "whole": None if pgd.answer is Wholeness.UNTOLD else pgd.whole,
        "faults": list(pgd.faults),
        "doubts": list(pgd.doubts),
        "left_out": [*pgd.root.settled, *pgd.core.unused],
        "ranges": None if looked.ranges is None else [_plain(each) for each in looked.ranges],
        "other": looked.other or None,
        "changes": None
        if looked.changes is None
        else [
            {
                "kind": each.kind.value,
                "before": None if each.before is None else _plain(each.before),
                "after": None if each.after is None else _plain(each.after),
            }
            for each in looked.changes
        ],
        "plan": None if looked.plan is None else _plan(looked.plan),
    }


def _plan(plan: Planned) -> PlanFacts:
    return {
        "host": plan.source,
        "may_write": [{"start": each.start, "size": each.size} for each in plan.writes],
        "agree": list(plan.agree),
        "differ": list(plan.differ),
    }


def _rows(pgd: Pgd) -> Iterator[tuple[str, str]]:
    core = pgd.core
    memory = sum(each.size for each in core.extents)
    yield (
        "core",
        f"{core.source}: {words.size(memory)} of memory in {words.count(len(core.extents), 'piece')},"
        f" {words.count(core.notes.cpus, 'CPU')}, {format_of(core)}",
    )
    yield "kernel", _kernel(pgd) or "not named"
    yield "pgd", f"{pgd.root.phys:#x}: {pgd.root.how}"
    sizes = ", ".join(f"{n:,} of {words.size(size)}" for size, n in sorted(pgd.sizes.items()))
    tables = words.count(pgd.found.tables, "table")
    yield "mappings", f"{pgd.mappings:,} in {tables}" + (f": {sizes}" if sizes else "")
    yield "mapped", f"{words.size(pgd.bytes_mapped)} of linear addresses"
    yield "hold", f"{pgd.held:,} lead into memory that the core holds"
    if pgd.partly:
        yield "", f"{pgd.partly:,} lead partly into it"
    yield "", f"{pgd.elsewhere:,} lead elsewhere: devices, holes, memory that was not dumped"
    yield "verdict", _verdict(pgd)
    for each in (*pgd.faults, *pgd.doubts):
        yield "", each
    for number, each in enumerate((*pgd.root.settled, *core.unused)):
        yield "" if number else "left out", each


def format_of(core: Core) -> str:
    """The dump's format in words."""
    container = core.container
    words = [f"ELF{core.bits}" if container.kind is Kind.ELF else container.kind.value]
    words += [f"by {each.value}" for each in container.compression]
    return ("flattened " if container.flattened else "") + " ".join(words)


def _verdict(pgd: Pgd) -> str:
    match pgd.answer:
        case Wholeness.WHOLE:
            return "all tables are whole"
        case Wholeness.UNTOLD:
            return pgd.answer.value
        case Wholeness.NOT_WHOLE:
            missing, reserved = pgd.found.missing.count, pgd.found.reserved.count
            found = [words.count(missing, "missing table")] if missing else []
            place = words.count(reserved, "place")
            found += [f"reserved bits set in {place}"] if reserved else []
            return ", ".join([pgd.answer.value, *found])
        case _:
            assert_never(pgd.answer)


def _kernel(pgd: Pgd) -> str | None:
    """OSRELEASE of VMCOREINFO; a core may hold anything there."""
    release = pgd.core.notes.vmcoreinfo.get("OSRELEASE")
    return release if release is None or release.isprintable() else repr(release)


def _range(each: Range) -> str:
    return f"{each.virt:#18x}  {each.phys:#14x}  {words.size(each.size):>10}  {each.rights}"


def _sides(change: Change) -> Iterator[tuple[str, Range]]:
    """As `diff` writes it: what was, then what is."""
    if change.before is not None:
        yield "-", change.before
    if change.after is not None:
        yield "+", change.after


def _plain(each: Range) -> RangeFacts:
    return {"virt": each.virt, "phys": each.phys, "size": each.size, "rights": each.rights}


VIEW = View(name="pgd", version=1, shape=PgdFacts, sheet=sheet, facts=facts)
