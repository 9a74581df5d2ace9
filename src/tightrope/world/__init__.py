"""A description laid out as memory: page tables, gdt, idt, stack, registers, notes.

    world     Host + relocation code -> World
    bios      what a PC's firmware leaves in low memory
    notes     what the old kernel leaves for a crash kernel: registers, vmcoreinfo
    xen       the same of a hypervisor with a dom0
    planned   whichever of them a plan is for
    filtered_by what makedumpfile asks of a dead kernel: a described one answers

May import: abi, errors, memory, model, routines, x86
"""

from tightrope.world.planned import planned
from tightrope.world.world import lay

__all__ = ["lay", "planned"]
