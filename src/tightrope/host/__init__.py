"""The old kernel's world: described in a file, then laid out as bytes.

    profile   TOML text -> Host          (the schema is the commented example.toml beside it)
    world     Host + relocation code -> World: page tables, gdt, idt, stack, registers
    notes     what the old kernel leaves for a crash kernel: registers, vmcoreinfo
    capture   what /proc and /sys say of this machine -> TOML text
    guest     a real old kernel that stands in a machine -> Host and World

    xen_*     the same of a hypervisor with a dom0: its file, examples, world, notes and hypercalls

May import: abi, errors, memory, model, p2m, routines, x86
"""

from tightrope.host.capture import Captured, capture
from tightrope.host.examples import FOUR_FOUR, PAGE_OFFSETS, SPLITS, example
from tightrope.host.guest import Guest, Told, read_guest, with_code
from tightrope.host.live import read_tree
from tightrope.host.profile import read
from tightrope.host.world import lay
from tightrope.host.xen_capture import xen_file
from tightrope.host.xen_examples import xen_example
from tightrope.host.xen_hypercall import Hypervisor
from tightrope.host.xen_world import lay_xen

__all__ = [
    "FOUR_FOUR",
    "PAGE_OFFSETS",
    "SPLITS",
    "Captured",
    "Guest",
    "Hypervisor",
    "Told",
    "capture",
    "example",
    "lay",
    "lay_xen",
    "read",
    "read_guest",
    "read_tree",
    "with_code",
    "xen_example",
    "xen_file",
]
