"""What is left of a kexec that failed: what a log says of its end, and what that comes to.

    Remains      one thing that a log says: an exception, a last word
    Candidate    a cause, with what speaks for it and what against
    Explanation  all of it, and where on the way it ended

Rules: frozen, keyword-only, slotted; nouns only, see the package.  What a log does not say is None
or empty: nothing is filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from tightrope.model.walk import Step


class LogKind(StrEnum):
    """Whose words they are; the value is what a report calls it."""

    HANDLER = "the exception handlers of Linux's control page"
    QEMU = "QEMU's log of exceptions (-d int,cpu_reset)"
    KVM = "a trace of KVM's exits"
    CONSOLE = "a console"
    PURGATORY = "a purgatory"
    XEN = "a hypervisor's console"


class Ending(StrEnum):
    """How it ended, as far as the log goes; the value is what a report calls it."""

    TRIPLE_FAULT = "triple fault"
    STOPPED = "stopped for good"
    LAST_WORD = "last word"
    WENT_ON = "went on"
    """The log goes on into what came after: nothing fell there."""


class Phase(StrEnum):
    """Who had the CPU; the value is what a report calls it."""

    OLD_KERNEL = "the old kernel"
    HYPERVISOR = "the hypervisor"
    WALK = "the walk"
    PURGATORY = "the purgatory"
    DECOMPRESSOR = "the new kernel's decompressor"
    NEW_KERNEL = "the new kernel"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True, slots=True)
class Raised:
    """An exception as a log has it; what the log leaves out is None or not among the registers."""

    vector: int
    error_code: int | None
    rip: int | None
    address: int | None
    """CR2, of a page fault."""
    registers: Mapping[str, int] = field(default_factory=dict)
    """By their names: rax, cr0, cr3, efer, gdt and idt (bases), idt_limit, gdt_limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Remains:
    """One thing that a log says."""

    kind: LogKind
    line: int
    """Of the log, from 1."""
    offset: int
    """Bytes from the log's first."""
    ending: Ending
    phase: Phase
    words: str
    """The line itself, or what the lines say, and no more."""
    raised: tuple[Raised, ...] = ()
    """Exceptions in their order: the first is why, the others came of its delivery."""
    cut: bool = False
    """The log ends in the middle of what it says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A cause that would leave such a log."""

    cause: str
    speaks_for: tuple[str, ...] = ()
    speaks_against: tuple[str, ...] = ()
    rehearsed: bool | None = None
    """True: a rehearsal with this mistake falls just so; False: it does not; None: not rehearsed.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """A log, and what it comes to."""

    source: str
    size: int
    """Bytes of the log."""
    remains: tuple[Remains, ...]
    """In the order of the log; the last one is how it ended."""
    phase: Phase
    step: Step | None
    """Of the walk; None where it is not known, or it was not on the walk."""
    place: str | None
    """Where the instruction lies, in words."""
    instruction: str | None
    """The instruction, as the rehearsed code has it there."""
    entry: str | None
    """The table entry that matters, in words."""
    candidates: tuple[Candidate, ...]
    """The likeliest first."""
    compared_with: str | None
    """The rehearsal that addresses were compared with; None without one."""
    limits: tuple[str, ...]
    """What the log does not say, one sentence each."""

    @property
    def last(self) -> Remains | None:
        """How it ended; None where nothing in the log is known."""
        return self.remains[-1] if self.remains else None

    @property
    def fell(self) -> bool | None:
        """It fell; False where the log goes on, None where it does not say."""
        if self.last is None or self.last.ending is Ending.LAST_WORD:
            return None
        return self.last.ending is not Ending.WENT_ON
