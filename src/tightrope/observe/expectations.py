"""What a watcher knows of a walk before it begins, whoever says so: a plan, or a machine that is
observed.

Rules: frozen values; this file knows neither a plan nor a handover.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tightrope.memory import Extent, Phys, Virt
from tightrope.model import Buffer, Cpu, Registers
from tightrope.observe.steps import StepTracker

NOWHERE = Extent(0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Expectations:
    """Addresses of a walk, the CPU at its call, and the tables that it may use."""

    cpu: Cpu
    registers: Registers
    """The CPU at the call at V."""
    entry: int
    """The new kernel's own first instruction, where the walk is over."""
    relocation: Virt
    """V."""
    control_page: Phys
    """P."""
    root_a: int
    """What CR3 holds under page_table_a."""
    root_b: int | None
    """The same under page_table_b; None where paging is turned off instead."""
    frames: Callable[[int], bool]
    """Whether the walk has business in a frame, by its number."""
    tables: Mapping[int, Buffer] = field(default_factory=dict)
    """Frame address -> a table page as it is before the walk: stale translations are made from it."""
    digests: frozenset[int] = frozenset()
    """Where functions begin that make a digest: see `observe.digest`."""
    program: Extent = NOWHERE
    """Where a loader's own program lies, which may work on megabytes; empty without one."""
    saves: frozenset[int] = frozenset()
    """Frame numbers into which it saves low memory: nothing but bytes will ever lie there."""
    way_out: frozenset[int] = frozenset()
    """What CR3 holds on a hypervisor's way out of long mode, which comes before V; empty without
    one."""

    def steps(self) -> StepTracker:
        """The steps of the walk, at its call."""
        return StepTracker(self.relocation, way_out=bool(self.way_out))
