"""Where every byte goes: image + host -> Plan.

    request       what a user asks for
    entering      which entry can be reached, and the stub that makes its state
    place         the destinations, in the order in which they find room
    placement     which addresses the segments get in the new kernel's world
    room          room for the segments, given out one after the other
    moved         an image at another address than the one it is linked at
    handed        what the new kernel is handed, by protocol
    boot_params   the zero page
    multiboot     Multiboot's information
    start_info    PVH's
    frames        a pool of the old kernel's free frames
    allocate      which of them hold the sources, the list, the control page and the tables
    backup        low memory, saved by a crash kexec
    page_list     the IND_ words, as the kernel writes them
    xen           what differs when the jump is asked of a hypervisor
    xen_argument  the load hypercall's bytes

May import: abi, errors, memory, model, routines, x86
"""

from tightrope.model import Module
from tightrope.plan.prepare import prepare
from tightrope.plan.request import Request
from tightrope.plan.xen_argument import LoadCall, load_call

__all__ = ["LoadCall", "Module", "Request", "load_call", "prepare"]
