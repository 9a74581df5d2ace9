"""What [xen] means: the hypervisor's side of a host, with the p2m made, and the same as a table.

Rules: as `host.profile`: whatever is wrong raises `HostError`, what is too large before anything is
made.  What lies in a hole of the p2m and must not is found here, before anything is planned.
"""

from __future__ import annotations

import numpy as np

from tightrope.host.schema import At
from tightrope.host.xen.document import (
    Dom0Table,
    PseudoNamedTable,
    PseudoTable,
    RunTable,
    XenTable,
)
from tightrope.memory import PAGE_SIZE, Extent, Machine, Phys, PseudoPhys, Virt, subtract
from tightrope.model import Dom0, Host, Named, Xen
from tightrope.model.modes import MODES
from tightrope.model.p2m import HOLE, P2m, from_runs, scattered


def xen_of(table: XenTable, host: Host) -> Xen:
    """The hypervisor's side of `host`.  Raises HostError."""
    at = At(host.source, "xen")
    if not MODES[host.paging].under_xen:
        (at / "version").refuse("there has never been a Xen with 5-level paging")
    if table.fixmap < table.virt_start:
        (at / "fixmap").refuse(
            f"{table.fixmap:#x} is below the hypervisor's addresses, which begin at"
            f" {table.virt_start:#x}"
        )
    if not host.paging.long_mode and table.fixmap >> 32:
        (at / "fixmap").refuse(f"{table.fixmap:#x} is not a 32-bit address", (1 << 32) - 1)
    if table.dom0.bits == 64 and not host.paging.long_mode:
        (at / "dom0.bits").refuse(f"a {host.paging.value} hypervisor has no 64-bit dom0")
    major, minor = table.version.split(".")
    return Xen(
        version=(int(major), int(minor)),
        virt_start=Virt(table.virt_start),
        fixmap=Virt(table.fixmap),
        dom0=_dom0(table.dom0, host, at / "dom0"),
    )


def _dom0(table: Dom0Table, host: Host, at: At) -> Dom0:
    text, tables = Extent.sized(table.text_start, table.text_size), table.tables.extent
    if table.relocation not in Extent.sized(table.text, table.text_size):
        (at / "relocation").refuse(f"{table.relocation:#x} is not inside dom0's kernel text")
    if table.bits == 32 and (table.text + table.text_size) >> 32:
        (at / "text").refuse(f"{table.text:#x} is not a 32-bit address", (1 << 32) - 1)
    if text.overlaps(tables):
        (at / "tables").refuse(f"{tables} overlaps dom0's kernel text {text}")
    p2m = _p2m(table, host, at)
    for field, extent in (("text_start", text), ("tables", tables)):
        hole = _first_hole(p2m, extent)
        if hole is not None:
            (at / field).refuse(f"the p2m has a hole at pseudo-physical {hole:#x}, inside {extent}")
    return Dom0(
        bits=table.bits,
        p2m=p2m,
        text=Virt(table.text),
        text_start=PseudoPhys(table.text_start),
        text_size=table.text_size,
        relocation=Virt(table.relocation),
        tables=tables,
        busy=tuple(
            Named(extent=Extent.sized(each.start, each.size), what=each.what) for each in table.busy
        ),
    )


def _first_hole(p2m: P2m, extent: Extent) -> int | None:
    """The first pseudo-physical address of an extent without memory; what is behind the p2m has
    none."""
    frames = p2m.frames[extent.pages.start : extent.pages.stop]
    holes = np.nonzero(frames == HOLE)[0]
    if len(holes):
        return extent.start + int(holes[0]) * PAGE_SIZE
    return extent.start + len(frames) * PAGE_SIZE if len(frames) < len(extent.pages) else None


def _p2m(table: Dom0Table, host: Host, at: At) -> P2m:
    """The scattered one that a seed gives, or the runs that are written out."""
    source = f"{host.source}: xen.dom0"
    if table.p2m is not None:
        ram = dom0_ram(host)
        for number, run in enumerate(table.p2m):
            outside = subtract([Extent.sized(run.machine, run.size)], ram)
            if outside:
                (at / f"p2m[{number}].machine").refuse(
                    f"{outside[0]} is not memory that a dom0 can have"
                )
        return from_runs(
            [(PseudoPhys(e.pseudo), Machine(Phys(e.machine)), e.size) for e in table.p2m], source
        )
    assert table.pages is not None
    assert table.seed is not None
    holes = [each.extent for each in table.hole]
    beyond = [hole for hole in holes if hole.end > table.pages * PAGE_SIZE]
    if beyond:
        (at / "hole").refuse(f"{beyond[0]} is beyond dom0's {table.pages:#x} pages")
    return scattered(dom0_ram(host), table.pages, seed=table.seed, holes=holes, source=source)


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


def table_of(xen: Xen) -> XenTable:
    """A hypervisor as a host file has it, its p2m written out in runs."""
    dom0 = xen.dom0
    return XenTable(
        version=f"{xen.version[0]}.{xen.version[1]}",
        virt_start=xen.virt_start,
        fixmap=xen.fixmap,
        dom0=Dom0Table(
            bits=dom0.bits,
            text=dom0.text,
            text_start=dom0.text_start,
            text_size=dom0.text_size,
            relocation=dom0.relocation,
            p2m=tuple(_runs(dom0.p2m)),
            tables=PseudoTable(start=dom0.tables.start, size=dom0.tables.size),
            busy=tuple(
                PseudoNamedTable(start=e.extent.start, size=e.extent.size, what=e.what)
                for e in dom0.busy
            ),
        ),
    )


def _runs(p2m: P2m) -> list[RunTable]:
    """Frames that follow one another on both sides, as one row."""
    owned = np.nonzero(p2m.frames != HOLE)[0]
    machine = p2m.frames[owned]
    cuts = np.nonzero((np.diff(owned) != 1) | (np.diff(machine) != 1))[0] + 1
    return [
        RunTable(
            pseudo=int(owned[start]) * PAGE_SIZE,
            machine=int(machine[start]) * PAGE_SIZE,
            size=(end - start) * PAGE_SIZE,
        )
        for start, end in zip([0, *cuts.tolist()], [*cuts.tolist(), len(owned)], strict=True)
        if start < end
    ]
