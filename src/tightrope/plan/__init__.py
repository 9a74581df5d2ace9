"""Where every byte goes: image + host -> Plan.

    placement     which addresses the segments get in the new kernel's world
    boot_params   the zero page
    frames        which frames of the old kernel hold the sources, the list, the control page
    backup        low memory, saved by a crash kexec
    page_list     the IND_ words, as the kernel writes them
    xen           what differs when the jump is asked of a hypervisor
    xen_argument  the load hypercall's bytes

May import: abi, errors, memory, model, p2m, routines, x86
"""

from tightrope.plan.prepare import Request, prepare
from tightrope.plan.xen_argument import LoadCall, load_call

__all__ = ["LoadCall", "Request", "load_call", "prepare"]
