"""Reading a TOML table field by field, with types, bounds and paths in every error.

Rules: this file knows TOML and `HostError`, and nothing about hosts.  `done()` at the end of a table
refuses keys that nobody asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from tightrope.errors import HostError


class Reader:
    """One table of a document; `path` is how a reader of the file would name it."""

    def __init__(self, table: dict[str, object], source: str, path: str = "") -> None:
        self._table = table
        self._source = source
        self._path = path
        self._asked: set[str] = set()

    def refuse(self, key: str, problem: str, limit: int | None = None) -> NoReturn:
        """Raise HostError for a field of this table."""
        raise HostError(problem, source=self._source, field=self._name(key), limit=limit)

    def _name(self, key: str) -> str:
        # A quoted key may hold anything; an error has one line.
        shown = key if key.isprintable() and key else repr(key)
        return f"{self._path}.{shown}" if self._path else shown

    def __contains__(self, key: str) -> bool:
        return key in self._table

    def is_text(self, key: str) -> bool:
        """Whether the field is there and is a string."""
        return isinstance(self._table.get(key), str)

    def _get(self, key: str) -> object:
        self._asked.add(key)
        if key not in self._table:
            self.refuse(key, "missing")
        return self._table[key]

    def number(
        self, key: str, *, low: int = 0, high: int | None = None, bits: int | None = None
    ) -> int:
        """An integer in [low, high], or of at most `bits` bits; a boolean is not a number."""
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse(key, f"expected a whole number, found {_kind(value)}")
        # TOML integers are 64-bit signed by the standard; Python's reader takes larger ones, which
        # is what makes addresses in the upper half writable as they are.
        if value < low:
            self.refuse(key, f"{value:#x} is too small", limit=low)
        top = high if high is not None else (1 << (bits or 52)) - 1
        if value > top:
            self.refuse(key, f"{value:#x} is too large", limit=top)
        return value

    def aligned(self, key: str, alignment: int, *, low: int = 0, bits: int | None = None) -> int:
        """A number that is a multiple of `alignment`."""
        value = self.number(key, low=low, bits=bits)
        if value % alignment:
            self.refuse(key, f"{value:#x} is not a multiple of {alignment:#x}")
        return value

    def flag(self, key: str) -> bool:
        """true or false."""
        value = self._get(key)
        if not isinstance(value, bool):
            self.refuse(key, f"expected true or false, found {_kind(value)}")
        return value

    def text(self, key: str) -> str:
        """A string on one line."""
        value = self._get(key)
        if not isinstance(value, str):
            self.refuse(key, f"expected text, found {_kind(value)}")
        if not value.isprintable():
            self.refuse(key, "expected printable text on one line")
        return value

    def choice(self, key: str, of: Sequence[str]) -> str:
        """One of the given strings."""
        value = self.text(key)
        if value not in of:
            self.refuse(key, f"{value!r} is not one of {', '.join(of)}")
        return value

    def table(self, key: str) -> Reader:
        """A sub-table."""
        value = self._get(key)
        if not isinstance(value, dict):
            self.refuse(key, f"expected a table, found {_kind(value)}")
        return Reader(value, self._source, self._name(key))

    def tables(self, key: str) -> list[Reader]:
        """An array of tables; empty when the key is not there."""
        self._asked.add(key)
        value = self._table.get(key, [])
        if not isinstance(value, list):
            self.refuse(key, f"expected an array of tables, found {_kind(value)}")
        for number, each in enumerate(value):
            if not isinstance(each, dict):
                self.refuse(f"{key}[{number}]", f"expected a table, found {_kind(each)}")
        return [
            Reader(each, self._source, f"{self._name(key)}[{number}]")
            for number, each in enumerate(value)
        ]

    def done(self) -> None:
        """Refuse keys that nobody has read."""
        for key in self._table:
            if key not in self._asked:
                self.refuse(key, "unknown field")


def _kind(value: object) -> str:
    names: list[tuple[type, str]] = [
        (bool, "true or false"),
        (int, "a number"),
        (float, "a fraction"),
        (str, "text"),
        (list, "an array"),
        (dict, "a table"),
    ]
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)
