"""Rows as JSON lines: what a sweep has told so far, and what a later run goes on from.

    {"schema": "tightrope/sweep-row", "version": 1, "question": "0f3c...", ...}
    {"host": "hosts/a.toml", "new": "vmlinuz", "outcome": "holds", ...}

The first line says what was asked, by the digests of all that every worker needs.  A run that asks
something else does not go on from it.

Rules: text in, values out; nothing is opened here.  A last line that was cut is not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tightrope.deeds.sweep.cargo import Cargo
from tightrope.errors import BadInput
from tightrope.model import Outcome
from tightrope.model.sweep import Answer, Swept

SCHEMA, VERSION = "tightrope/sweep-row", 1
COLUMNS: Mapping[str, type] = {
    "host": str,
    "digest": str,
    "new": str,
    "crash": bool,
    "group": str,
    "walked": bool,
    "outcome": str,
    "rule": str,
    "step": int,
    "detail": str,
    "advice": list,
    "assumed": list,
    "seconds": float,
}
"""The keys of a row, in their order; lists are of strings."""
NEVER_NONE = frozenset({"host", "digest", "new", "crash", "walked", "detail", "advice", "assumed"})


def header(cargo: Cargo) -> str:
    """The first line."""
    said = {
        "schema": SCHEMA,
        "version": VERSION,
        "question": cargo.digest(),
        "kernels": {each.name: each.digest for each in cargo.news},
    }
    return json.dumps(said) + "\n"


def line(row: Swept) -> str:
    """A row's line."""
    return json.dumps(facts(row)) + "\n"


def facts(row: Swept) -> dict[str, Any]:
    """A row as plain values."""
    answer = row.answer
    return {
        "host": row.host,
        "digest": row.digest,
        "new": row.new,
        "crash": row.crash,
        "group": row.group,
        "walked": row.walked,
        "outcome": None if answer.outcome is None else answer.outcome.value,
        "rule": answer.rule,
        "step": answer.step,
        "detail": answer.detail,
        "advice": list(answer.advice),
        "assumed": list(row.assumed),
        "seconds": round(answer.seconds, 6),
    }


def rows(lines: Iterable[str], cargo: Cargo, source: str) -> Iterator[Swept]:
    """What is told already.  Raises BadInput for something else than the rows of this question."""
    offset = 0
    for number, text in enumerate(lines):
        whole = text.endswith("\n")
        try:
            said = json.loads(text)
            if number == 0:
                _same_question(said, cargo)
            else:
                yield _row(said)
        except (ValueError, TypeError, KeyError, RecursionError) as err:
            if not whole and number:
                return
            what = "is not a sweep's output" if number == 0 else "is not a row of a sweep"
            raise BadInput(f"{what}: {err}", source=source, offset=offset) from err
        offset += len(text.encode())


def _same_question(said: Any, cargo: Cargo) -> None:
    if not isinstance(said, dict) or said.get("schema") != SCHEMA:
        raise ValueError(f"its first line has no schema {SCHEMA}")
    if said.get("version") != VERSION:
        raise ValueError(f"version {said.get('version')!r} and not {VERSION}")
    if said.get("question") != cargo.digest():
        raise ValueError("it asked for other kernels, or with other options")


def _row(said: Any) -> Swept:
    if not isinstance(said, dict):
        raise TypeError("no object")
    for name, kind in COLUMNS.items():
        value = said[name]
        if value is None and name not in NEVER_NONE:
            continue
        if not isinstance(value, (int, float) if kind is float else kind):
            raise TypeError(f"{name} is {value!r}")
    outcome = said["outcome"]
    return Swept(
        host=said["host"],
        digest=said["digest"],
        new=said["new"],
        crash=said["crash"],
        group=said["group"],
        walked=said["walked"],
        assumed=tuple(map(str, said["assumed"])),
        answer=Answer(
            outcome=None if outcome is None else Outcome(outcome),
            rule=said["rule"],
            step=said["step"],
            detail=said["detail"],
            advice=tuple(map(str, said["advice"])),
            seconds=float(said["seconds"] or 0.0),
        ),
    )
