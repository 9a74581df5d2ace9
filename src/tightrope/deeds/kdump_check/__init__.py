"""A host's crash kernel tried: its initrd, its region, its command line, in QEMU.

    words   the command line that it is tried with
    told    what its console and its witness say: how far it came, and why no further
    shown   the core that its /proc/vmcore shows, and what `pgd` says of it
    kept    the dead kernel's memory outside its region, before and after
    deed    all of it, once
    size    again and again, for the smallest region that still works

    from tightrope.deeds.kdump_check import Asked, check

    print(check(Asked(image=..., host=..., request=...)).why)

Rules: the crash kernel speaks the verdict; a rehearsal of the walk comes first.

May import: abi, errors, kdump, machine, memory, model, participants, plan, printk, vmcore
"""

from tightrope.deeds.kdump_check.deed import Asked, check
from tightrope.deeds.kdump_check.size import smallest

__all__ = ["Asked", "check", "smallest"]
