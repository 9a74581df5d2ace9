"""Purgatories: what lies between the relocation code and the entry stub, and looks before it goes
on.

    ours   routines/purgatory_64.S: SHA-256 of every other segment, then the stub

Rules: it reads segments and its own, and writes its own alone.
"""

from __future__ import annotations

from tightrope import routines
from tightrope.model import Contract, Kind, Participant, Place

CONTRACT = Contract(
    reads=frozenset({Place.PURGATORY, Place.SEGMENTS}),
    writes=frozenset({Place.PURGATORY}),
    old={},
    digest="digest",
)


def purgatory() -> Participant:
    """Ours."""
    return Participant(
        name=routines.PURGATORY_64,
        kind=Kind.PURGATORY,
        code=routines.read(routines.PURGATORY_64),
        contract=CONTRACT,
    )
