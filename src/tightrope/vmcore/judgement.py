"""The crashed kernel's pgd, judged: how much of it holds, what is wrong with it, what cannot be
told.

Rules: what is a fault and what is merely not told is decided here; which of them the answer is,
`model.pgd`'s `Pgd.answer` says.  A mapping that leads out of the core's memory
is not a fault, because devices and the crash region lie there; a table that lies where the core has
no memory, an entry that the CPU would refuse, and a known address that is mapped elsewhere are.  A
table that the core leaves out is none: it was zeros or was not dumped, and what is below it is not
known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from types import MappingProxyType

import numpy as np

from tightrope.errors import CoreError
from tightrope.model import Paging
from tightrope.model.dump import Core, Standing
from tightrope.model.notes import Notes
from tightrope.model.pgd import Damage, Pgd, Sweep, Wholeness
from tightrope.model.root import Root
from tightrope.vmcore.other_tables import foreign_to, translate
from tightrope.vmcore.root import assumed, find_root
from tightrope.vmcore.sweep import sweep

MOST_NAMED = 8
"""Faults of one kind that are named one by one before the rest is only counted."""


def pgd(
    core: Core,
    *,
    cr3: int | None = None,
    paging: Paging | None = None,
    physical_bits: int = 52,
) -> Pgd:
    """Read and judge all tables of the crashed kernel; see `find_root` for `cr3` and `paging`.

    Raises CoreError when there is nothing to judge: no root, or a root that the core does not hold.
    """
    if not 32 <= physical_bits <= 52:
        raise CoreError(
            f"{physical_bits} physical address bits: between 32 and 52",
            source=core.source,
            field="physical_bits",
        )
    try:
        found, known = _judged(core, cr3, paging, physical_bits)
    except Unheld as err:
        if (
            cr3 is None
            and (other := _otherwise(core, err.known, paging, physical_bits)) is not None
        ):
            return other
        raise
    return _otherwise(core, known, paging, physical_bits) or found


class Known(Enum):
    """What the tables say of VMCOREINFO's symbols."""

    SOME = "one is where it says, or it was not asked"
    NONE = "none is where it says"
    ANOTHER_BOOT = "none is, and a kernel's tables are elsewhere"


class Unheld(CoreError):
    """The pgd that somebody names is not in the core."""

    known = Known.NONE


class Foreign(Unheld):
    """Nor is VMCOREINFO of this boot."""

    known = Known.ANOTHER_BOOT


def _otherwise(core: Core, known: Known, paging: Paging | None, physical_bits: int) -> Pgd | None:
    """What another teller's root leads to, where the first is wrong and that one is right."""
    if known is Known.SOME:
        return None
    foreign = None
    for settled, notes, levels in _other_tellers(core, known, paging):
        with suppress(CoreError):
            other, its = _judged(replace(core, notes=notes), None, levels, physical_bits)
            if its is Known.SOME and (other.root.anchors or other.whole):
                root = replace(other.root, settled=(*other.root.settled, settled))
                return replace(other, core=core, root=root)
            if its is Known.ANOTHER_BOOT and known is Known.NONE:
                foreign = foreign or replace(other, core=core)
            if levels is not paging and other.answer is Wholeness.UNTOLD:
                # What would tell the format is left out of the core: nothing is wrong for all that.
                return replace(other, core=core)
    return foreign


def _other_tellers(
    core: Core, known: Known, paging: Paging | None
) -> Iterator[tuple[str, Notes, Paging | None]]:
    """Who else knows of tables, and in which format; and what that settles.

    A hypervisor's CR3 is any process's: it is asked where VMCOREINFO is of another boot, not where
    the kernel's own pgd may have been destroyed.
    """
    notes = core.notes
    for info in notes.others:
        told = replace(notes, vmcoreinfo=info, others=())
        yield "another VMCOREINFO is of another boot", told, paging
    if paging is None and (formats := assumed(core)) is not None:
        taken = "under 4 levels" if formats[0] is Paging.X86_64 else f"as {formats[0].value} tables"
        yield f"{taken} no symbol is where VMCOREINFO says", notes, formats[1]
    if known is Known.ANOTHER_BOOT and any(each.walks for each in notes.control):
        empty: Mapping[str, str] = MappingProxyType({})
        yield "VMCOREINFO is of another boot", replace(notes, vmcoreinfo=empty, others=()), paging


