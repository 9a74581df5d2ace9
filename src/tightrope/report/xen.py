"""The jump through a hypervisor for someone at a terminal, and as JSON: steps 1a and 1b.

    1a  dom0's hypercall: each page by dom0's number, the machine's, and the hypervisor's; or segments
    1b  the hypervisor jumps to V

Rules: as `terminal`.  What the hypervisor overwrote is told by comparing the tables before and after.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

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
from tightrope.report import words

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


def header(built: Handover) -> Iterator[str]:
    """Who is who."""
    load = built.intent.through
    if isinstance(load, Bare):
        return
    xen = load.xen
    version = f"{xen.version[0]}.{xen.version[1]}"
    dom0 = xen.dom0
    pages = int((dom0.p2m.frames >= 0).sum())
    yield f"  hypervisor      Xen {version}, asked by interface {load.interface.value}"
    yield (
        f"  dom0            {dom0.bits} bits, {words.count(pages, 'page')} of memory in as many"
        " machine frames"
    )


def asked(built: Handover) -> Iterator[str]:
    """Step 1a: what was loaded, and what the hypervisor made of it."""
    load = built.intent.through
    if isinstance(load, Bare):
        return
    yield f"{HYPERCALL[load.crash]}"
    whose = "the hypervisor's own" if load.crash is XenCrash.HYPERVISOR else "dom0's"
    yield f"    CR3 {built.registers.cr3:#x}, {whose} tables: the jump begins under them"
    if isinstance(load, XenV2):
        yield from _segments(load)
        return
    odd = "mapped at" if isinstance(load, XenCompat) else "fixmap"
    yield f"    {'page':<13} {'slots':<6} {'pseudo-physical':<16} {'machine':<14} {odd}"
    for each in load.pages:
        slots = f"{each.slot}" + ("" if each.fixmap is None else f"/{each.slot + 1}")
        pseudo = "crash region" if each.pseudo is None else f"{each.pseudo:#x}"
        fixmap = "-" if each.fixmap is None else f"{each.fixmap:#x}"
        yield f"    {each.name:<13} {slots:<6} {pseudo:<16} {each.machine:<#14x} {fixmap}"
    changed = overwritten(built)
    yield f"    the hypervisor overwrote {words.count(len(changed), 'entry').replace('entrys', 'entries')} of page_table_a"
    for name, slot, before, after in changed[:MOST_ENTRIES]:
        yield f"      {name}[{slot}]  {before:#x} -> {after:#x}"
    if len(changed) > MOST_ENTRIES:
        yield f"      and {len(changed) - MOST_ENTRIES} more"


def _segments(load: XenV2) -> Iterator[str]:
    arch = "EM_386, paging off" if load.legacy_exit else "EM_X86_64, long mode"
    total = len(load.segments) + len(load.mapped)
    yield f"    {words.count(total, 'segment')}; the image is entered as {arch}"
    for each in load.segments:
        yield f"    {each.extent}  {each.what}"
    for each in load.mapped:
        yield f"    {each.extent}  no buffer, only mapped: {each.what}"


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


def document(built: Handover) -> dict[str, Any] | None:
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
