"""Mappings merged into ranges, and what differs between two lists of them.

Rules: a range says nothing of page sizes, so a large page that was split is no difference.  Linear
addresses are sign-extended 64-bit numbers; sizes are bytes.  Both functions work on whole arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tightrope.errors import CoreError
from tightrope.memory import Phys, Virt
from tightrope.model.pgd import EXECUTABLE, GLOBAL, USER, WRITABLE, Change, Kind, Range, Sweep
from tightrope.x86.ranges import Runs, runs
from tightrope.x86.sweep import U64

RANGES_LIMIT = 1 << 18
"""Ranges, or changes, that are made into values: a kernel has some thousands, and tables that lead
to themselves name millions, which would fill memory and nobody would read."""
_LETTERS = ((WRITABLE, "w"), (EXECUTABLE, "x"), (USER, "u"), (GLOBAL, "g"))


def merged(found: Sweep) -> tuple[Range, ...]:
    """All mappings as few ranges, sorted by linear address.  CoreError beyond RANGES_LIMIT."""
    found_runs = _runs(found)
    _check(len(found_runs.virt), "ranges")
    rows = zip(
        found_runs.virt.tolist(),
        found_runs.phys.tolist(),
        found_runs.last.tolist(),
        found_runs.rights.tolist(),
        strict=True,
    )
    return tuple(_range(virt, phys, last, rights) for virt, phys, last, rights in rows)


def difference(before: Sweep, after: Sweep) -> tuple[Change, ...]:
    """What `after` maps that `before` did not, no longer, or otherwise; sorted by linear address.

    Raises CoreError beyond RANGES_LIMIT.
    """
    old, new = _runs(before), _runs(after)
    # Every address where either list may change its mind; between two of them nothing does.
    starts = np.unique(np.concatenate([old.virt, new.virt, *(_behind(r) for r in (old, new))]))
    lasts = np.concatenate([starts[1:], np.zeros(1, np.uint64)]) - np.uint64(1)
    was, was_phys, was_rights = _look_up(old, starts)
    now, now_phys, now_rights = _look_up(new, starts)
    same = (was == now) & (was_phys == now_phys) & (was_rights == now_rights)
    wanted = np.nonzero(~same)[0]
    _check(len(wanted), "changes")
    rows: list[list[int]] = []
    for n in wanted.tolist():
        row = [
            int(starts[n]),
            int(lasts[n]),
            int(was[n]),
            int(was_phys[n]),
            int(was_rights[n]),
            int(now[n]),
            int(now_phys[n]),
            int(now_rights[n]),
        ]
        if rows and _goes_on(rows[-1], row):
            rows[-1][1] = row[1]
        else:
            rows.append(row)
    return tuple(_change(row) for row in rows)


def _check(count: int, what: str) -> None:
    if count > RANGES_LIMIT:
        raise CoreError(
            f"{count:,} {what}: more than can be listed", source="page tables", limit=RANGES_LIMIT
        )


def _runs(found: Sweep) -> Runs:
    return runs(found.virt, found.phys, found.size, found.rights)


def _behind(each: Runs) -> U64:
    """The addresses behind each run that are still addresses."""
    ends = each.last[each.last != np.uint64(0xFFFF_FFFF_FFFF_FFFF)]
    behind: U64 = ends + np.uint64(1)
    return behind


def _look_up(found: Runs, virt: U64) -> tuple[NDArray[np.bool_], U64, NDArray[np.uint8]]:
    """Whether each address is mapped, and how; zeros where it is not."""
    if not len(found.virt):
        nothing = np.zeros(len(virt), np.uint64)
        return nothing != 0, nothing, nothing.astype(np.uint8)
    at = np.searchsorted(found.virt, virt, side="right")
    run = np.maximum(at, 1) - 1
    mapped = (at > 0) & (virt <= found.last[run])
    phys = np.where(mapped, found.phys[run] + (virt - found.virt[run]), np.uint64(0))
    return mapped, phys, np.where(mapped, found.rights[run], 0).astype(np.uint8)


def _goes_on(row: list[int], following: list[int]) -> bool:
    """Two neighbours that tell the same change."""
    start, last, was, was_phys, was_rights, now, now_phys, now_rights = row
    size = last + 1 - start
    return following[0] == last + 1 and following[2:] == [
        was,
        was_phys + size * was,
        was_rights,
        now,
        now_phys + size * now,
        now_rights,
    ]


def _change(row: list[int]) -> Change:
    start, last, was, was_phys, was_rights, now, now_phys, now_rights = row
    return Change(
        kind=Kind.CHANGED if was and now else Kind.ADDED if now else Kind.REMOVED,
        before=_range(start, was_phys, last, was_rights) if was else None,
        after=_range(start, now_phys, last, now_rights) if now else None,
    )


def _range(virt: int, phys: int, last: int, rights: int) -> Range:
    letters = "".join(letter if rights & bit else "-" for bit, letter in _LETTERS)
    return Range(virt=Virt(virt), phys=Phys(phys), size=last + 1 - virt, rights=f"r{letters}")
