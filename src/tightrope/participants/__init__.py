"""The programs between the call and the new kernel: each a file with its code, landmarks and
contract.

    relocation   what switches tables and copies: this project's designs, and the ways through Xen
    way_out      a 64-bit hypervisor's way to 32-bit code
    linux        Linux's own, found in an old kernel's image
    purgatory    what looks at the segments before it goes on
    stubs        what makes the state that an entry of the new kernel wants
    chain        the programs of one jump, in their order
    from_file    a user's own relocation code, out of a file
    xen          Xen's own relocation code, found in a hypervisor's image

Rules: a participant is a value that says everything of itself; nothing here builds a table or lays
a byte, and nobody else tells participants apart by their names.

May import: choices, errors, memory, model, routines
"""

from tightrope.choices import OURS
from tightrope.participants.chain import chain
from tightrope.participants.relocation import DESIGNS, named
from tightrope.participants.stubs import stub

__all__ = ["DESIGNS", "OURS", "chain", "named", "stub"]
