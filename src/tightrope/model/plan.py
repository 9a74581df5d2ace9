"""Where every byte goes: what `plan.prepare` gives.

Rules: frozen, keyword-only, slotted; nouns only, see the package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tightrope.memory import Extent
from tightrope.model.intent import Intent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from tightrope.model.host import Host
    from tightrope.model.loaded import Loaded


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan(Intent):
    """An intent, and what it was made from and with."""

    host: Host
    stub: str
    """The routine that the entry stub is made from; somebody else's segments have none of it."""
    head: int
    """The first word of the page list (`kimage->head`)."""
    list_pages: Mapping[int, NDArray[np.unsignedinteger]]
    """Frame address -> the words of each page of the list, as wide as the old kernel's."""
    spare: tuple[Extent, ...]
    """Frames set aside for page_table_a and page_table_b."""
    loaded: Loaded | None = None
    """The segments as somebody else's loader has placed them; None where they are our own."""
