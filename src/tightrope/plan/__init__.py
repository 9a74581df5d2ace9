"""Where every byte goes: image + host -> Plan.

    request       what a user asks for
    entering      which entry can be reached, and the stub that makes its state
    destinations  the destinations and what leads to them: all that a loader needs
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

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tightrope.model import Module
    from tightrope.plan.prepare import prepare
    from tightrope.plan.request import Request
    from tightrope.plan.xen_argument import LoadCall, load_call

__all__ = ["LoadCall", "Module", "Request", "load_call", "prepare"]

_HOMES = {
    "LoadCall": "plan.xen_argument",
    "Module": "model",
    "Request": "plan.request",
    "load_call": "plan.xen_argument",
    "prepare": "plan.prepare",
}
"""Name -> the module that has it.  Only what is asked for is imported: who loads a plan without a
walk needs its destinations, and no numpy."""

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """One of the names, from its module."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        home = import_module(f"tightrope.{_HOMES[name]}")
        found = globals()[name] = getattr(home, name)
        return found
