"""A 64-bit hypervisor's way to a 32-bit dom0's code: long mode is left, and PAE's paging turned on.

Source: x86_64/compat_kexec.S of Xen 3.1 to 4.3 (commit 18a6498ae3); routines/leave_xen.S.
"""

from __future__ import annotations

from tightrope import routines
from tightrope.model import Contract, Kind, Participant, Place


def way_out() -> Participant:
    """The hypervisor's code, which runs before V is called."""
    return Participant(
        name="xen-compat",
        kind=Kind.WAY_OUT,
        code=routines.read(routines.LEAVE_XEN),
        contract=Contract(reads=frozenset({Place.ARGUMENTS}), writes=frozenset()),
    )
