"""How long nobody answers: what is done between the old kernel's last word and the new one's first.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class DigestBy(StrEnum):
    """What our purgatory makes its digest with: the best that the CPU has."""

    SHA = "the CPU's SHA instructions"
    AVX2 = "AVX2, eight stripes at once"
    PORTABLE = "general registers"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    """Bytes a second of one CPU; `unpack` counts what comes out, by compression."""

    copy: float
    digest: float
    by: DigestBy
    unpack: Mapping[str, float]
    source: str
    """Who says so: a phrase for reports."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One thing that takes time; `bytes` that it goes through, `instructions` where they are
    counted."""

    what: str
    bytes: int
    instructions: int | None
    seconds: float
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Saving:
    """What an option would save, in seconds; less than nothing where it costs."""

    option: str
    seconds: float
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Blackout:
    """The budget of one plan, in the order in which its items come."""

    items: tuple[Item, ...]
    savings: tuple[Saving, ...]
    rates: Rates

    @property
    def seconds(self) -> float:
        """All of it."""
        return sum((each.seconds for each in self.items), 0.0)
