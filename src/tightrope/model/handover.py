"""Everything that `machine_kexec` needs: control page, tables, page list.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.memory import Phys

if TYPE_CHECKING:
    from tightrope.model.host import Registers
    from tightrope.model.plan import Plan, Segment
    from tightrope.model.world import Piece, World


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """A routine assembled from a `.S` file; `symbols` are offsets into `data`."""

    name: str
    data: bytes
    symbols: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """One tree of page tables: frame address -> 4096 bytes."""

    root: Phys
    pages: Mapping[int, memoryview]


@dataclass(frozen=True, kw_only=True, slots=True)
class Handover:
    """Everything `machine_kexec` needs: control page, page_table_a, page_table_b, page list."""

    plan: Plan
    world: World
    design: str
    code: Code
    page_table_a: Tables
    page_table_b: Tables | None
    """None where step 5 turns paging off."""
    pieces: tuple[Piece, ...]
    """All bytes that lie in memory before the walk, apart from the source pages' contents."""
    segments: tuple[Segment, ...]
    """What lies in the source pages (the plan's segments, unless a sabotage says otherwise)."""
    registers: Registers
    """The CPU at the call: rip = V and the routine's arguments."""
    at_v: Code | None = None
    """The code at V where it is not the control page's: then the old kernel's page stays behind V."""
    static: tuple[Piece, ...] = ()
    """What the design has in the old kernel's own image, outside the crash region with it."""
    jumps_to: Phys | None = None
    """Where step 4 lands, None for the control page."""
    prepared: Tables | None = None
    """Xen's v1: page_table_a as dom0 filled it in, before the hypervisor overwrote it."""
