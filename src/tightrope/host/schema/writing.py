"""Writing a table: TOML that explains itself, one comment a field, in one column.

Rules: what a comment says is the declaration's word or the caller's; nothing is decided here but
where it stands.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import Any

from tightrope.host.schema.kinds import NumberOr, bare_or_quoted
from tightrope.host.schema.tables import Field, declared

COLUMN = 24
"""Where the comment behind a value begins, if the value leaves it free."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comments:
    """What one document says of itself, by path, in place of what the declaration says."""

    beside: Mapping[str, str] = field(default_factory=dict)
    above: Mapping[str, str] = field(default_factory=dict)


def write_table(table: object, path: str, said: Comments, samples: object = None) -> Iterator[str]:
    """The lines of a table's fields, without its own head.

    What is not there is left out, or written as a comment where `samples`, a table of the same
    class, has it.
    """
    assert is_dataclass(table)
    for each in declared(type(table)):
        where = f"{path}.{each.key}" if path else each.key
        value = getattr(table, each.attribute)
        lines = _lines(each, value, where, said)
        if not lines and samples is not None:
            sample = _lines(each, getattr(samples, each.attribute), where, Comments())
            lines = [_as_comment(line) for line in sample]
        elif samples is not None and each.table is not None:
            lines = _lines(each, value, where, said, getattr(samples, each.attribute))
        yield from lines


def _lines(each: Field, value: Any, path: str, said: Comments, samples: object = None) -> list[str]:
    """A field with its comments; nothing where it is not there."""
    if value is None and not isinstance(each.kind, NumberOr):
        return []
    above = said.above.get(path, each.says.above)
    beside = said.beside.get(path, each.says.beside)
    lines = [f"# {line}" for line in above.splitlines()]
    if each.kind is not None:
        lines.append(_commented(f"{each.key} = {each.kind.toml(value)}", beside))
        return ["", *lines] if above else lines
    if each.rows is not None:
        for number, row in enumerate(value):
            behind = said.beside.get(f"{path}[{number}]", "" if number else beside)
            lines.append(_commented(f"[[{path}]]", behind))
            lines += write_table(row, path, said)
        return ["", *lines] if value else []
    if each.named is not None:
        rows = [f"{bare_or_quoted(key)} = {_inline(row)}" for key, row in value.items()]
        return ["", *lines, _commented(f"[{path}]", beside), *rows] if rows else []
    return ["", *lines, _commented(f"[{path}]", beside), *write_table(value, path, said, samples)]


def _inline(row: object) -> str:
    """A table in braces."""
    pairs = [
        f"{each.key} = {each.kind.toml(getattr(row, each.attribute))}"
        for each in declared(type(row))
        if each.kind is not None and getattr(row, each.attribute) is not None
    ]
    return f"{{ {', '.join(pairs)} }}"


def _commented(line: str, comment: str) -> str:
    if not comment:
        return line
    shown = comment if comment.isprintable() else repr(comment)
    return f"{line:<{COLUMN - 2}}  # {shown}"


def _as_comment(line: str) -> str:
    """A line that is not in force, its own comment in the same column."""
    if not line or line.startswith("#"):
        return line
    return f"# {line}".replace("    # ", "  # ", 1)
