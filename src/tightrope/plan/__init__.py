"""Where every byte goes: image + host -> Plan.

    request       what a user asks for
    prepare       which is decided first: destinations, then frames, then who calls V
    entering      which entry can be reached, and the stub that makes its state
    destinations  whether the image can be asked for at all, and who places it: we or another loader
    place         which segments there are, and which of them is given room first
    room          how high and how low each may lie: the kernel, its initrd, all the rest
    placement     which RAM there is for that: what is left alone, what is free, where a hole is
    taken         what another loader's segments are, by what they hold
    file_load     where kexec_file_load would put a bzImage
    moved         an image at another address than the one it is linked at
    handed        what the new kernel is handed, by protocol
    boot_params   the zero page
    setup_data    the list that hangs on it
    purgatory     which segments our purgatory looks at
    crash         a crash kernel's core header and its own memory map
    multiboot     Multiboot's information
    start_info    PVH's
    frames        a pool of the old kernel's free frames
    allocate      which of them hold what is no destination: sources, list, control page, tables
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
