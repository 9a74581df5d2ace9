"""A running guest's own kexec: waited for, checked before it is let go, and followed.

    memory    the guest's memory by physical and by linear address
    width     what differs between 64 bits and 32
    kernel    the old kernel in it: where it lies, its symbols, its relocation code
    xen       the same of a hypervisor, and what its dom0 has loaded
    resources its memory in the words of /proc/iomem, and what its firmware said
    notes     where it leaves its notes when it dies
    loaded    what it has loaded: struct kimage, page list, segments, their digest
    observed  all of it as a handover
    seen      what is wrong with it that no walk has to show
    follow    from the call to the new kernel, by breakpoints
    stuck     whether it can still go on by itself
    console   what it says, in the file that QEMU writes
    deed      the function that people call
    called    an image that was called, where it should have been jumped to

Rules: the guest is somebody else's.  It is read and stopped; nothing in it is written.

May import: abi, check, deeds, errors, host, image, machine, memory, model,
participants, plan, x86
"""

from tightrope.deeds.watch.deed import attached, watch
from tightrope.machine.attached import LEAVE_SECONDS

__all__ = ["LEAVE_SECONDS", "attached", "watch"]
