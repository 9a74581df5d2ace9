"""The design as merged in Linux 2.6.20: the chains for V and for P are written one after the other.

Where both share a slot of a table, the second chain is written over the first, and V is gone.

Source: Linux 2.6.20 arch/i386/kernel/machine_kexec.c and arch/x86_64/kernel/relocate_kernel.S; the
routine is that of `two_tables`.
"""

from __future__ import annotations

from tightrope.model import Contract, Paging, Participant, Trees
from tightrope.participants.relocation.two_tables import ARGUMENTS, walker


def damm_v4(paging: Paging) -> Participant:
    """The design for a mode."""
    return walker("damm-v4", paging, Contract(arguments=ARGUMENTS, trees=Trees.CHAINS))
