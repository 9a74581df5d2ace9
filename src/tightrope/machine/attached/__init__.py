"""A QEMU guest of the user's: attached to, read, stopped at places, and left as it was.

    sockets   one address, HOST:PORT or a path, and a connection to it
    guest     registers, physical memory, breakpoints, stop and go; and leaving
    started   a QEMU of ours, for whoever has none and wants one kexec of it

Rules: the guest is somebody else's, or treated as if it were.  Nothing in it is written, all
breakpoints are taken out when it is left, whatever ended the watch, and it runs on unless it is to
be left standing.

May import: errors, machine.qemu, memory, model, x86
"""

from tightrope.machine.attached.guest import LEAVE_SECONDS, Attached
from tightrope.machine.attached.started import Started

__all__ = ["LEAVE_SECONDS", "Attached", "Started"]
