"""The state of a machine made of terms, and what has to hold on the way.

Rules: values only; `machine` steps them.  An obligation is a formula and where it must hold, with a
sentence for the case that it does not.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from tightrope.prove.isa.decode import Instruction
from tightrope.prove.isa.memory import Memory
from tightrope.prove.isa.state import State
from tightrope.prove.isa.terms import Truth, Word

OLD, TABLE_A, TABLE_B, OFF = "the old tables", "page_table_a", "page_table_b", "paging off"
ENTRY = -1
"""The offset of the entry: control has left the routine."""


class Ends(Exception):
    """This path goes no further: an obligation that cannot hold was recorded."""


Turn = tuple[Instruction, bool]
"""A conditional branch, and whether it was taken."""


@dataclass(frozen=True, slots=True)
class Obligation:
    """`formula` must hold under `path`, at `at` (None: of the state as a whole)."""

    at: Instruction | None
    says: str
    path: tuple[Truth, ...]
    formula: Truth
    turns: tuple[Turn, ...] = ()
    in_window: bool = False
    """The old stack was given up,
    and the old kernel's handlers would still be run on the new one.
    """


@dataclass(kw_only=True, slots=True)
class Symbolic(State[Word, Truth]):
    """A state of the machine.  `home` is "V" or "P": where the running copy of the image lies."""

    memory: Memory
    tables_in_use: str
    stale: Truth
    """Old global translations may still be used."""
    home: str
    offset: int
    path: tuple[Truth, ...] = ()
    turns: tuple[Turn, ...] = ()
    hidden: dict[str, int] = field(default_factory=dict)
    """The descriptors that were loaded, as numbers."""
    stack_gone: bool = False
    """rsp is no longer the old kernel's."""
    old_stack: dict[int, Word] = field(default_factory=dict)
    """Bytes on the old kernel's stack, by their distance from its pointer at the call."""
    unserialized: bool = True
    """Something may have been copied since the last serializing instruction."""

    def copied(self) -> Self:
        out = State.copied(self)
        out.hidden = dict(self.hidden)
        return out
