"""What a dump says of the kernel that died: when, of what, where its CPUs stood, what is left out.

    Core, Root -> Dead          (made by `tightrope.vmcore`)

Rules: frozen, keyword-only, slotted; nouns only, see the package.  What a dump does not say is
None, and `untold` says why.

May import: model, printk
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from tightrope.model.dump import Core
from tightrope.printk import Record


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped:
    """A CPU as its NT_PRSTATUS left it; the notes are in the order of the CPUs."""

    pid: int
    registers: Mapping[str, int]
    """Empty where the note is: this CPU was not reached."""
    at: int
    """rip or eip."""
    user: bool
    """It ran a process's own code."""
    place: str | None
    """`symbol+0x1a`, where the dump has its kernel's symbols."""


class Belonging(StrEnum):
    """Whether a host file describes the machine and the boot that a dump is of."""

    TOGETHER = "belong together"
    APART = "do not belong together"
    UNTOLD = "cannot be told"


@dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """A dump held against a host file, and what speaks for it and against."""

    belonging: Belonging
    source: str
    """The host file."""
    agree: tuple[str, ...]
    differ: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dead:
    """The kernel that died."""

    core: Core
    release: str | None
    crashed: int | None
    """Seconds since 1970."""
    panic: str | None
    """The line of the log that says why."""
    cpus: tuple[Stopped, ...]
    tainted: int | None
    """tainted_mask."""
    log: tuple[Record, ...]
    held: int
    """Bytes that the dump has."""
    described: int
    """Bytes of memory that it speaks of."""
    untold: tuple[str, ...]
    """What could not be read, and why."""
    match: Match | None = None
    """None without a host file."""

    @property
    def left_out(self) -> int:
        """Bytes that the dump speaks of and has not."""
        return self.described - self.held
