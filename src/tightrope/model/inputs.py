"""What was given to be handed over, as it came in: whoever reads memory back compares it with this.

Rules: frozen, keyword-only, slotted; nouns only, see the package.  No planner changes what is here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightrope.model.image import Buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Module:
    """A file that a Multiboot or PVH kernel is handed, with a command line of its own."""

    data: Buffer
    source: str
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What a user gives beside image and host, or the image carries where he does not."""

    command_line: str = ""
    """Without what a plan adds to it for a crash."""
    initrd: Buffer | None = None
    modules: tuple[Module, ...] = ()
