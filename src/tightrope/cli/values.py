"""What an argument's text says: a number, a time, an extent.

Rules: text in, a value out, or argparse's own error, which names the argument.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from tightrope.errors import BadInput, near

if TYPE_CHECKING:
    from pathlib import Path

Value = TypeVar("Value")

SIZE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?([KkMmGgTt])(?:i?[Bb])?")
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
LONGEST = 40
"""Characters of an argument that an error repeats."""


def path(text: str) -> Path:
    """A file or a folder, there or not."""
    from pathlib import Path

    return Path(text)


def line(text: str) -> str:
    """A command line as UTF-8 whatever the locale; what is none keeps its bytes (`errors.raw`)."""
    return os.fsencode(text).decode("utf-8", "surrogateescape")


def seconds(text: str) -> float:
    """Seconds of an argument; `nan` would never be over."""
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"{text} is not a time to listen for")
    return seconds


def count(text: str) -> int:
    """How many: 1 at least."""
    count = int(text, 0)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 1 up")
    return count


def number(text: str) -> int:
    """A whole number, in hexadecimal with 0x."""
    try:
        return int(text, 0)
    except ValueError as err:
        raise argparse.ArgumentTypeError(f"{_shown(text)} is not a number") from err


def is_size(text: str) -> bool:
    """A number of bytes with its unit: `256M`, `1.5GiB`; a number alone may be a file's name."""
    return SIZE.fullmatch(text) is not None


def size(text: str) -> int:
    """Bytes: a number, or one with K, M, G or T behind it, of 1024, 1024^2 and so on."""
    found = SIZE.fullmatch(text)
    bytes = int(float(found[1]) * UNITS[found[2].upper()]) if found else number(text)
    if not 0 < bytes < 1 << 64:
        raise argparse.ArgumentTypeError(f"{_shown(text)} is not a size of memory")
    return bytes


def extent(text: str) -> tuple[int, int]:
    """START+SIZE, both in bytes, of which there are some below 2^64."""
    start, plus, length_text = text.partition("+")
    if not plus:
        raise argparse.ArgumentTypeError(f"{_shown(text)} is not START+SIZE")
    first, length = number(start), size(length_text)
    if first < 0 or length < 1 or first + length > 1 << 64:
        raise argparse.ArgumentTypeError(f"{_shown(text)} is not a stretch of memory below 2^64")
    return first, length


def region(text: str) -> int | tuple[int, int]:
    """SIZE, with its unit, or START+SIZE: how large, or also where."""
    return size(text) if is_size(text) else extent(text)


def _shown(text: str) -> str:
    """What an argument was, as far as it fits on a line."""
    return repr(text if len(text) <= LONGEST else f"{text[:LONGEST]}...")


def chosen(
    name: str | None, known: Mapping[str, Value], *, what: str, lists: str
) -> Sequence[Value]:
    """All values, or that of a name; names are in lower case.  Raises BadInput with the nearest,
    and `lists`, what to type for all of them."""
    if name is None:
        return tuple(known.values())
    found = known.get(name.lower())
    if found is None:
        hint = near(name.lower(), known, lists=lists)
        raise BadInput(f"{_shown(name)} is not {what}{hint}", source="command line")
    return (found,)
