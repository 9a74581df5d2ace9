"""The exceptions of the whole house.  They carry facts; `str()` of one is the line a user reads.

    TightropeError
     |- BadInput            what we were given is wrong; carries source, field, offset, limit
     |   |- ImageError          a kernel image
     |   |- HostError           a description of an old kernel
     |   |- PlanError           image and host that cannot go together
     |   |   |- DesignError         relocation code that cannot walk there, where a plan can be made
     |   |- CoreError           a memory core of a crashed kernel
     |- MissingPart         a library or device that this computer does not have: install it
     |- CannotBe            a machine that cannot be a given old kernel's computer, installed or not
     |- MachineError        the machine port was used in a way that it cannot serve
     |   |- WireError           what a machine's process sent is not its protocol
     |- PerformError        this very machine refused what it was asked to do

Rules: no exception here is raised for a *finding*: a handover that falls is a result, not an error.
Everything a room raises on purpose derives from `TightropeError`; anything else is a bug of ours.
"""

from __future__ import annotations

import copyreg
from collections.abc import Iterable


def visible(text: str) -> str:
    """Text from a file, or a file's name, as it may be shown: what cannot be printed is escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{_byte(c):02x}" for c in text)


def _byte(character: str) -> int:
    """What to say of what cannot be printed: of a byte that was no text (PEP 383) that byte."""
    number = ord(character)
    return number - 0xDC00 if 0xDC80 <= number <= 0xDCFF else number


def raw(text: str) -> bytes:
    """The bytes that text from outside was: in it what was no UTF-8 is kept as PEP 383 keeps it.

    Raises UnicodeEncodeError for what no bytes are read as.
    """
    return text.encode("utf-8", "surrogateescape")


def near(word: str, known: Iterable[str], *, lists: str | None = None) -> str:
    """How the line about a word that is none ends: the known ones that it resembles, and what to
    type for all of them."""
    from difflib import get_close_matches  # takes as long to load as the rest of `--help`

    found = get_close_matches(word, known, n=3, cutoff=0.5)
    hint = f"; near it: {', '.join(found)}" if found else ""
    return hint + (f"; `{lists}` lists all" if lists else "")


def reason(error: Exception) -> str:
    """Why a file was refused: the system's reason, without its number and the file's name."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


class TightropeError(Exception):
    """The root: the command line turns it into one line on stderr and exit status 2."""


class BadInput(TightropeError):
    """What we were given is wrong.

    `source` names the file (or "host", "command line"), `field` what in it, `offset` where (bytes
    from the start of the file, None when it has no place), `limit` the bound that was broken.
    """

    def __init__(
        self,
        problem: str,
        *,
        source: str,
        field: str | None = None,
        offset: int | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.source = source
        self.field = field
        self.offset = offset
        self.limit = limit

    def __reduce__(self) -> tuple[object, ...]:
        """A worker's error is raised again where its result is asked for."""
        # What pickle's protocol 2 calls, and typeshed does not know.
        new = copyreg.__newobj__  # type: ignore[attr-defined]
        return new, (type(self), self.problem), self.__dict__

    def __str__(self) -> str:
        where = self.source
        if self.field is not None:
            where += f": {self.field}"
        if self.offset is not None:
            where += f" at offset {self.offset:#x}"
        bound = "" if self.limit is None else f" (limit {self.limit:#x})"
        return f"{where}: {self.problem}{bound}"


class ImageError(BadInput):
    """A kernel image is not what it says, or is of a kind that is not read (yet)."""


class HostError(BadInput):
    """A host description has a wrong type, a wrong value, or contradicts itself."""


class PlanError(BadInput):
    """Image and host are each fine, but the one cannot be put into the other."""


class DesignError(PlanError):
    """A plan can be made for this host, but this relocation code cannot exist on it."""


class CoreError(BadInput):
    """A memory core is not what it says, or holds too little to be judged."""


class MissingPart(TightropeError):
    """Something that has to be on this machine is not: names it and says how to get it."""


class CannotBe(TightropeError):
    """A machine that is here cannot be the host that it is to walk on: why, and what fits."""


class MachineError(TightropeError):
    """A machine was asked for what it cannot do (a bug in the caller, or a limit of its own)."""


class WireError(MachineError):
    """The other end of a socket does not speak the protocol that it should."""


class PerformError(TightropeError):
    """The machine we run on refused: `number` is its errno, None where there is none."""

    def __init__(self, problem: str, *, number: int | None = None) -> None:
        super().__init__(problem)
        self.number = number
