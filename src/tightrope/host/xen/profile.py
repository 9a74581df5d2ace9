"""The [xen] table of a host file: what makes the old kernel a hypervisor, and the dom0 under it.

    [xen]                version, virt_start, fixmap
    [xen.dom0]           bits, its kernel, its tables, and either `pages` and `seed` or [[xen.dom0.p2m]]
    [[xen.dom0.hole]]    pseudo-physical memory that is not there
    [[xen.dom0.busy]]    pseudo-physical memory that it cannot give away

Rules: as `profile`: each field once, with type and bounds; whatever is wrong raises `HostError`.  What
lies in a hole of the p2m and must not is found here, before anything is planned.
"""

from __future__ import annotations

import re

import numpy as np

from tightrope.host.toml import Reader
from tightrope.memory import PAGE_SIZE, Extent, Machine, Phys, PseudoPhys, Virt, subtract
from tightrope.model import Dom0, Host, Named, Paging, Xen
from tightrope.model.p2m import HOLE, P2m, from_runs, scattered

VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})")


def read_xen(table: Reader, host: Host) -> Xen:
    """The hypervisor's side of `host`.  Raises HostError."""
    text = table.text("version")
    version = VERSION.fullmatch(text)
    if version is None:
        table.refuse("version", f"{text!r} is not MAJOR.MINOR")
    dom0 = table.table("dom0")
    xen = Xen(
        version=(int(version[1]), int(version[2])),
        virt_start=Virt(table.aligned("virt_start", PAGE_SIZE, bits=64)),
        fixmap=Virt(table.aligned("fixmap", PAGE_SIZE, bits=64)),
        dom0=_dom0(dom0, host),
    )
    table.done()
    if host.paging is Paging.LA57:
        table.refuse("version", "there has never been a Xen with 5-level paging")
    if xen.fixmap < xen.virt_start:
        table.refuse(
            "fixmap",
            f"{xen.fixmap:#x} is below the hypervisor's addresses, which begin at"
            f" {xen.virt_start:#x}",
        )
    if not host.paging.long_mode and xen.fixmap >> 32:
        table.refuse("fixmap", f"{xen.fixmap:#x} is no 32-bit address", limit=(1 << 32) - 1)
    if xen.dom0.bits == 64 and not host.paging.long_mode:
        dom0.refuse("bits", f"a {host.paging.value} hypervisor has no 64-bit dom0")
    return xen


def _dom0(table: Reader, host: Host) -> Dom0:
    bits = table.number("bits")
    if bits not in (32, 64):
        table.refuse("bits", f"{bits} is neither 32 nor 64")
    dom0 = Dom0(
        bits=bits,
        p2m=_p2m(table, host),
        text=Virt(table.aligned("text", PAGE_SIZE, bits=64)),
        text_start=PseudoPhys(table.aligned("text_start", PAGE_SIZE)),
        text_size=table.aligned("text_size", PAGE_SIZE, low=PAGE_SIZE),
        relocation=Virt(table.aligned("relocation", PAGE_SIZE, bits=64)),
        tables=_extent(table.table("tables")),
        busy=tuple(
            Named(extent=_extent(each, also=("what",)), what=each.text("what"))
            for each in table.tables("busy")
        ),
    )
    table.done()
    if dom0.relocation not in Extent.sized(dom0.text, dom0.text_size):
        table.refuse("relocation", f"{dom0.relocation:#x} is not inside dom0's kernel text")
    if bits == 32 and (dom0.text + dom0.text_size) >> 32:
        table.refuse("text", f"{dom0.text:#x} is no 32-bit address", limit=(1 << 32) - 1)
    text = Extent.sized(dom0.text_start, dom0.text_size)
    if text.overlaps(dom0.tables):
        table.refuse("tables", f"{dom0.tables} overlaps dom0's kernel text {text}")
    for field, extent in (("text_start", text), ("tables", dom0.tables)):
        frames = np.arange(extent.pages.start, extent.pages.stop, dtype=np.int64)
        holes = np.nonzero(dom0.p2m.to_machine(frames) == HOLE)[0]
        if len(holes):
            at = extent.start + int(holes[0]) * PAGE_SIZE
            table.refuse(field, f"the p2m has a hole at pseudo-physical {at:#x}, inside {extent}")
    return dom0


def _p2m(table: Reader, host: Host) -> P2m:
    """The scattered one that a seed gives, or the runs that are written out."""
    source = f"{host.source}: xen.dom0"
    if "p2m" in table:
        runs = []
        for each in table.tables("p2m"):
            pseudo = each.aligned("pseudo", PAGE_SIZE)
            machine = each.aligned("machine", PAGE_SIZE)
            size = each.aligned("size", PAGE_SIZE, low=PAGE_SIZE)
            each.done()
            outside = subtract([Extent.sized(machine, size)], dom0_ram(host))
            if outside:
                each.refuse("machine", f"{outside[0]} is not memory that a dom0 can have")
            if pseudo + size > 1 << 44:
                each.refuse("pseudo", f"{pseudo:#x} is more than a dom0 has", limit=1 << 44)
            runs.append((PseudoPhys(pseudo), Machine(Phys(machine)), size))
        return from_runs(runs, source)
    holes = [_extent(each) for each in table.tables("hole")]
    pages = table.number("pages", low=1, high=1 << 24)
    beyond = [hole for hole in holes if hole.end > pages * PAGE_SIZE]
    if beyond:
        table.refuse("hole", f"{beyond[0]} is beyond dom0's {pages:#x} pages")
    seed = table.number("seed", bits=32)
    return scattered(dom0_ram(host), pages, seed=seed, holes=holes, source=source)


def dom0_ram(host: Host) -> tuple[Extent, ...]:
    """Machine memory that a dom0 may have been given: whole pages of RAM that are not Xen's."""
    text = Extent.sized(host.text.phys, host.text.size)
    named = (*host.busy, *host.crash_notes)
    taken = [text, host.private, *(each.extent.page_aligned() for each in named)]
    taken += [host.crash_region] if host.crash_region else []
    taken += [Extent(0, 1 << 20)]
    out = []
    for ram in host.memory.ram:
        start, end = -(-ram.start // PAGE_SIZE) * PAGE_SIZE, ram.end // PAGE_SIZE * PAGE_SIZE
        if start < end:
            out.append(Extent(start, end))
    return subtract(out, taken)


def _extent(table: Reader, also: tuple[str, ...] = ()) -> Extent:
    start = table.aligned("start", PAGE_SIZE)
    size = table.aligned("size", PAGE_SIZE, low=PAGE_SIZE)
    for key in also:
        table.text(key)
    table.done()
    return Extent.sized(start, size)
