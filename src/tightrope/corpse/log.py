"""A log's bytes: where a word stands last, its line, and what is around it.

Rules: nothing is copied but a window of at most `WINDOW` bytes around a place.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from tightrope.errors import visible

WINDOW = 1 << 17
"""Bytes that are read around a place: QEMU's record of an exception has 1,300."""
LONGEST = 200
"""Characters of a line that is quoted."""


@dataclass(frozen=True, slots=True)
class Log:
    """`data` is what the file holds."""

    data: bytes | mmap.mmap

    def last(self, *words: bytes) -> tuple[int, bytes] | None:
        """The place of the last of some words, and which it is; None where none stands there."""
        places = [(self.data.rfind(word), word) for word in words]
        at, word = max(places, default=(-1, b""))
        return None if at < 0 else (at, word)

    def number(self, offset: int) -> int:
        """The line that has a byte, from 1."""
        count, at = 1, 0
        while at < offset:
            end = min(at + (1 << 22), offset)
            count += bytes(self.data[at:end]).count(b"\n")
            at = end
        return count

    def line(self, offset: int) -> str:
        """The line around a place, as it may be shown."""
        start = max(self.data.rfind(b"\n", 0, offset) + 1, offset - LONGEST)
        end = self.data.find(b"\n", offset, offset + LONGEST)
        text = bytes(self.data[start : end if end >= 0 else offset + LONGEST])
        return visible(text.decode("latin-1").strip())[:LONGEST]

    def line_before(self, offset: int) -> str:
        """The last line before that one which is not empty, "" where there is none."""
        start = max(self.data.rfind(b"\n", 0, offset), 0)
        lines = bytes(self.data[max(0, start - LONGEST) : start]).split(b"\n")
        texts = [visible(each.decode("latin-1").strip()) for each in lines]
        return next((each for each in reversed(texts) if each), "")

    def before(self, offset: int) -> bytes:
        """At most `WINDOW` bytes that end at a place, whole lines."""
        start = max(0, offset - WINDOW)
        if start:
            start = self.data.find(b"\n", start, offset) + 1
        return bytes(self.data[start:offset])

    def behind(self, offset: int) -> bytes:
        """At most `WINDOW` bytes that begin at a place."""
        return bytes(self.data[offset : offset + WINDOW])
