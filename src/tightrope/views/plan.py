"""A plan: where every byte goes, and why.

Rules: no run has taken place; nothing here pretends that one has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypedDict

from tightrope.memory import PAGE_SIZE, union
from tightrope.model import ZERO_FRAME, Plan
from tightrope.model.sheet import Line, Section, Sheet, Span, Text, Tone
from tightrope.views import words
from tightrope.views.pictures import memory_map
from tightrope.views.view import View

MOST_EXTENTS = 12
"""Extents of one kind that are listed before the rest is only counted."""


def sheet(plan: Plan) -> Sheet:
    """The whole screen."""
    title = f"plan for {plan.image.source} on {plan.host.source}"
    return Sheet(
        (
            Section(title, _lines(_heading(plan), indent=0)),
            Section("destinations", _lines(_destinations(plan))),
            Section("sources", _lines(_sources(plan))),
            Section("handover", _lines(_handover(plan))),
            Section("page_table_b has to map, each address to itself", _lines(_identity(plan))),
            Section("memory", (memory_map(plan.host, plan),), detail=True),
        ),
        headline=headline(plan),
    )


def headline(plan: Plan) -> Text:
    """What fits where, and how much of it has to be copied."""
    pages = len(plan.destinations)
    return (
        Span("It fits", Tone.GOOD),
        f": {plan.image.source} on {plan.host.source}: {words.count(pages, 'page')},"
        f" {pages - plan.in_place:,} to copy; nothing was run",
    )


def _heading(plan: Plan) -> Iterator[str]:
    if plan.crash:
        yield words.crash_kexec(plan)
    for remark in plan.image.remarks:
        yield f"the file: {remark}"


def _lines(texts: Iterable[str], *, indent: int = 2) -> tuple[Line, ...]:
    return tuple(Line(text, indent) for text in texts)


def _destinations(plan: Plan) -> Iterator[str]:
    for segment in plan.segments:
        extent = segment.destination
        zeros = extent.size - len(segment.data)
        tail = f", then {words.size(zeros)} of zeros" if zeros else ""
        yield f"[{extent.start:#12x}, {extent.end:#12x})  {segment.name}: {segment.why}"
        yield f"{'':<28}{words.size(len(segment.data))} of data{tail}"


def _sources(plan: Plan) -> Iterator[str]:
    moved = plan.sources[plan.destinations != plan.sources]
    yield (
        f"{words.count(len(plan.destinations), 'page')}: {plan.in_place:,} in place already,"
        f" {len(moved):,} to copy ({words.size(len(moved) * PAGE_SIZE)})"
    )
    moved = moved[moved != ZERO_FRAME]
    if len(moved):
        yield (
            f"the frames to copy from lie in [{int(moved.min()) * PAGE_SIZE:#x},"
            f" {(int(moved.max()) + 1) * PAGE_SIZE:#x}), free in the old kernel and nobody's destination"
        )


def _handover(plan: Plan) -> Iterator[str]:
    yield f"V {plan.relocation:#x}   where the old kernel has its relocation code"
    yield f"P {plan.control_page:#x}   the control page"
    yield (
        f"page list: head {plan.head:#x}, {words.count(len(plan.list_pages), 'page')};"
        f" {words.size(sum(each.size for each in plan.spare))} set aside for page tables"
    )
    given = f", boot_params {plan.boot_params:#x}" if "rsi" in plan.arguments else ""
    yield f"entry stub {plan.entry:#x}, kernel {plan.kernel_entry:#x}{given}"
    yield f"entered by {plan.protocol.value}, {plan.entry_bits}-bit, with {words.arguments(plan)}"
    yield f"command line: {plan.command_line!r}"


def _identity(plan: Plan) -> Iterator[str]:
    for what in dict.fromkeys(each.what for each in plan.identity):
        extents = union(each.extent for each in plan.identity if each.what == what)
        for extent in extents[:MOST_EXTENTS]:
            yield f"[{extent.start:#12x}, {extent.end:#12x})  {what}"
        if len(extents) > MOST_EXTENTS:
            yield f"and {len(extents) - MOST_EXTENTS:,} more extents: {what}"


class SegmentFacts(TypedDict):
    name: str
    start: int
    size: int
    data: int
    why: str


class ListFacts(TypedDict):
    head: int
    pages: list[int]


class IdentityFacts(TypedDict):
    start: int
    size: int
    what: str


Segments = list[SegmentFacts]
Identities = list[IdentityFacts]
Remarks = list[str]
# `list` is a key below.


class PlanFacts(TypedDict):
    """Everything that `tightrope plan --json` prints."""

    image: str
    remarks: Remarks
    """What a reader should know of the image's file."""
    host: str
    crash: bool
    segments: Segments
    control_page: int
    relocation: int
    entry: int
    kernel_entry: int
    entry_bits: int
    protocol: str
    boot_params: int | None
    arguments: dict[str, int]
    command_line: str
    list: ListFacts
    pages: int
    pages_in_place: int
    identity: Identities


def facts(plan: Plan) -> PlanFacts:
    """The plan as numbers."""
    return {
        "image": plan.image.source,
        "remarks": [*plan.image.remarks],
        "host": plan.host.source,
        "crash": plan.crash,
        "segments": [
            {
                "name": segment.name,
                "start": segment.destination.start,
                "size": segment.destination.size,
                "data": len(segment.data),
                "why": segment.why,
            }
            for segment in plan.segments
        ],
        "control_page": plan.control_page,
        "relocation": plan.relocation,
        "entry": plan.entry,
        "kernel_entry": plan.kernel_entry,
        "entry_bits": plan.entry_bits,
        "protocol": plan.protocol.value,
        "boot_params": plan.arguments.get("rsi"),
        "arguments": dict(plan.arguments),
        "command_line": plan.command_line,
        "list": {"head": plan.head, "pages": sorted(plan.list_pages)},
        "pages": len(plan.destinations),
        "pages_in_place": plan.in_place,
        "identity": [
            {"start": each.extent.start, "size": each.extent.size, "what": each.what}
            for each in plan.identity
        ],
    }


VIEW = View(name="plan", version=1, shape=PlanFacts, sheet=sheet, facts=facts)
