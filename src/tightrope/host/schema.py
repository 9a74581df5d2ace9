"""A TOML document declared once, as dataclasses: read with paths in every error, written with comments.

    @dataclass(frozen=True, kw_only=True)
    class Cpu:
        physical_bits: Annotated[int, Number(low=32, high=52), Says("MAXPHYADDR")]

    read_table(Cpu, {"physical_bits": 46}, At("a.toml", "cpu"))    ->  Cpu(physical_bits=46)
    write_table(cpu, "cpu", Comments())                            ->  [cpu], physical_bits = 46  # MAXPHYADDR
    json_schema(Cpu)                                               ->  what an editor checks while one types

Rules: this file knows TOML and `HostError`, and nothing about hosts; it needs the standard library
alone, because a machine that is captured has nothing else.  A table is a dataclass, an array of tables
a tuple of one; a field without a default has to be there, and keys that no field has are refused.  An
attribute that Python keeps for itself ends in `_`: `global_` is `global`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    NoReturn,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from tightrope.errors import HostError

COLUMN = 24
"""Where the comment behind a value begins, if the value leaves it free."""
BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class At:
    """A place in a document, as a reader of the file would name it."""

    source: str
    path: str = ""

    def __truediv__(self, key: str) -> At:
        # A quoted key may hold anything; an error has one line.
        shown = key if key.isprintable() and key else repr(key)
        return At(self.source, f"{self.path}.{shown}" if self.path else shown)

    def __getitem__(self, number: int) -> At:
        return At(self.source, f"{self.path}[{number}]")

    def refuse(self, problem: str, limit: int | None = None) -> NoReturn:
        """Raise HostError for this place."""
        raise HostError(problem, source=self.source, field=self.path, limit=limit)


class Kind(Protocol):
    """How one value is read, written and described."""

    def read(self, value: object, at: At) -> object:
        """The value, checked.  Raises HostError."""

    def toml(self, value: Any) -> str:
        """The value in TOML's notation."""

    def schema(self) -> dict[str, object]:
        """The value as JSON Schema."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A whole number in [low, high], a multiple of `multiple`; a boolean is not a number.

    TOML's integers are 64-bit signed by the standard; Python's reader takes larger ones, which is what
    makes addresses in the upper half writable as they are.
    """

    low: int = 0
    high: int = (1 << 52) - 1
    multiple: int = 1
    decimal: bool = False

    def read(self, value: object, at: At) -> object:
        if isinstance(value, bool) or not isinstance(value, int):
            at.refuse(f"expected a whole number, found {kind_of(value)}")
        if value < self.low:
            at.refuse(f"{value:#x} is too small", self.low)
        if value > self.high:
            at.refuse(f"{value:#x} is too large", self.high)
        if value % self.multiple:
            at.refuse(f"{value:#x} is not a multiple of {self.multiple:#x}")
        return value

    def toml(self, value: Any) -> str:
        return str(value) if self.decimal else f"{value:#_x}"

    def schema(self) -> dict[str, object]:
        bounds: dict[str, object] = {"minimum": self.low, "maximum": self.high}
        return {"type": "integer", **bounds} | (
            {"multipleOf": self.multiple} if self.multiple > 1 else {}
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberOr:
    """A number, or one word that stands for None."""

    number: Number
    word: str
    what: str

    def read(self, value: object, at: At) -> object:
        if isinstance(value, str):
            one_line(value, at)
            if value != self.word:
                at.refuse(f"expected {self.what} or {self.word!r}, found {value!r}")
            return None
        return self.number.read(value, at)

    def toml(self, value: Any) -> str:
        return quoted(self.word) if value is None else self.number.toml(value)

    def schema(self) -> dict[str, object]:
        return {"anyOf": [self.number.schema(), {"const": self.word}]}


@dataclass(frozen=True, slots=True)
class Flag:
    """true or false."""

    def read(self, value: object, at: At) -> object:
        if not isinstance(value, bool):
            at.refuse(f"expected true or false, found {kind_of(value)}")
        return value

    def toml(self, value: Any) -> str:
        return str(value).lower()

    def schema(self) -> dict[str, object]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Text:
    """Printable text on one line; `pattern` is a regular expression for all of it, `what` its name."""

    pattern: str = ""
    what: str = ""

    def read(self, value: object, at: At) -> object:
        text = one_line(value, at)
        if self.pattern and not re.fullmatch(self.pattern, text):
            at.refuse(f"{text!r} is not {self.what}")
        return text

    def toml(self, value: Any) -> str:
        return quoted(value)

    def schema(self) -> dict[str, object]:
        pattern: dict[str, object] = {"pattern": f"^{self.pattern}$"} if self.pattern else {}
        return {"type": "string", **pattern}


@dataclass(frozen=True, slots=True)
class Texts:
    """A table whose keys are free, each with text on one line."""

    def read(self, value: object, at: At) -> object:
        if not isinstance(value, dict):
            at.refuse(f"expected a table, found {kind_of(value)}")
        return {key: one_line(text, at / key) for key, text in value.items()}

    def toml(self, value: Any) -> str:
        return (
            "{ " + ", ".join(f"{_key(key)} = {quoted(text)}" for key, text in value.items()) + " }"
        )

    def schema(self) -> dict[str, object]:
        return {"type": "object", "additionalProperties": {"type": "string"}}


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the values of an enumeration."""

    of: type[StrEnum]

    def read(self, value: object, at: At) -> object:
        text = one_line(value, at)
        if text not in [each.value for each in self.of]:
            at.refuse(f"{text!r} is not one of {', '.join(self.of)}")
        return self.of(text)

    def toml(self, value: Any) -> str:
        return quoted(value.value)

    def schema(self) -> dict[str, object]:
        return {"enum": [each.value for each in self.of]}


@dataclass(frozen=True, slots=True)
class Says:
    """What the file says of a field: behind its value or its table's name, and in lines above it."""

    beside: str = ""
    above: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comments:
    """What one document says of itself, by path, in place of what the declaration says."""

    beside: Mapping[str, str] = field(default_factory=dict)
    above: Mapping[str, str] = field(default_factory=dict)


# ------------------------------------------------------------------------------- the declaration


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """A field as declared; exactly one of `kind`, `table`, `rows` and `named` says what it holds."""

    attribute: str
    key: str
    required: bool
    says: Says
    kind: Kind | None = None
    table: type | None = None
    rows: type | None = None
    named: type | None = None
    """A table whose keys are free, each with a table of this class."""


def _declared(cls: type) -> tuple[_Field, ...]:
    """The fields of a table, scalars before tables, as TOML has to have them."""
    return _fields_of(cls)


@cache
def _fields_of(cls: type) -> tuple[_Field, ...]:
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
        found.append(_Field(attribute=each.name, key=key, required=required, says=says, **held))
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


# ---------------------------------------------------------------------------------------- reading


def read_table(cls: type[T], value: object, at: At) -> T:
    """A table as the dataclass that declares it.  Raises HostError.

    A class that has a method `verify(at)` is asked whether its fields go together; one that is OPEN
    lets fields through that it does not declare.
    """
    if not isinstance(value, dict):
        at.refuse(f"expected a table, found {kind_of(value)}")
    declared = {each.key: each for each in _declared(cls)}
    values: dict[str, object] = {}
    for each in declared.values():
        if each.key in value:
            values[each.attribute] = _value(each, value[each.key], at / each.key)
        elif each.required:
            (at / each.key).refuse("missing")
    for key in value:
        if key not in declared and not getattr(cls, "OPEN", False):
            (at / key).refuse("unknown field")
    table = cls(**values)
    verify = getattr(table, "verify", None)
    if verify is not None:
        verify(at)
    return table


def _value(each: _Field, value: object, at: At) -> object:
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


def one_line(value: object, at: At) -> str:
    """A string without line breaks and control characters."""
    if not isinstance(value, str):
        at.refuse(f"expected text, found {kind_of(value)}")
    if not value.isprintable():
        at.refuse("expected printable text on one line")
    return value


def kind_of(value: object) -> str:
    """What a TOML value is, in words."""
    names: list[tuple[type, str]] = [
        (bool, "true or false"),
        (int, "a number"),
        (float, "a fraction"),
        (str, "text"),
        (list, "an array"),
        (dict, "a table"),
    ]
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


# ---------------------------------------------------------------------------------------- writing


def write_table(table: object, path: str, said: Comments, samples: object = None) -> Iterator[str]:
    """The lines of a table's fields, without its own head.

    What is not there is left out, or written as a comment where `samples`, a table of the same class,
    has it.
    """
    assert is_dataclass(table)
    for each in _declared(type(table)):
        where = f"{path}.{each.key}" if path else each.key
        value = getattr(table, each.attribute)
        lines = _lines(each, value, where, said)
        if not lines and samples is not None:
            sample = _lines(each, getattr(samples, each.attribute), where, Comments())
            lines = [_as_comment(line) for line in sample]
        elif samples is not None and each.table is not None:
            lines = _lines(each, value, where, said, getattr(samples, each.attribute))
        yield from lines


def _lines(
    each: _Field, value: Any, path: str, said: Comments, samples: object = None
) -> list[str]:
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
        rows = [f"{_key(key)} = {_inline(row)}" for key, row in value.items()]
        return ["", *lines, _commented(f"[{path}]", beside), *rows] if rows else []
    return ["", *lines, _commented(f"[{path}]", beside), *write_table(value, path, said, samples)]


def _inline(row: object) -> str:
    """A table in braces."""
    pairs = [
        f"{each.key} = {each.kind.toml(getattr(row, each.attribute))}"
        for each in _declared(type(row))
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


def _key(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else quoted(key)


def either(words: Iterable[str]) -> str:
    """`a, b or c`, of at least one."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def quoted(text: str) -> str:
    """A basic string of TOML 1.0: a quote, a backslash and what is not printable are escaped."""
    plain = {character for character in text if character.isprintable()} - {'"', "\\"}
    return '"' + "".join(c if c in plain else f"\\U{ord(c):08X}" for c in text) + '"'


# ------------------------------------------------------------------------------------ JSON Schema


def json_schema(cls: type) -> dict[str, object]:
    """A table as JSON Schema (draft 2020-12)."""
    properties: dict[str, object] = {}
    for each in _declared(cls):
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
        "required": [each.key for each in _declared(cls) if each.required],
        "additionalProperties": False,
    }
