"""What this computer has of what tightrope uses, and what each missing part costs.

Rules: frozen, keyword-only, slotted; nouns only, see the package.

May import: nothing
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One thing that may be here: `found` says which, None where it is not."""

    name: str
    found: str | None
    costs: str
    """What cannot be done without it."""
    mend: str
    """How to get it."""
    needed: bool = False
    """A rehearsal on the emulator cannot do without."""
