"""The matrix of configurations: a row per host and kind, a column per kernel and machine.

The ways through Xen stand below, as columns for each kernel: a hypervisor has no memory split.

Rules: the cells are done; what does not exist is a dash with its reason below the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

from tightrope.model import Outcome
from tightrope.model.matrix import Cell
from tightrope.model.sheet import Column, Line, Section, Sheet, Table
from tightrope.views import rules
from tightrope.views.view import View

NARROWEST = 24
"""A column of verdicts."""


def sheet(cells: Sequence[Cell]) -> Sheet:
    """The tables, what the dashes mean, and a sentence that counts."""
    reasons: dict[str, int] = {}
    bare = _bare([cell for cell in cells if cell.xen is None], reasons)
    through_xen = list(_under_xen([cell for cell in cells if cell.xen is not None], reasons))
    done = [cell for cell in cells if cell.outcome is not None]
    holds = sum(cell.outcome is Outcome.HOLDS for cell in done)
    headline = (
        f"{holds} of {len(done)} cells hold, in {sum(cell.seconds for cell in cells):.1f} s;"
        f" {len(cells) - len(done)} do not exist"
    )
    below = [Line(f"({number}) {reason}") for reason, number in reasons.items()]
    asked = tuple(rules.asked_of((cell.asked for cell in cells), "cell"))
    if not through_xen:
        return Sheet((Section(None, (bare, *below)), *asked), headline=headline)
    return Sheet(
        (Section(None, (bare,)), Section(None, (*through_xen, *below)), *asked), headline=headline
    )


def _bare(cells: Sequence[Cell], reasons: dict[str, int]) -> Table:
    columns = list(dict.fromkeys((cell.kernel, cell.machine) for cell in cells))
    names = [kernel.rsplit("/", 1)[-1] for kernel, _ in columns]
    if len({machine for _, machine in columns}) > 1:
        names = [f"{name}, {on}" for name, (_, on) in zip(names, columns, strict=True)]
    found = {(c.paging, c.split, c.crash, c.kernel, c.machine): c for c in cells}
    return Table(
        columns=(
            Column(heads=("old kernel",), width=10),
            Column(heads=("split",), width=19),
            Column(heads=("kind",), width=6),
            *(
                Column(heads=(name,), width=max(len(name), NARROWEST), gap=2 if number else 1)
                for number, name in enumerate(names)
            ),
        ),
        rows=tuple(
            (
                paging.value,
                split,
                "kdump" if crash else "kexec",
                *(_word(found[paging, split, crash, *column], reasons) for column in columns),
            )
            for paging, split, crash in dict.fromkeys((c.paging, c.split, c.crash) for c in cells)
        ),
    )


def _under_xen(cells: Sequence[Cell], reasons: dict[str, int]) -> Iterator[Table]:
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
    yield Table(
        columns=(
            Column(heads=("hypervisor",), width=10),
            Column(heads=("kernel",), width=max(len(name) for _, name, _ in rows)),
            Column(heads=("kind",), width=max(len(kind) for _, _, kind in rows)),
            *(
                Column(heads=(f"Xen {way}",), width=width, gap=2 if number else 1)
                for number, way in enumerate(ways)
            ),
        ),
        rows=tuple((*row, *(found[way] for way in ways)) for row, found in rows.items()),
    )


def _word(cell: Cell, reasons: dict[str, int]) -> str:
    if cell.outcome is None:
        return f"- ({reasons.setdefault(cell.detail, len(reasons) + 1)})"
    return f"{cell.outcome.value} ({cell.detail})"


class CellFacts(TypedDict):
    mode: str
    page_offset: int | None
    crash: bool
    kernel: str
    machine: str
    xen: str | None
    crashed: str | None
    outcome: str | None
    detail: str
    seconds: float


class MatrixFacts(TypedDict):
    """Everything that `tightrope matrix --json` prints."""

    cells: list[CellFacts]


def facts(cells: Sequence[Cell]) -> MatrixFacts:
    """One object per cell."""
    return {
        "cells": [
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
    }


VIEW = View(name="matrix", version=1, shape=MatrixFacts, sheet=sheet, facts=facts)
