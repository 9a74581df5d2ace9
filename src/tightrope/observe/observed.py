"""What a watcher needs of a CPU that it watches, whichever engine that is.

Rules: a protocol and nothing else; Unicorn's engine and a KVM virtual CPU both keep it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from tightrope.observe.physical import Ram


class Values(Protocol):
    """Numbers that can be read and replaced, one for each register."""

    def __iter__(self) -> Iterator[int]: ...
    def __getitem__(self, at: int, /) -> int: ...
    def __setitem__(self, at: int, value: int, /) -> None: ...


class Words(Protocol):
    """A few registers, read or written in one call, in the order in which they were named."""

    def read(self) -> Values:
        """Their values as they are; the same sequence each time."""

    def write(self) -> None:
        """Put the sequence's values into the CPU."""


class ObservedCpu(Protocol):
    """The CPU that is about to execute an instruction."""

    @property
    def ram(self) -> Ram:
        """Its memory."""

    @property
    def bits(self) -> int:
        """64 for an old kernel in long mode, else 32."""

    def read(self, name: str) -> int:
        """One register by name; for segments the selector."""

    def table(self, name: str) -> tuple[int, int]:
        """Base and limit of "gdtr" or "idtr"."""

    def batch(self, *names: str) -> Words:
        """See `Words`."""

    def stop(self) -> None:
        """Do not execute the instruction."""

    def forget_code(self) -> None:
        """Bytes of code were changed behind the CPU's back."""
