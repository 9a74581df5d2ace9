"""Sabotages of the page list, as it lies in memory.

Rules: as `edits`; what is not there to be changed raises BadInput with the reason.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.errors import BadInput
from tightrope.memory import PAGE_SIZE, Phys, covered
from tightrope.model import Handover, SegmentRole, Step
from tightrope.sabotage.edits import edit_list, segment_of, with_head
from tightrope.sabotage.sabotage import sabotage


def _redirect_command_line(handover: Handover, target: int) -> Handover:
    """Send the command line's page to another destination."""
    line = segment_of(handover, SegmentRole.COMMAND_LINE)
    wanted = line.destination.start | 1

    def change(rows: list[list[int]]) -> None:
        for row in rows:
            if wanted in row:
                row[row.index(wanted)] = target | 1

    return edit_list(handover, change)


@sabotage("control-page-destination", Step.COPY, breaks="control-page-kept")
def control_page_destination(handover: Handover) -> Handover:
    """Copy the command line's page onto the control page."""
    return _redirect_command_line(handover, handover.intent.control_page)


@sabotage("list-page-destination", Step.COPY, breaks="list-kept")
def list_page_destination(handover: Handover) -> Handover:
    """Copy the command line's page onto a page of the list."""
    pages = list(handover.page_list)
    # Where there is no list, editing it says so.
    return _redirect_command_line(handover, pages[-1] if pages else handover.intent.control_page)


@sabotage("source-order", Step.COPY, breaks="source-intact")
def source_order(handover: Handover) -> Handover:
    """Read a source after it was overwritten."""
    kernel = handover.intent.segments[0]
    pages = len(kernel.destination.pages)
    if pages < 2:
        raise BadInput("the kernel is one page: it has no order", source="--sabotage")

    def change(rows: list[list[int]]) -> None:
        # Word 0 is the kernel's IND_DESTINATION; its last source is word `pages`, links not
        # counted.
        row, column = divmod(pages, len(rows[0]) - 1)
        rows[row][column] = kernel.destination.start | 8

    return edit_list(handover, change)


@sabotage("crash-outside", Step.COPY, breaks="crash-region-only", crash=True)
def crash_outside(handover: Handover) -> Handover:
    """In a crash kexec, copy one page out of the crash region.

    A list of one copy, out of the crash region into the first page of low memory.

    Low memory is what page_table_b maps outside the region; the list lies in the zeros at the end
    of the kernel's init_size, because it has to be mapped as well.
    """
    plan = handover.intent
    region = handover.host.crash_region
    if not plan.crash or region is None:
        raise BadInput("the plan is not a crash plan: it may write anywhere", source="--sabotage")
    ram = handover.host.memory.ram
    outside = [
        named.extent
        for named in plan.identity
        if not region.overlaps(named.extent) and covered(named.extent, ram)
    ]
    kernel = plan.segments[0]
    if not outside or len(kernel.data) > kernel.destination.size - PAGE_SIZE:
        raise BadInput("there is no low memory, or no room for a list", source="--sabotage")
    place = Phys(kernel.destination.end - PAGE_SIZE)
    word = plan.word
    words = (outside[0].start | 1, plan.entry | 8, 4)
    data = b"".join(each.to_bytes(word, "little") for each in words).ljust(PAGE_SIZE, b"\0")
    return with_head(replace(handover, page_list={**handover.page_list, int(place): data}), place)
