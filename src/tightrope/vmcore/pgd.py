"""The crashed kernel's pgd, judged: how much of it holds, and what is wrong with it.

Rules: `whole` is decided here and nowhere else.  A mapping that leads out of the core's memory is not
a fault, because devices and the crash region lie there; a table that is missing, an entry that the CPU
would refuse, and a known address that is mapped elsewhere are.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import MappingProxyType

import numpy as np

from tightrope.errors import CoreError
from tightrope.model import Paging
from tightrope.model.dump import Core
from tightrope.model.pgd import Anchor, Damage, Pgd, Root, Sweep
from tightrope.vmcore.root import find_root
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

    Raises CoreError when it cannot be told: no root, or a root that lies outside the core.
    """
    if not 32 <= physical_bits <= 52:
        raise CoreError(
            f"{physical_bits} physical address bits: between 32 and 52",
            source=core.source,
            field="physical_bits",
        )
    root = find_root(core, cr3=cr3, paging=paging)
    if core.page(root.phys & ~0xFFF) is None:
        raise CoreError(
            f"the pgd at {root.phys:#x} ({root.how}) is not in the core's memory",
            source=core.source,
            field="cr3",
        )
    found = sweep(core, root, physical_bits=physical_bits)
    sizes, counts = np.unique(found.size, return_counts=True)
    held = core.held(found.phys, found.size)
    whole, none = held == found.size, held == 0
    return Pgd(
        core=core,
        root=root,
        found=found,
        sizes=MappingProxyType(dict(zip(sizes.tolist(), counts.tolist(), strict=True))),
        bytes_mapped=sum(s * c for s, c in zip(sizes.tolist(), counts.tolist(), strict=True)),
        held=int(whole.sum()),
        partly=int((~whole & ~none).sum()),
        elsewhere=int(none.sum()),
        faults=tuple(_faults(root, found)),
    )


def _faults(root: Root, found: Sweep) -> Iterator[str]:
    if not len(found.virt):
        yield "the tables map nothing at all"
    for anchor in root.anchors:
        at = _translate(found, anchor)
        if at != anchor.phys:
            where = "is not mapped" if at is None else f"is mapped to {at:#x}"
            yield (
                f"{anchor.name} at {anchor.virt:#x} {where}, and VMCOREINFO puts it at"
                f" {anchor.phys:#x}"
            )
    yield from _named(found.missing, "leads to a table that is not in the core")
    yield from _named(found.reserved, "has reserved bits set")


def _translate(found: Sweep, anchor: Anchor) -> int | None:
    """Where the swept tables map an address."""
    at = int(np.searchsorted(found.virt, np.uint64(anchor.virt), side="right")) - 1
    if at < 0:
        return None
    into = anchor.virt - int(found.virt[at])
    return int(found.phys[at]) + into if into < int(found.size[at]) else None


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
