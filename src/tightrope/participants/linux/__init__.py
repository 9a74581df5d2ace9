"""Linux's own relocation code: found in the old kernel's image, and told apart by what it does.

    Vmlinux --found--> where relocate_kernel lies, its bytes, its variables
            --convention--> how it is called: LINUX_6, LINUX_7, LINUX_I386, or "not known"
            --contracts--> a participant

    found        where an old kernel has its relocation code
    convention   which calling convention that has
    contracts    what each convention is handed, touches and promises
    indirect     where a 32-bit function makes its last call through a register

Rules: the bytes are the user's kernel's and never shipped; what is not known for certain is an
ImageError.

May import: errors, memory, model
"""

from tightrope.participants.linux.contracts import participant
from tightrope.participants.linux.convention import Convention
from tightrope.participants.linux.found import Found, find

__all__ = ["Convention", "Found", "find", "participant"]
