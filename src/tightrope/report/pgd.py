"""`tightrope pgd VMCORE`: what a crashed kernel's page tables map, what is wrong, what differs.

Rules: the text is for people; the dict has the same facts as numbers, addresses and sizes in bytes,
and its keys do not change between cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tightrope.model.pgd import Change, Pgd, Range
from tightrope.report import words

_NAME_COLUMNS = 10


def text(
    pgd: Pgd,
    *,
    ranges: Sequence[Range] | None = None,
    changes: Sequence[Change] | None = None,
    other: str = "",
) -> str:
    """The screen, without a line break at its end.

    `ranges` are listed when given; `changes` are what `other` maps differently.
    """
    lines = [f"{name:<{_NAME_COLUMNS}} {what}" for name, what in _rows(pgd)]
    if ranges is not None:
        lines += ["", "ranges: linear, physical, size, rights (write, execute, user, global)"]
        lines += [f"  {_range(each)}" for each in ranges]
    if changes is not None:
        lines += ["", f"from {pgd.core.source} to {other}: {words.count(len(changes), 'change')}"]
        for change in changes:
            lines += [f"  {mark} {_range(each)}" for mark, each in _sides(change)]
    return "\n".join(lines)


def document(
    pgd: Pgd,
    *,
    ranges: Sequence[Range] | None = None,
    changes: Sequence[Change] | None = None,
    other: str = "",
) -> dict[str, object]:
    """The same as plain data; what was not asked for is None."""
    return {
        "source": pgd.core.source,
        "kernel": _kernel(pgd),
        "cpus": pgd.core.notes.cpus,
        "memory": [{"start": e.start, "size": e.size} for e in pgd.core.extents],
        "root": {
            "phys": pgd.root.phys,
            "mode": str(pgd.root.paging),
            "how": pgd.root.how,
        },
        "tables": pgd.found.tables,
        "mappings": pgd.mappings,
        "mappings_by_size": [{"size": s, "count": n} for s, n in sorted(pgd.sizes.items())],
        "bytes_mapped": pgd.bytes_mapped,
        "held": pgd.held,
        "partly": pgd.partly,
        "elsewhere": pgd.elsewhere,
        "missing_tables": pgd.found.missing.count,
        "reserved_entries": pgd.found.reserved.count,
        "whole": pgd.whole,
        "faults": list(pgd.faults),
        "ranges": None if ranges is None else [_plain(each) for each in ranges],
        "other": other or None,
        "changes": None
        if changes is None
        else [
            {
                "kind": str(each.kind),
                "before": None if each.before is None else _plain(each.before),
                "after": None if each.after is None else _plain(each.after),
            }
            for each in changes
        ],
    }


def _rows(pgd: Pgd) -> Iterator[tuple[str, str]]:
    core = pgd.core
    memory = sum(each.size for each in core.extents)
    yield (
        "core",
        f"{core.source}: {words.size(memory)} of memory in {words.count(len(core.extents), 'piece')},"
        f" {words.count(core.notes.cpus, 'CPU')}, ELF{core.bits}",
    )
    yield "kernel", _kernel(pgd) or "not named"
    yield "pgd", f"{pgd.root.phys:#x}: {pgd.root.how}"
    sizes = ", ".join(f"{n:,} of {words.size(size)}" for size, n in sorted(pgd.sizes.items()))
    tables = words.count(pgd.found.tables, "table")
    yield "mappings", f"{pgd.mappings:,} in {tables}" + (f": {sizes}" if sizes else "")
    yield "mapped", f"{words.size(pgd.bytes_mapped)} of linear addresses"
    yield "hold", f"{pgd.held:,} lead into memory that the core holds"
    if pgd.partly:
        yield "", f"{pgd.partly:,} lead partly into it"
    yield "", f"{pgd.elsewhere:,} lead elsewhere: devices, holes, memory that was not dumped"
    if pgd.whole:
        yield "verdict", "all tables are whole"
        return
    missing, reserved = pgd.found.missing.count, pgd.found.reserved.count
    found = [words.count(missing, "missing table")] if missing else []
    found += [f"reserved bits set in {words.count(reserved, 'place')}"] if reserved else []
    yield "verdict", ", ".join(["not whole", *found])
    for fault in pgd.faults:
        yield "", fault


def _kernel(pgd: Pgd) -> str | None:
    """OSRELEASE of VMCOREINFO; a core may hold anything there."""
    release = pgd.core.notes.vmcoreinfo.get("OSRELEASE")
    return release if release is None or release.isprintable() else repr(release)


def _range(each: Range) -> str:
    return f"{each.virt:#18x}  {each.phys:#14x}  {words.size(each.size):>10}  {each.rights}"


def _sides(change: Change) -> Iterator[tuple[str, Range]]:
    """As `diff` writes it: what was, then what is."""
    if change.before is not None:
        yield "-", change.before
    if change.after is not None:
        yield "+", change.after


def _plain(each: Range) -> dict[str, object]:
    return {"virt": each.virt, "phys": each.phys, "size": each.size, "rights": each.rights}
