"""Segments that somebody else's loader has placed, and the program that runs before the new kernel.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.model.recording import HeldSegment

if TYPE_CHECKING:
    from tightrope.choices import Loader
    from tightrope.model.participant import Participant


@dataclass(frozen=True, kw_only=True, slots=True)
class Habits:
    """What a loader writes into boot_params besides what the image's header and the host say.

    `fields` has the values of a field that it may leave there, None for any; `setup_data` the types
    of the nodes that it hangs on the list.
    """

    fields: Mapping[str, frozenset[int] | None]
    setup_data: frozenset[int]
    words: frozenset[str] = frozenset()
    """What it adds to a crash kernel's command line, each up to its `=`."""
    first_ram: int = 0
    """Where its memory map begins: what of the machine's RAM lies below is left out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Loaded:
    """Segments with their places and their entry, and whose they are."""

    loader: Loader
    by: str
    """Who has placed them, in words: "kexec-tools 2.0.25", "kexec_file_load of Linux
    6.1.0-57-amd64"."""
    source: str
    """Where they come from, for errors."""
    segments: tuple[HeldSegment, ...]
    entry: int
    crash: bool
    narrow: bool
    """For a 32-bit old kernel."""
    purgatory: Participant | None
    """The program at the entry; None where it is the new kernel's own."""
    habits: Habits
