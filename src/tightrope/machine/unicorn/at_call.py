"""The CPU put where `machine_kexec` calls V.

Unicorn reads the descriptors of the selectors from the gdt, and dies where it cannot.  A kernel may
have loaded its segments and then given its gdt up, as Linux does before the call: then flat
descriptors lie in the first page of memory while Unicorn reads them, seen at an address that is
nobody's.  So they do where CS can be executed and not read, which a CPU takes and Unicorn does not:
while it loads the register it is told that CS can be read.

Rules: translations are asked of `translation` while registers are set up; memory is as it was
afterwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tightrope.errors import MachineError
from tightrope.machine.unicorn.engine import Engine, Failed
from tightrope.memory import PAGE_SIZE
from tightrope.model import Registers
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.record import known_descriptors
from tightrope.x86.cpu import EFER_LMA, flat_descriptor

SCRATCH = 0x1000
"""The linear address of a gdt that is there only while registers are set up."""
READABLE = 1 << 41
"""Of a code segment's descriptor (SDM volume 3, 3.4.5.1)."""
DPL = 45
"""The lowest bit of a descriptor's privilege level (SDM figure 3-8)."""
LIMIT = 0xFFFF
"""Its limit: a hypervisor's selectors are above 0xe000.  All its pages are one, seen again and
again."""


class AtCall:
    """An engine on its way to the call, under the old kernel's tables."""

    def __init__(self, engine: Engine, mmu: WatchedMmu) -> None:
        self._engine = engine
        self._mmu = mmu
        self._scratch: int | None = None

    def translation(self, page: int) -> int | None:
        """Where a page leads meanwhile: descriptors are only looked at."""
        if self._scratch is not None and SCRATCH <= page <= SCRATCH + LIMIT:
            return self._scratch
        return self._mmu.before_the_walk(page)

    def put(self, registers: Registers) -> None:
        """Load the CPU.  Raises MachineError for a state that it cannot be put into."""
        try:
            found = known_descriptors(self._mmu, registers)
            known = {name: descriptor for name, descriptor in found.items() if descriptor}
            if len(known) < len(found):
                self._from(_flat(registers), registers)
            elif not known.get("cs", READABLE) & READABLE:
                self._from({**known, "cs": known["cs"] | READABLE}, registers)
            else:
                self._engine.load(registers)
        except Failed as err:
            raise MachineError(f"the emulated CPU does not take the registers: {err}") from err

    def _from(self, descriptors: Mapping[str, int], registers: Registers) -> None:
        """Into a state whose segments were loaded from these, whatever the gdt has now."""
        page = self._engine.ram.extents[0].start
        view = self._engine.ram.view(page, PAGE_SIZE)
        assert view is not None, "memory consists of whole pages"
        kept = bytes(view)
        for name, descriptor in descriptors.items():
            view[registers.segments[name] & 0xFF8 :][:8] = descriptor.to_bytes(8, "little")
        self._scratch = page
        try:
            self._engine.load(replace(registers, gdt=(SCRATCH, LIMIT)))
        finally:
            self._scratch = None
            view[:] = kept
        self._engine.set_table("gdtr", *registers.gdt)


def _flat(registers: Registers) -> dict[str, int]:
    """What a kernel had loaded before it gave its gdt up, by segment register."""
    bits = 64 if registers.efer & EFER_LMA else 32
    return {
        name: flat_descriptor(code=name == "cs", bits=bits if name == "cs" else 32)
        # A 32-bit kernel keeps a process's gs: ring 3's selector takes ring 3's segment.
        | (selector & 3) << DPL
        for name, selector in registers.segments.items()
        if selector & ~7
    }
