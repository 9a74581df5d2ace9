"""The kinds of values in a document, and how each is read, bounded, refused and written.

Rules: a kind knows one value and its own notation; what a table is, is `tables`'.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn, Protocol

from tightrope.errors import HostError

BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


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

    TOML's integers are 64-bit signed by the standard; Python's reader takes larger ones, which is
    what makes addresses in the upper half writable as they are.
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
    """Printable text on one line; `pattern` is a regular expression for all of it, `what` its
    name."""

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
            "{ "
            + ", ".join(f"{bare_or_quoted(key)} = {quoted(text)}" for key, text in value.items())
            + " }"
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
    """What the file says of a field: behind its value or its table's name, and in lines above
    it."""

    beside: str = ""
    above: str = ""


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


def bare_or_quoted(key: str) -> str:
    return key if BARE_KEY.fullmatch(key) else quoted(key)


def either(words: Iterable[str]) -> str:
    """`a, b or c`, of at least one."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def quoted(text: str) -> str:
    """A basic string of TOML 1.0: a quote, a backslash and what is not printable are escaped."""
    plain = {character for character in text if character.isprintable()} - {'"', "\\"}
    return '"' + "".join(c if c in plain else f"\\U{ord(c):08X}" for c in text) + '"'
