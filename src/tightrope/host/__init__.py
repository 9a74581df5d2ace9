"""The old kernel's world: described in a file, then laid out as bytes.

    profile   TOML text -> Host          (the schema is the commented example.toml beside it)
    world     Host + relocation code -> World: page tables, gdt, idt, stack, registers

May import: errors, memory, model, x86
"""

from tightrope.host.profile import example, read
from tightrope.host.world import lay

__all__ = ["example", "lay", "read"]
