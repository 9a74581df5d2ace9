"""What a crash kernel did when it was tried: how far it came, why no further, and what it took.

Rules: frozen, keyword-only, slotted; nouns only, see the package.  Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum

from tightrope.memory import Extent
from tightrope.model.host import Host
from tightrope.model.run import Console
from tightrope.model.verdict import Criterion, Finding, Outcome


class Reached(IntEnum):
    """The last place on the way to a dump that was surely reached."""

    NOWHERE = 0
    ENTRY = 1
    KERNEL = 2
    INIT = 3
    ROOT = 4
    SAVED = 5

    @property
    def words(self) -> str:
        """In a sentence: it reached ..."""
        return _WORDS[self]


_WORDS = (
    "nothing: it would not be entered",
    "its entry",
    "the kernel",
    "its init",
    "the root file system",
    "the end: a dump is saved",
)


class Cause(StrEnum):
    """Why it came no further."""

    WALK = "the walk"
    MEMORY = "out of memory"
    INITRD = "no initrd"
    ROOT = "no root file system"
    MODULE = "a module is missing"
    VMCORE = "no /proc/vmcore"
    SAVING = "the dump was not saved"
    OUTSIDE = "it wrote outside its region"
    PANIC = "a panic"
    TIME = "time"
    FELL = "it fell"


@dataclass(frozen=True, kw_only=True, slots=True)
class Used:
    """Memory of a crash kernel; what nobody said is None."""

    region: tuple[Extent, ...]
    """All that it may use, the first MiB left out."""
    touched: int | None = None
    """Bytes of it in pages that were ever written: never less than the most that was in use."""
    total: int | None = None
    """MemTotal: what the kernel left of it for everything else."""
    least: int | None = None
    """The lowest MemAvailable that was seen."""

    @property
    def size(self) -> int:
        """Bytes of all of it."""
        return sum(each.size for each in self.region)

    @property
    def peak(self) -> int | None:
        """Bytes that were not available at the worst moment seen: kernel, initrd and processes."""
        return None if self.least is None else self.size - self.least


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownCore:
    """What the crash kernel's /proc/vmcore shows of the dead one."""

    size: int
    rows: int
    """PT_LOADs."""
    cpus: int
    """NT_PRSTATUS notes."""
    release: str | None
    """OSRELEASE of its VMCOREINFO; None without one."""
    pgd: str
    """What `tightrope pgd` answers of it."""
    whole: bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """The dead kernel's memory outside of what a crash may write, before its crash kernel ran and
    after."""

    size: int
    """Bytes that were compared."""
    held: int
    """Bytes of them in pages that held something before."""
    changed: tuple[Extent, ...]
    """Pages that are not what they were."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Smallest:
    """The smallest region that still works, and what was tried to find it."""

    size: int
    step: int
    """How far below it was found not to work, at the most."""
    tried: tuple[tuple[int, bool], ...]
    advised: int
    """With a margin for what a real machine has and a PC has not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CrashBoot:
    """One crash kernel, tried."""

    outcome: Outcome
    reached: Reached
    cause: Cause | None
    """None where it came as far as it was asked to."""
    why: str
    evidence: tuple[str, ...]
    """Lines of its console."""
    used: Used
    shown: ShownCore | None
    kept: Kept | None = None
    """None where it was not entered."""
    waits: float = 0.0
    """Seconds that the old kernel waits before it enters it, for DMA into CMA memory."""
    findings: tuple[Finding, ...]
    """Of the walk."""
    asked: tuple[Criterion, ...] = ()
    """The rules that the walk was asked; empty where there was none."""
    console: Console | None
    command_line: str
    host: Host
    """The old kernel's world as it was described."""
    kernel: str
    initrd: str | None
    code: str
    """Whose relocation code was walked."""
    disk: bool
    """It had a disk, so that it could save a dump."""
    seconds: float
    target: str = ""
    """Where its configuration saves a dump; empty where none was read."""
    smallest: Smallest | None = None
