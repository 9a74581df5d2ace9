"""What a record of the log is, and how it is written.

Rules: no memory is read here but through `Memory`, which knows numbers and VMCOREINFO's names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tightrope.errors import TightropeError


class NoLog(TightropeError):
    """There is no log to read: why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """One call of printk; `caller` is a task's number, or a CPU's with the highest bit set."""

    sequence: int
    nanoseconds: int
    level: int | None
    caller: int | None
    text: str


def lines(record: Record) -> Iterator[str]:
    """As dmesg writes it: the time before each line."""
    seconds, rest = divmod(record.nanoseconds, 1_000_000_000)
    for line in record.text.split("\n"):
        yield f"[{seconds:5d}.{rest // 1000:06d}] {line}"


def visible(raw: bytes) -> str:
    """Text of a log as it may be shown: nobody's terminal is driven by it."""
    text = raw.decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Memory:
    """A dead kernel's memory by linear address, and the names of its VMCOREINFO.

    `read` raises LookupError for what is not there.  Words are `word` bytes, little-endian.
    """

    info: Mapping[str, str]
    read: Callable[[int, int], bytes]
    word: int

    def number(self, virt: int, size: int) -> int:
        """A number at an address.  Raises NoLog."""
        try:
            return int.from_bytes(self.read(virt, size), "little")
        except LookupError as err:
            raise NoLog(f"{virt:#x} is not in the dump: {err}") from err

    def pointer(self, virt: int) -> int:
        """An address at an address.  Raises NoLog."""
        return self.number(virt, self.word)

    def bytes(self, virt: int, size: int) -> bytes | None:
        """Bytes, None where they are not all there."""
        try:
            return self.read(virt, size)
        except LookupError:
            return None

    def has(self, symbol: str) -> bool:
        """Whether VMCOREINFO names it."""
        return f"SYMBOL({symbol})" in self.info

    def symbol(self, name: str) -> int:
        """An address.  Raises NoLog."""
        return self._said(f"SYMBOL({name})", 16)

    def offset(self, name: str) -> int:
        """Of a field, `struct.field`.  Raises NoLog."""
        return self._said(f"OFFSET({name})", 10)

    def size(self, name: str) -> int:
        """Of a struct.  Raises NoLog."""
        return self._said(f"SIZE({name})", 10)

    def _said(self, key: str, base: int) -> int:
        try:
            value = int(self.info[key], base)
        except (KeyError, ValueError) as err:
            raise NoLog(f"VMCOREINFO has no {key}") from err
        if not 0 <= value < 1 << 64:
            raise NoLog(f"VMCOREINFO's {key} is {value}")
        return value
