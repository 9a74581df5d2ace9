"""What came out of a serial port, as lines that are safe to show.

Rules: bytes in, text out.  Nothing that a terminal would obey is left: control characters are
written as Python writes them (\\x1b), because a kernel's output is input from outside like any
other.
"""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""C0, DEL and C1 (ECMA-48), but for the tabulator and the line feed."""


def shown(line: str) -> str:
    """A line without its carriage returns, its control characters made visible."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", line.replace("\r", ""))


def lines_of(data: bytes) -> tuple[str, ...]:
    """The lines that are not blank; what comes after the last line feed is one too."""
    lines = (shown(line) for line in data.decode("latin-1").split("\n"))
    return tuple(line for line in lines if line.strip())


def heard_line(number: int) -> str:
    """Why a machine stopped listening at a line, which is counted from 1."""
    return "the first line is whole" if number == 1 else f"line {number} is the one waited for"
