"""What a handover says of its own walk, for whoever watches it.

Rules: this is where a handover ends; `observe` takes the `Expectations` and asks for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator

from tightrope.memory import PAGE_SHIFT, Extent
from tightrope.model import Buffer, Handover, Kind
from tightrope.observe.expectations import Expectations


def expectations(handover: Handover) -> Expectations:
    """The walk that a handover is made for."""
    intent, way, table_b = handover.intent, handover.world.way_out, handover.page_table_b
    return Expectations(
        cpu=handover.host.cpu,
        registers=handover.registers,
        entry=intent.kernel_entry,
        relocation=intent.relocation,
        control_page=intent.control_page,
        root_a=handover.page_table_a.root,
        root_b=table_b.root if table_b else None,
        frames=lambda frame: has_business(handover, frame),
        tables=_before(handover),
        digests=frozenset(_digests(handover)),
        program=_program(handover),
        saves=_saves(handover),
        way_out=frozenset((way.wide.root, way.narrow.root) if way else ()),
    )


def _program(handover: Handover) -> Extent:
    """A loader's purgatory, whose digest has no shorter way than to be made."""
    known = any(each.contract.digest for each in handover.chain)
    return Extent(0, 0) if known else handover.intent.purgatory or Extent(0, 0)


def _saves(handover: Handover) -> frozenset[int]:
    """Frames of a backup in which no table lies."""
    tables = {frame >> PAGE_SHIFT for frame in _before(handover)}
    saved = (Extent.sized(each.copy, each.source.size) for each in handover.intent.backup)
    return frozenset(frame for each in saved for frame in each.pages) - tables


def _digests(handover: Handover) -> Iterator[int]:
    """Where a purgatory's digest begins, by the address that it runs at."""
    purgatory = handover.intent.purgatory
    for each in handover.chain:
        label = each.contract.digest
        if purgatory is not None and each.kind is Kind.PURGATORY and label is not None:
            yield purgatory.start + each.code.symbols[label]


def _before(handover: Handover) -> dict[int, Buffer]:
    """Table pages as they are before the walk."""
    table_b = handover.page_table_b
    way = handover.world.way_out
    return {
        **(way.wide.pages if way else {}),
        **(way.narrow.pages if way else {}),
        **handover.page_table_a.pages,
        **(table_b.pages if table_b else {}),
        # Last: page_table_a may be what the walk makes of the current pgd.
        **handover.world.tables,
    }


def has_business(handover: Handover, frame: int) -> bool:
    """The control page, the list, the sources and the destinations: what a walk has to do with."""
    intent = handover.intent
    return (
        frame == intent.control_page >> PAGE_SHIFT
        or frame << PAGE_SHIFT in handover.page_list
        or bool((intent.destinations == frame).any() or (intent.sources == frame).any())
    )
