"""What a machine saw on the walk, and what the new kernel said after it.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from tightrope.memory import Extent, Phys, Virt
from tightrope.x86.walk import Access, TableVisit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tightrope.model.host import Registers
    from tightrope.model.walk import Step


class Memory(typing.Protocol):
    """Physical memory as a run left it."""

    def read(self, extent: Extent) -> memoryview:
        """The bytes of an extent inside one RAM region.  Raises MachineError outside."""

    def written(self) -> frozenset[int] | None:
        """Numbers of the frames that may hold something, of a memory that was all zeros when the
        old kernel was laid into it; None where it was not, as where a real kernel has booted.
        """

    def held(self, extent: Extent) -> tuple[Extent, ...]:
        """The parts of an extent that may hold something; the others are zeros, and need no
        look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stale:
    """A translation that an older table left in the TLB and that the manual still allows."""

    phys: Phys
    cr3: int
    is_global: bool
    harmless: bool
    """A fetch that finds the same 4096 bytes there, and the right to execute them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """One question to the MMU and its answer."""

    instruction: int
    step: Step
    access: Access
    virt: Virt
    phys: Phys
    cr3: int
    visits: tuple[TableVisit, ...]
    sets_accessed: bool
    """The walker had to set an accessed or dirty bit, that is, to write into a table."""
    stale: tuple[Stale, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisterWrite:
    """A write of a control register, EFER, DR7, a descriptor table or the flags, and its
    instruction."""

    instruction: int
    step: Step
    rip: Virt
    register: str
    before: int
    after: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """An exception, and how far its delivery got."""

    instruction: int
    step: Step
    vector: int
    error_code: int | None
    address: int | None
    """The linear address, for a page fault (what the CPU puts into CR2)."""
    access: Access | None
    rip: Virt
    text: str
    reason: str
    """The manual's reason in words."""
    visits: tuple[TableVisit, ...]
    """The walk of the faulting address up to the entry where it stopped."""
    escalation: tuple[str, ...]
    """What happened on the way to a handler; the last line is the outcome."""
    triple: bool
    explained: bool = True
    """False where the CPU raised it and no rule of the manual that is modelled here says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stretch:
    """A part of the walk in which only instructions ran that had been seen on it before, at full
    speed.

    What it touched is known page by page: arrays of frame numbers, each once, in the order of its
    first access.
    """

    instruction: int
    """The last one before it that was watched."""
    step: Step
    rip: Virt
    """Where it began."""
    reads: NDArray[np.int64]
    writes: NDArray[np.int64]
    instructions: int
    """About how many: by what a turn of its loop took while it was watched."""


class Sight(StrEnum):
    """What a machine may observe on the walk; the value is what a report calls it.

    Registers, memory and descriptors at the end are not here: every machine shows those.
    """

    INSTRUCTIONS = "every instruction"
    """`trace`, `texts` and `step_starts`."""
    TRANSLATIONS = "every translation"
    REGISTER_WRITES = "every write of a control register, segment or table"
    STORES = "every store"
    LOADS = "every load"
    COPIES = "every copy"
    FAULTS = "the exception itself"


EVERYTHING = frozenset(Sight)


class Stop(StrEnum):
    """Why a run ended."""

    ENTRY = "entry"
    FAULT = "fault"
    HALT = "halt"
    LIMIT = "limit"


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What a machine saw between V and the new kernel's first instruction."""

    machine: str
    stop: Stop
    instructions: int
    trace: NDArray[np.uint64]
    """The rip of every instruction, in order; a repeated string instruction counts once."""
    texts: Mapping[int, str]
    """The instruction at each rip, as it was when first executed."""
    step_starts: tuple[tuple[int, Step], ...]
    """(instruction index, step), in order: where each step of the walk began."""
    translations: tuple[Translation, ...]
    register_writes: tuple[RegisterWrite, ...]
    stores: NDArray[np.int64]
    """Shape (n, 4): instruction index, step, physical address, bytes; copies are not among them."""
    loads: NDArray[np.int64]
    """Same shape, for reads."""
    copies: NDArray[np.int64]
    """Shape (n, 4): instruction index, destination, source (physical addresses), bytes."""
    fault: Fault | None
    registers: Registers
    memory: Memory
    descriptors: Mapping[str, int]
    """The descriptors that the segment selectors name, read from the gdt as the CPU would."""
    ports: tuple[tuple[int, int], ...] = ()
    """(port, value) of each OUT, in order."""
    stretches: tuple[Stretch, ...] = ()
    """What ran unwatched on the way; `trace`, `loads`, `stores` and `instructions` are without it.
    """
    blind: tuple[str, ...] = field(default=())
    """What this machine cannot see, one phrase each."""
    sees: frozenset[Sight] = EVERYTHING
    """What it observed on this walk.  What is not among them is empty above, and means nothing."""

    @classmethod
    def unwatched(
        cls,
        *,
        machine: str,
        stop: Stop,
        fault: Fault | None,
        registers: Registers,
        memory: Memory,
        descriptors: Mapping[str, int],
        blind: tuple[str, ...],
        trace: tuple[int, ...] = (),
        step_starts: tuple[tuple[int, Step], ...],
        texts: Mapping[int, str] | None = None,
    ) -> Run:
        """The run of a machine that only shows where a walk ended; `trace` has where it was seen to
        be."""
        import numpy as np

        none = np.zeros((0, 4), np.int64)
        return cls(
            machine=machine,
            stop=stop,
            instructions=len(trace),
            trace=np.array(trace, np.uint64),
            texts=texts or {},
            step_starts=step_starts,
            translations=(),
            register_writes=(),
            stores=none,
            loads=none,
            copies=none,
            fault=fault,
            registers=registers,
            memory=memory,
            descriptors=descriptors,
            blind=blind,
            sees=frozenset({Sight.FAULTS}),
        )


class Ending(StrEnum):
    """Why a machine stopped listening to a new kernel."""

    HEARD = "heard"
    """What was waited for was said."""
    HALTED = "halted"
    """The CPU halted and nothing can wake it, or the kernel panicked and stays there."""
    FELL = "fell"
    """An exception that nothing handles, or a machine that shut down."""
    WAITS = "waits"
    """It waits for what this machine does not have."""
    TIME = "time"
    """The time was over."""
    UNABLE = "unable"
    """The machine cannot execute what comes next."""


class Speaker(StrEnum):
    """Who spoke last on a console; the value is what a report calls it."""

    NOBODY = "nobody"
    DECOMPRESSOR = "the decompressor"
    KERNEL = "the new kernel"


@dataclass(frozen=True, kw_only=True, slots=True)
class Console:
    """What a new kernel said after it was entered."""

    lines: tuple[str, ...]
    """Its output, safe to show: control characters are written as `\\x1b`."""
    seconds: float
    stopped: str
    """Why nobody listened any longer, in words."""
    ending: Ending = Ending.HEARD
    rip: int | None = None
    """Where the CPU stood then, None where the machine does not say."""
    exception: str | None = None
    """The last exception that was raised after the entry, in words; None without one."""
    speaker: Speaker = Speaker.NOBODY
    """Filled in by whoever knows what was entered."""
