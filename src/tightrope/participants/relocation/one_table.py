"""Biederman's answer in the thread, and what Linux became: one identity map with V added, loaded
twice.

It exists only where V is not one of the identity addresses.

Source: the thread; the routine is that of `two_tables`, with one root in both registers.
"""

from __future__ import annotations

from tightrope.model import EVERY_PROMISE, Contract, Paging, Participant, Promise, Trees
from tightrope.participants.relocation.two_tables import ARGUMENTS, walker


def one_table(paging: Paging) -> Participant:
    """The design for a mode."""
    return walker(
        "one-table",
        paging,
        Contract(
            arguments=ARGUMENTS,
            trees=Trees.ONE,
            promises=EVERY_PROMISE - {Promise.NOTHING_ELSE_MAPPED},
        ),
    )
