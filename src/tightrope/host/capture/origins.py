"""Where each field of a captured host comes from, and what its reader should know besides.

Rules: a field has one origin; what is assumed says what would settle it.  Each assumption is a
note as well, so that it is read before the file is used.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tightrope.host.document import FactTable

AS_ROOT = "the same capture as root"


@dataclass(slots=True)
class Origins:
    """Facts by field; notes without repetition."""

    facts: dict[str, FactTable] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Something that the reader of the file should know."""
        shown = text if text.isprintable() else repr(text)
        if shown not in self.notes:
            self.notes.append(shown)

    def read(self, name: str, where: str) -> None:
        """A file of the machine says it."""
        self.facts[name] = FactTable(read=where)

    def derived(self, name: str, how: str) -> None:
        """It follows from what was read."""
        self.facts[name] = FactTable(derived=how)

    def assumed(self, name: str, what: str, settle: str) -> None:
        """Nothing says it."""
        self.note(f"assumed: {what}")
        self.facts[name] = FactTable(assumed=what, settle=settle)
