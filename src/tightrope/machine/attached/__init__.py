"""A QEMU guest of the user's: attached to, read, stopped at places, and left as it was.

    sockets   one address, HOST:PORT or a path, and a connection to it
    guest     registers, physical memory, breakpoints, stop and go; and leaving

Rules: the guest is somebody else's.  Nothing in it is written, all breakpoints are taken out when
it is left, whatever ended the watch, and it runs on unless it is to be left standing.

May import: errors, machine.qemu, memory, model, x86
"""

from tightrope.machine.attached.guest import Attached

__all__ = ["Attached"]
