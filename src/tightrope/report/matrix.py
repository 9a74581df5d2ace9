"""The matrix of configurations as a table, one row per host and kind, one column per kernel and machine.

The ways through Xen stand below, as columns for each kernel: a hypervisor has no memory split.

Rules: the cells are done; what does not exist is a dash with its reason below the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tightrope.model import Outcome
from tightrope.model.matrix import Cell


def text(cells: Sequence[Cell]) -> str:
    """The table, and a sentence that counts."""
    return "\n".join(_lines(cells))


def _lines(cells: Sequence[Cell]) -> Iterator[str]:
    reasons: dict[str, int] = {}
    yield from _bare([cell for cell in cells if cell.xen is None], reasons)
    yield from _under_xen([cell for cell in cells if cell.xen is not None], reasons)
    for reason, number in reasons.items():
        yield f"({number}) {reason}"
    done = [cell for cell in cells if cell.outcome is not None]
    holds = sum(cell.outcome is Outcome.HOLDS for cell in done)
    yield (
        f"{holds} of {len(done)} cells hold, in {sum(cell.seconds for cell in cells):.1f} s;"
        f" {len(cells) - len(done)} do not exist"
    )


def _under_xen(cells: Sequence[Cell], reasons: dict[str, int]) -> Iterator[str]:
    """One row per mode, kind, kernel and machine, one column per way of asking the hypervisor."""
    ways = list(dict.fromkeys(cell.xen or "" for cell in cells))
    width = max((len(f"Xen {way}") for way in ways), default=0) + 2
    many = len({cell.machine for cell in cells}) > 1
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for cell in cells:
        name = cell.kernel.rsplit("/", 1)[-1] + (f", {cell.machine}" if many else "")
        kind = "kexec" if cell.crashed is None else f"kdump, {cell.crashed.value} dies"
        row = rows.setdefault((cell.paging.value, name, kind), {})
        row[cell.xen or ""] = _word(cell, reasons)
    if not rows:
        return
    names = max(len(name) for _paging, name, _kind in rows)
    kinds = max(len(kind) for _paging, _name, kind in rows)
    yield ""
    heads = "  ".join(f"{f'Xen {way}':<{width}}" for way in ways).rstrip()
    yield f"{'hypervisor':<10} {'kernel':<{names}} {'kind':<{kinds}} {heads}"
    for (paging, name, kind), found in rows.items():
        words = "  ".join(f"{found[way]:<{width}}" for way in ways).rstrip()
        yield f"{paging:<10} {name:<{names}} {kind:<{kinds}} {words}"


def _word(cell: Cell, reasons: dict[str, int]) -> str:
    if cell.outcome is None:
        return f"- ({reasons.setdefault(cell.detail, len(reasons) + 1)})"
    return f"{cell.outcome.value} ({cell.detail})"


def _bare(cells: Sequence[Cell], reasons: dict[str, int]) -> Iterator[str]:
    columns = list(dict.fromkeys((cell.kernel, cell.machine) for cell in cells))
    names = [kernel.rsplit("/", 1)[-1] for kernel, _ in columns]
    if len({machine for _, machine in columns}) > 1:
        names = [f"{name}, {on}" for name, (_, on) in zip(names, columns, strict=True)]
    widths = [max(len(name), 24) for name in names]
    head = f"{'old kernel':<10} {'split':<19} {'kind':<6}"
    yield f"{head} " + "  ".join(f"{n:<{w}}" for n, w in zip(names, widths, strict=True)).rstrip()
    rows = list(dict.fromkeys((c.paging, c.split, c.crash) for c in cells))
    for paging, split, crash in rows:
        shown = []
        for (kernel, machine), width in zip(columns, widths, strict=True):
            cell = next(
                c
                for c in cells
                if (c.paging, c.split, c.crash, c.kernel, c.machine)
                == (paging, split, crash, kernel, machine)
            )
            shown.append(f"{_word(cell, reasons):<{width}}")
        kind = "kdump" if crash else "kexec"
        yield f"{paging.value:<10} {split:<19} {kind:<6} " + "  ".join(shown).rstrip()


def document(cells: Sequence[Cell]) -> list[dict[str, object]]:
    """One object per cell."""
    return [
        {
            "mode": cell.paging.value,
            "page_offset": cell.page_offset,
            "crash": cell.crash,
            "kernel": cell.kernel,
            "machine": cell.machine,
            "xen": cell.xen,
            "crashed": None if cell.crashed is None else cell.crashed.value,
            "outcome": None if cell.outcome is None else cell.outcome.value,
            "detail": cell.detail,
            "seconds": cell.seconds,
        }
        for cell in cells
    ]
