"""Purgatories: the programs that a loader has run between the copy and the new kernel.

    an object (relocatable)  --laid at the segment-->  its bytes, but for the words that the loader fills in
                                                       |
    the segment that is entered  ----- the same? ------+-->  a participant: symbols, what it may write

    ours          this project's own
    found         kexec-tools' and the kernel's
    relocatable   an object, laid at an address

A segment that nobody has an object for is walked as well: what it may write is then all of its
segment.

Rules: an object is believed where its code is the segment's, byte for byte.

May import: errors, memory, model, routines
"""

from tightrope.participants.purgatory.found import found
from tightrope.participants.purgatory.relocatable import Relocatable, read

__all__ = ["Relocatable", "found", "read"]
