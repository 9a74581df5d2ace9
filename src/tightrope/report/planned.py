"""A plan for someone at a terminal: where every byte goes, and why.

Rules: no run has taken place; nothing here pretends that one has.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.memory import PAGE_SIZE, union
from tightrope.model import ZERO_FRAME, Plan
from tightrope.report import words

MOST_EXTENTS = 12
"""Extents of one kind that are listed before the rest is only counted."""


def text(plan: Plan) -> str:
    """The screen, without a line break at its end."""
    return "\n".join(_lines(plan))


def _lines(plan: Plan) -> Iterator[str]:
    host = plan.host
    yield f"plan for {plan.image.source} on {host.source}"
    if plan.crash:
        yield words.crash_kexec(plan)
    yield ""
    yield "destinations"
    for segment in plan.segments:
        extent = segment.destination
        zeros = extent.size - len(segment.data)
        tail = f", then {words.size(zeros)} of zeros" if zeros else ""
        yield f"  [{extent.start:#12x}, {extent.end:#12x})  {segment.name}: {segment.why}"
        yield f"  {'':<28}{words.size(len(segment.data))} of data{tail}"
    yield ""
    yield "sources"
    moved = plan.sources[plan.destinations != plan.sources]
    yield (
        f"  {words.count(len(plan.destinations), 'page')}: {plan.in_place:,} in place already,"
        f" {len(moved):,} to copy ({words.size(len(moved) * PAGE_SIZE)})"
    )
    moved = moved[moved != ZERO_FRAME]
    if len(moved):
        yield (
            f"  the frames to copy from lie in [{int(moved.min()) * PAGE_SIZE:#x},"
            f" {(int(moved.max()) + 1) * PAGE_SIZE:#x}), free in the old kernel and nobody's destination"
        )
    yield ""
    yield "handover"
    yield f"  V {plan.relocation:#x}   where the old kernel has its relocation code"
    yield f"  P {plan.control_page:#x}   the control page"
    yield (
        f"  page list: head {plan.head:#x}, {words.count(len(plan.list_pages), 'page')};"
        f" {words.size(sum(each.size for each in plan.spare))} set aside for page tables"
    )
    given = f", boot_params {plan.boot_params:#x}" if "rsi" in plan.arguments else ""
    yield f"  entry stub {plan.entry:#x}, kernel {plan.kernel_entry:#x}{given}"
    yield f"  entered by {plan.protocol.value}, {plan.entry_bits}-bit, with {words.arguments(plan)}"
    yield f"  command line: {plan.command_line!r}"
    yield ""
    yield "page_table_b has to map, each address to itself"
    reasons = dict.fromkeys(each.what for each in plan.identity)
    for what in reasons:
        extents = union(each.extent for each in plan.identity if each.what == what)
        for extent in extents[:MOST_EXTENTS]:
            yield f"  [{extent.start:#12x}, {extent.end:#12x})  {what}"
        if len(extents) > MOST_EXTENTS:
            yield f"  and {len(extents) - MOST_EXTENTS:,} more extents: {what}"
