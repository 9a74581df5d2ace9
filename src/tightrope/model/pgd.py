"""A dead kernel's page tables, read and judged: where the root is, what they map, what is wrong.

    Core -> Root -> Sweep -> Pgd          (made by `tightrope.vmcore`)
                      |---> Range, Change

Rules: frozen, keyword-only, slotted; nouns only, see the package.  Linear addresses are
sign-extended 64-bit numbers; sizes are bytes.

May import: memory, model
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from tightrope.memory import Phys, Virt
from tightrope.model.dump import Core
from tightrope.model.root import Root

WRITABLE, USER, EXECUTABLE, GLOBAL = 1, 2, 4, 8
"""The rights of a mapping, as bits of `Sweep.rights`."""

U64 = NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """Entries that lead nowhere; one element each, at the most DAMAGE_LIMIT of `count`.

    `levels` names the table that the entry is in; `at` is its physical address, `virt` the first
    linear address under it (sign-extended).  The root itself has level "CR3" and `at` 0.
    """

    count: int
    levels: tuple[str, ...]
    at: U64
    entries: U64
    virt: U64


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """All mappings, sorted by `virt` (sign-extended); `size` in bytes, `rights` as bits above."""

    virt: U64
    phys: U64
    size: U64
    rights: NDArray[np.uint8]
    tables: int
    """Distinct tables that were read."""
    missing: Damage
    """Entries whose table is not in the memory that the core describes."""
    untold: Damage
    """Entries whose table the core describes and leaves out: zeros, or not dumped."""
    reserved: Damage
    """Present entries with reserved bits: the CPU raises #PF for each address under them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """[virt, virt + size) is [phys, phys + size); `rights` is "r" and letters of w, x, u, g or
    -."""

    virt: Virt
    phys: Phys
    size: int
    rights: str


class Kind(StrEnum):
    """What happened to a range of linear addresses on the way from one pgd to the other."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A range of linear addresses that the two pgds map differently; None is: not mapped."""

    kind: Kind
    before: Range | None
    after: Range | None

    @property
    def virt(self) -> Virt:
        """The first linear address."""
        either = self.before or self.after
        return either.virt if either else Virt(0)


class Wholeness(StrEnum):
    """The three answers."""

    WHOLE = "whole"
    NOT_WHOLE = "not whole"
    UNTOLD = "cannot be told"


@dataclass(frozen=True, kw_only=True, slots=True)
class Pgd:
    """What the crashed kernel's tables say.  Bytes are linear: a page mapped twice counts twice."""

    core: Core
    root: Root
    found: Sweep
    sizes: Mapping[int, int]
    """Bytes of a page -> mappings of that size."""
    bytes_mapped: int
    held: int
    """Mappings whose every byte the core holds."""
    partly: int
    elsewhere: int
    """Mappings of which the core holds nothing: devices, holes, memory that was not dumped."""
    faults: tuple[str, ...]
    """What is wrong with the tables."""
    doubts: tuple[str, ...]
    """Why it cannot be told whether something is wrong."""

    @property
    def mappings(self) -> int:
        """How many pages are mapped."""
        return len(self.found.virt)

    @property
    def answer(self) -> Wholeness:
        """A fault is one whatever else is in doubt."""
        if self.faults:
            return Wholeness.NOT_WHOLE
        return Wholeness.UNTOLD if self.doubts else Wholeness.WHOLE

    @property
    def whole(self) -> bool:
        """Nothing is wrong with the tables, and nothing in doubt."""
        return self.answer is Wholeness.WHOLE
