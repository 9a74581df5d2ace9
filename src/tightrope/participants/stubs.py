"""Entry stubs: what makes the state that an entry of the new kernel wants, from the relocation
code's.

    enter_64           a 64-bit entry
    enter_32_from_64   a 32-bit entry, from long mode, which it leaves
    enter_32           a 32-bit entry, with paging off already

Sources: Linux Documentation/arch/x86/boot.rst; Multiboot 0.6.96, 3.2; Xen docs/misc/pvh.pandoc.

Rules: a stub lies in one page with its stack, and touches nothing else.
"""

from __future__ import annotations

from tightrope import routines
from tightrope.model import Contract, Kind, Participant, Place

CONTRACT = Contract(reads=frozenset({Place.OWN_PAGE}), writes=frozenset({Place.OWN_PAGE}), old={})


def stub(name: str) -> Participant:
    """The stub that is made from a routine.  Raises FileNotFoundError for one that is none."""
    return Participant(name=name, kind=Kind.STUB, code=routines.read(name), contract=CONTRACT)
