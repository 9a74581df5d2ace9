"""What a view is: one command's value, as a sheet for people and as plain facts for programs.

Rules: both come from the same value and say the same; neither opens a file nor decides anything.
The shape of the facts is a TypedDict, from which the exported schema is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from tightrope.model.sheet import Sheet

Value = TypeVar("Value")


@dataclass(frozen=True, kw_only=True, slots=True)
class View(Generic[Value]):
    """How a value is shown.  `version` grows when a key goes, or means something else."""

    name: str
    """The schema's name: the words of the command."""
    version: int
    shape: type
    """The TypedDict of `facts`."""
    sheet: Callable[[Value], Sheet]
    facts: Callable[[Value], Mapping[str, object]]
