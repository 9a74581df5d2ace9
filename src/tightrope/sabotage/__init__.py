"""Ways to break a handover on purpose, each caught by its own rule at its own step.

A check that has never failed proves nothing.  `rehearse --sabotage NAME` breaks one thing in the
description, the code, the tables, the list or the contents, and lets the walk run: the finding named
here has to be the first.  `rehearse` applies the four kinds of change where they belong.

    edits        finished values changed into others: an entry, a word of the list, bytes of code
    changes      what each sabotage changes
    pdptes       the one that needs code of its own
    xen          the same under a hypervisor
    leaving      the same where a 64-bit hypervisor leaves long mode
    sabotage     what one is
    sabotages    all of them
    through_xen  those of a handover through Xen

Rules: a sabotage leaves everything else as it was.  It may use symbols of the routines, so it breaks
the shipped code and no other.

May import: abi, errors, memory, model, routines, x86
"""

from tightrope.sabotage.sabotage import Sabotage
from tightrope.sabotage.sabotages import ENTRY_SABOTAGES, SABOTAGES, XEN_SABOTAGES, named

__all__ = ["ENTRY_SABOTAGES", "SABOTAGES", "XEN_SABOTAGES", "Sabotage", "named"]
