"""A dump held against what was known of its machine before the crash: what a crash may write.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.memory import Extent


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """The dump and the plan."""

    source: str
    """The host file."""
    writes: tuple[Extent, ...]
    """All that a crash kexec and its kernel may write."""
    agree: tuple[str, ...]
    differ: tuple[str, ...]
