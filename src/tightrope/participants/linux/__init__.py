"""Linux's own relocation code: found in the old kernel's image, and told apart by what it does.

    Vmlinux --found--> where relocate_kernel lies, its bytes, its variables
            --convention--> how it is called: linux_6, linux_7, linux_i386, or "not known"
            --linux--> a participant

Rules: the bytes are the user's kernel's and never shipped; what is not known for certain is an ImageError.

May import: errors, memory, model
"""

from tightrope.participants.linux.convention import Convention
from tightrope.participants.linux.found import Found, find

__all__ = ["Convention", "Found", "find"]
