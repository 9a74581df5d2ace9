"""A host file while it is written: TOML lines, each with a comment, and notes beside them.

Rules: this file knows TOML's notation and nothing about hosts.  What ends up in a comment is on one
line and printable, whoever wrote it.
"""

from __future__ import annotations

from tightrope.memory import Extent


class Draft:
    """Lines in the order they are put; notes without repetition."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        """Something that the reader of the file should know."""
        if text not in self.notes:
            self.notes.append(text)

    def assume(self, what: str) -> str:
        """Note that nobody told this; the words for the field's comment."""
        self.note(f"assumed: {what}")
        return f"assumed: {what}"

    def comment(self, text: str) -> None:
        """A line of its own."""
        self._lines.append(f"# {one_line(text)}")

    def gap(self) -> None:
        """An empty line."""
        self._lines.append("")

    def put(self, key: str, value: int | bool | str, comment: str) -> None:
        """One field; all but small numbers are written in hexadecimal."""
        self._lines.append(f"{key} = {_toml(value)}  # {comment}")

    def table(self, name: str) -> None:
        """Begin `[name]`."""
        self._lines += ["", f"[{name}]"]

    def extent(self, table: str, extent: Extent, last: str, value: str, comment: str = "") -> None:
        """One element of an array of tables: start, size, and a third field of text."""
        self._lines += [
            *([""] if comment else []),
            f"[[{table}]]" + (f"  # {comment}" if comment else ""),
            f"start = {extent.start:#x}",
            f"size = {extent.size:#x}",
            f"{last} = {_toml(value)}",
        ]

    def text(self, title: str) -> str:
        """The whole file: title, notes, lines."""
        head = [f"# {title}", *(f"# note: {one_line(note)}" for note in self.notes), ""]
        return "\n".join([*head, *self._lines]) + "\n"


def one_line(text: str) -> str:
    """Text that may stand in a comment."""
    return text if text.isprintable() else repr(text)


def _toml(value: int | bool | str) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:#x}" if value > 0xFF else str(value)
    return f'"{value}"'
