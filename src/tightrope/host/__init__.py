"""The old kernel's world: described in a file, then laid out as bytes.

    profile   TOML text -> Host          (the schema is the commented example.toml beside it)
    world     Host + relocation code -> World: page tables, gdt, idt, stack, registers
    notes     what the old kernel leaves for a crash kernel: registers, vmcoreinfo
    capture   what /proc and /sys say of this machine -> TOML text

May import: abi, errors, memory, model, x86
"""

from tightrope.host.capture import Captured, capture
from tightrope.host.examples import PAGE_OFFSETS, example
from tightrope.host.live import read_tree
from tightrope.host.profile import read
from tightrope.host.world import lay

__all__ = ["PAGE_OFFSETS", "Captured", "capture", "example", "lay", "read", "read_tree"]
