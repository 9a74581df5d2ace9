"""What the filling of tables gives to the composing of a handover.

Rules: a value; nothing here does anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from tightrope.memory import Phys
from tightrope.model import Named, Tables


@dataclass(frozen=True, kw_only=True, slots=True)
class Laid:
    """Tables, and what else of a handover depends on them."""

    table_a: Tables
    table_b: Tables | None
    reach: tuple[Named, ...] = ()
    """What page_table_b has to map besides what the plan says."""
    levels: tuple[Phys, ...] = ()
    """Zero pages in the old kernel's image, for tables that the code at V makes."""
    jumps_to: Phys | None = None
    """Where step 4 lands, when that is not the control page."""
    swap_page: Phys | None = None
    prepared: Tables | None = None
    """page_table_a as dom0 filled it in, where a hypervisor fills it again."""
