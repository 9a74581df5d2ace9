"""The jump through a hypervisor: steps 1a and 1b, for people and as facts.

    1a  dom0's hypercall: each page by dom0's number, the machine's, and the hypervisor's; or segments
    1b  the hypervisor jumps to V

Rules: what the hypervisor overwrote is told by comparing the tables before and after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TypedDict

import numpy as np

from tightrope.model import (
    Bare,
    Handover,
    PageList,
    Paging,
    UnderXen,
    XenCompat,
    XenCrash,
    XenV1,
    XenV2,
)
from tightrope.model.sheet import Block, Column, Line, Section, Table
from tightrope.views import words

HYPERCALL = {
    None: "1a dom0 asks the hypervisor: kexec_op(KEXEC_CMD_kexec, KEXEC_TYPE_DEFAULT)",
    XenCrash.DOM0: "1a dom0 panics and asks the hypervisor: kexec_op(KEXEC_CMD_kexec, KEXEC_TYPE_CRASH)",
    XenCrash.HYPERVISOR: "1a nobody asks: the hypervisor crashes, and starts what dom0 had loaded",
}
JUMP: Mapping[type[UnderXen], str] = {
    XenV1: "1b the hypervisor jumps to V, its NX-safe mapping (fixmap) of the control page",
    XenCompat: "1b the hypervisor leaves long mode by code of its own, and calls V, the machine"
    " address itself",
    XenV2: "1b the hypervisor jumps to V, the code in its own text",
}
MOST_ENTRIES = 16


def header(built: Handover) -> Iterator[tuple[str, str]]:
    """Who is who."""
    load = built.intent.through
    if isinstance(load, Bare):
        return
    xen = load.xen
    version = f"{xen.version[0]}.{xen.version[1]}"
    dom0 = xen.dom0
    pages = int((dom0.p2m.frames >= 0).sum())
    yield "hypervisor", f"Xen {version}, asked by interface {load.interface.value}"
    yield (
        "dom0",
        f"{dom0.bits} bits, {words.count(pages, 'page')} of memory in as many machine frames",
    )


def asked(built: Handover) -> Iterator[Block]:
    """Step 1a: who asks for the jump, and under whose tables it begins."""
    load = built.intent.through
    if isinstance(load, Bare):
        return
    yield Line(HYPERCALL[load.crash])
    whose = "the hypervisor's own" if load.crash is XenCrash.HYPERVISOR else "dom0's"
    yield Line(f"CR3 {built.registers.cr3:#x}, {whose} tables: the jump begins under them", 4)


def handed(built: Handover) -> Iterator[Section]:
    """What dom0 had loaded, and what the hypervisor made of it; who asks for details sees it."""
    load = built.intent.through
    if isinstance(load, Bare):
        return
    yield Section("what dom0 handed over", tuple(_handed(built, load)), detail=True)


def _handed(built: Handover, load: UnderXen) -> Iterator[Line | Table]:
    if isinstance(load, XenV2):
        yield from (Line(text, 4) for text in _segments(load))
        return
    yield _pages(load)
    changed = overwritten(built)
    entries = words.count(len(changed), "entry", "entries")
    yield Line(f"the hypervisor overwrote {entries} of page_table_a", 4)
    for name, slot, before, after in changed[:MOST_ENTRIES]:
        yield Line(f"{name}[{slot}]  {before:#x} -> {after:#x}", 6)
    if len(changed) > MOST_ENTRIES:
        yield Line(f"and {len(changed) - MOST_ENTRIES} more", 6)


def _pages(load: PageList) -> Table:
    """v1: each page by dom0's number, the machine's, and the hypervisor's."""
    return Table(
        columns=(
            Column(heads=("page",), width=13),
            Column(heads=("slots",), width=6),
            Column(heads=("pseudo-physical",), width=16),
            Column(heads=("machine",), width=14),
            Column(heads=("mapped at" if isinstance(load, XenCompat) else "fixmap",), width=0),
        ),
        rows=tuple(
            (
                each.name,
                f"{each.slot}" + ("" if each.fixmap is None else f"/{each.slot + 1}"),
                "crash region" if each.pseudo is None else f"{each.pseudo:#x}",
                f"{each.machine:#x}",
                "-" if each.fixmap is None else f"{each.fixmap:#x}",
            )
            for each in load.pages
        ),
        indent=4,
    )


def _segments(load: XenV2) -> Iterator[str]:
    arch = "EM_386, paging off" if load.legacy_exit else "EM_X86_64, long mode"
    total = len(load.segments) + len(load.mapped)
    yield f"{words.count(total, 'segment')}; the image is entered as {arch}"
    for each in load.segments:
        yield f"{each.extent}  {each.what}"
    for each in load.mapped:
        yield f"{each.extent}  no buffer, only mapped: {each.what}"


def jump(load: UnderXen) -> str:
    """Step 1b."""
    return JUMP[type(load)]


def overwritten(built: Handover) -> list[tuple[str, int, int, int]]:
    """(page, index, entry as dom0 left it, entry as the hypervisor left it), page by page."""
    load = built.intent.through
    if built.prepared is None or not isinstance(load, PageList):
        return []
    kind = "<u4" if built.intent.paging is Paging.I386 else "<u8"
    out = []
    for each in load.pages:
        before, after = (
            tables.pages.get(int(each.machine)) for tables in (built.prepared, built.page_table_a)
        )
        if before is None or after is None:
            continue
        old, new = np.frombuffer(before, kind), np.frombuffer(after, kind)
        for slot in np.nonzero(old != new)[0].tolist():
            out.append((each.name, slot, int(old[slot]), int(new[slot])))
    return out


class XenPageFacts(TypedDict):
    name: str
    slot: int
    pseudo_physical: int | None
    machine: int
    fixmap: int | None


class OverwrittenFacts(TypedDict):
    page: str
    index: int
    before: int
    after: int


class XenSegmentFacts(TypedDict):
    start: int
    size: int
    what: str
    buffer: bool


class XenFacts(TypedDict):
    """How a hypervisor was asked, and what it did."""

    version: list[int]
    interface: str
    dom0_bits: int
    crashed: str | None
    pages: list[XenPageFacts]
    overwritten: list[OverwrittenFacts]
    segments: list[XenSegmentFacts]


def facts(built: Handover) -> XenFacts | None:
    """The same as numbers; None where no hypervisor is asked."""
    load = built.intent.through
    if isinstance(load, Bare):
        return None
    xen = load.xen
    pages = load.pages if isinstance(load, PageList) else ()
    loaded, mapped = (load.segments, load.mapped) if isinstance(load, XenV2) else ((), ())
    return {
        "version": list(xen.version),
        "interface": load.interface.value,
        "dom0_bits": xen.dom0.bits,
        "crashed": None if load.crash is None else load.crash.value,
        "pages": [
            {
                "name": each.name,
                "slot": each.slot,
                "pseudo_physical": each.pseudo,
                "machine": each.machine,
                "fixmap": each.fixmap,
            }
            for each in pages
        ],
        "overwritten": [
            {"page": name, "index": slot, "before": before, "after": after}
            for name, slot, before, after in overwritten(built)
        ],
        "segments": [
            {
                "start": each.extent.start,
                "size": each.extent.size,
                "what": each.what,
                "buffer": each in loaded,
            }
            for each in (*loaded, *mapped)
        ],
    }
