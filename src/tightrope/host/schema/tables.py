"""Tables as dataclasses: what they declare, and reading one with a path in every error.

Rules: what a value is, is its kind's; a dataclass is asked for its fields once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from tightrope.host.schema.kinds import At, Flag, Kind, Says, kind_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A field as declared; exactly one of `kind`, `table`, `rows` and `named` says what it
    holds."""

    attribute: str
    key: str
    required: bool
    says: Says
    kind: Kind | None = None
    table: type | None = None
    rows: type | None = None
    named: type | None = None
    """A table whose keys are free, each with a table of this class."""


def declared(cls: type) -> tuple[Field, ...]:
    """The fields of a table, scalars before tables, as TOML has to have them."""
    return _fields_of(cls)


@cache
def _fields_of(cls: type) -> tuple[Field, ...]:
    hints = get_type_hints(cls, include_extras=True)
    found = []
    for each in fields(cls):
        hint, extras = _unwrapped(hints[each.name])
        required = each.default is MISSING and each.default_factory is MISSING
        says = next((extra for extra in extras if isinstance(extra, Says)), Says())
        kind = next((extra for extra in extras if not isinstance(extra, Says)), None)
        arguments = get_args(hint)
        held: dict[str, Any] = {}
        if kind is not None:
            held["kind"] = kind
        elif hint is bool:
            held["kind"] = Flag()
        elif get_origin(hint) is tuple:
            held["rows"] = arguments[0]
        elif get_origin(hint) is Mapping:
            held["named"] = arguments[1]
        else:
            held["table"] = hint
        key = each.name.removesuffix("_")
        found.append(Field(attribute=each.name, key=key, required=required, says=says, **held))
    return tuple(sorted(found, key=lambda it: it.kind is None))


def _unwrapped(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without Annotated and without `| None`, and what Annotated said."""
    extras: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        extras = tuple(rest)
    if get_origin(hint) in (Union, UnionType):
        [hint] = [each for each in get_args(hint) if each is not NoneType]
    return hint, extras


def read_table(cls: type[T], value: object, at: At) -> T:
    """A table as the dataclass that declares it.  Raises HostError.

    A class that has a method `verify(at)` is asked whether its fields go together; one that is OPEN
    lets fields through that it does not declare.
    """
    if not isinstance(value, dict):
        at.refuse(f"expected a table, found {kind_of(value)}")
    known = {each.key: each for each in declared(cls)}
    values: dict[str, object] = {}
    for each in known.values():
        if each.key in value:
            values[each.attribute] = _value(each, value[each.key], at / each.key)
        elif each.required:
            (at / each.key).refuse("missing")
    for key in value:
        if key not in known and not getattr(cls, "OPEN", False):
            (at / key).refuse("unknown field")
    table = cls(**values)
    verify = getattr(table, "verify", None)
    if verify is not None:
        verify(at)
    return table


def _value(each: Field, value: object, at: At) -> object:
    if each.kind is not None:
        return each.kind.read(value, at)
    if each.rows is not None:
        if not isinstance(value, list):
            at.refuse(f"expected an array of tables, found {kind_of(value)}")
        return tuple(read_table(each.rows, row, at[number]) for number, row in enumerate(value))
    if each.named is not None:
        if not isinstance(value, dict):
            at.refuse(f"expected a table, found {kind_of(value)}")
        return {key: read_table(each.named, row, at / key) for key, row in value.items()}
    assert each.table is not None
    return read_table(each.table, value, at)


def declares(cls: type, path: str) -> bool:
    """Whether a table has a field of this name, or one of its tables has: `text.virt`."""
    first, _, rest = path.partition(".")
    for each in declared(cls):
        if each.key == first:
            return not rest or (each.table is not None and declares(each.table, rest))
    return False


def json_schema(cls: type) -> dict[str, object]:
    """A table as JSON Schema (draft 2020-12)."""
    properties: dict[str, object] = {}
    for each in declared(cls):
        if each.kind is not None:
            one = each.kind.schema()
        elif each.rows is not None:
            one = {"type": "array", "items": json_schema(each.rows)}
        elif each.named is not None:
            one = {"type": "object", "additionalProperties": json_schema(each.named)}
        else:
            assert each.table is not None
            one = json_schema(each.table)
        words = " ".join(filter(None, [each.says.beside, *each.says.above.splitlines()]))
        properties[each.key] = one | ({"description": words} if words else {})
    return {
        "type": "object",
        "properties": properties,
        "required": [each.key for each in declared(cls) if each.required],
        "additionalProperties": False,
    }