def _judged(
    core: Core, cr3: int | None, paging: Paging | None, physical_bits: int
) -> tuple[Pgd, Known]:
    """What one teller's root leads to, and what that says of VMCOREINFO."""
    root = find_root(core, cr3=cr3, paging=paging)
    _refuse_unheld(core, root, physical_bits)
    found = sweep(core, root, physical_bits=physical_bits)
    sizes, counts = np.unique(found.size, return_counts=True)
    held = core.held.covered(found.phys, found.size)
    whole, none = held == found.size, held == 0
    faults, doubts = tuple(_faults(root, found)), tuple(_named(found.untold, LEFT_OUT))
    lost = root.anchors and all(translate(found, each) != each.phys for each in root.anchors)
    known = Known.NONE if lost else Known.SOME
    if lost and (other := foreign_to(core, root, physical_bits=physical_bits)) is not None:
        faults, known = (), Known.ANOTHER_BOOT
        doubts = (
            f"VMCOREINFO is of another boot: nothing is where it says, and a kernel's tables are at"
            f" {other:#x}: give --cr3 {other:#x}",
        )
    judged = Pgd(
        core=core,
        root=root,
        found=found,
        sizes=MappingProxyType(dict(zip(sizes.tolist(), counts.tolist(), strict=True))),
        bytes_mapped=sum(s * c for s, c in zip(sizes.tolist(), counts.tolist(), strict=True)),
        held=int(whole.sum()),
        partly=int((~whole & ~none).sum()),
        elsewhere=int(none.sum()),
        faults=faults,
        doubts=doubts,
    )
    return judged, known


LEFT_OUT = "leads to a table that the core leaves out: zeros, or not dumped"


def _refuse_unheld(core: Core, root: Root, physical_bits: int) -> None:
    standing = core.standing(np.array([root.phys & ~0xFFF], np.uint64))[0]
    if standing == Standing.HELD:
        return
    where = (
        "is left out of the core"
        if standing == Standing.LEFT_OUT
        else "is not in the core's memory"
    )
    kind: type[Unheld] = Unheld
    if root.anchors and (other := foreign_to(core, root, physical_bits=physical_bits)) is not None:
        where += (
            f"; VMCOREINFO is of another boot: give --cr3 {other:#x}, where a kernel's tables are"
        )
        kind = Foreign
    raise kind(f"the pgd at {root.phys:#x} ({root.how}) {where}", source=core.source, field="cr3")


def _faults(root: Root, found: Sweep) -> Iterator[str]:
    if not len(found.virt) and not found.untold.count:
        yield "the tables map nothing at all"
    for anchor in root.anchors:
        at = translate(found, anchor)
        if at != anchor.phys and not _may_be_below(found, anchor.virt):
            where = "is not mapped" if at is None else f"is mapped to {at:#x}"
            yield (
                f"{anchor.name} at {anchor.virt:#x} {where}, and VMCOREINFO puts it at"
                f" {anchor.phys:#x}"
            )
    yield from _named(found.missing, "leads to a table that is not in the core's memory")
    yield from _named(found.reserved, "has reserved bits set")


def _may_be_below(found: Sweep, virt: int) -> bool:
    """Whether a table that was left out may be the one that maps an address."""
    spans = zip(found.untold.levels, found.untold.virt.tolist(), strict=True)
    return any(0 <= virt - start < SPANS.get(level, 0) for level, start in spans)


SPANS = {"PML5": 1 << 48, "PML4": 1 << 39, "PDPT": 1 << 30, "PD": 1 << 22}
"""What one entry of a table maps; a PD's 2 or 4 MiB, whichever is more."""


def _named(damage: Damage, what: str) -> Iterator[str]:
    rows = zip(
        damage.levels,
        damage.at.tolist(),
        damage.entries.tolist(),
        damage.virt.tolist(),
        strict=True,
    )
    for number, (level, at, entry, virt) in enumerate(rows):
        if number == MOST_NAMED:
            break
        yield f"the {level} entry {entry:#x} at {at:#x}, for {virt:#x}, {what}"
    if damage.count > MOST_NAMED:
        yield f"{damage.count - MOST_NAMED:,} more: each {what}"
