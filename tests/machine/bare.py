"""A handover on Unicorn as it comes: its own MMU, no hooks, no acceleration, no look ahead.

Rules: the second opinion.  Memory is laid here, page by page, from the finished handover alone;
nothing of `tightrope.machine` takes part.  Physical addresses stay below 1 TiB, which is all that
Unicorn's own MMU reaches.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from tightrope.memory import Extent, union
from tightrope.model import Handover
from tightrope.x86.cpu import GENERAL, SEGMENTS

# Unicorn carries py.typed but no annotations: here it is plainly untyped.
unicorn: Any = importlib.import_module("unicorn")
const: Any = importlib.import_module("unicorn.x86_const")

PAGE = 4096
EFER = 0xC000_0080


def _id(name: str) -> int:
    return int(getattr(const, f"UC_X86_REG_{name.upper()}"))


@dataclass
class Bare:
    """A bare run that is over; `error` is Unicorn's, None when it stopped by itself."""

    uc: Any
    error: str | None

    def read(self, name: str) -> int:
        """A register."""
        return int(self.uc.reg_read(_id(name)))

    @property
    def efer(self) -> int:
        """IA32_EFER."""
        return int(self.uc.reg_read(const.UC_X86_REG_MSR, EFER))

    @property
    def general(self) -> dict[str, int]:
        """The general registers by name."""
        return {name: self.read(name) for name in GENERAL}

    @property
    def segments(self) -> dict[str, int]:
        """The selectors by name."""
        return {name: self.read(name) for name in SEGMENTS}

    def table(self, name: str) -> tuple[int, int]:
        """Base and limit of gdtr or idtr."""
        _selector, base, limit, _flags = self.uc.reg_read(_id(name))
        return int(base), int(limit)

    def memory(self, extent: Extent) -> bytes:
        """Physical bytes."""
        return bytes(self.uc.mem_read(extent.start, extent.size))


def run(handover: Handover, *, instructions: int = 0) -> Bare:
    """From the call to the new kernel's first instruction, a halt, an error or a count."""
    plan = handover.plan
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.ctl_set_cpu_model(const.UC_CPU_X86_ICELAKE_SERVER)
    for extent in union(each.page_aligned() for each in plan.host.memory.ram):
        uc.mem_map(extent.start, extent.size)
    sources = iter(plan.sources.tolist())
    for segment in handover.segments:
        data = bytes(segment.data).ljust(segment.destination.page_aligned().size, b"\0")
        for at in range(0, len(data), PAGE):
            uc.mem_write(next(sources) * PAGE, data[at : at + PAGE])
    for piece in (*handover.world.pieces, *handover.pieces):
        uc.mem_write(piece.phys, bytes(piece.data))
    now = handover.registers
    uc.reg_write(_id("cr4"), now.cr4)
    uc.reg_write(const.UC_X86_REG_MSR, (EFER, now.efer))
    uc.reg_write(_id("cr3"), now.cr3)
    uc.reg_write(_id("cr0"), now.cr0)
    uc.reg_write(_id("gdtr"), (0, *now.gdt, 0))
    uc.reg_write(_id("idtr"), (0, *now.idt, 0))
    for name, value in now.segments.items():
        uc.reg_write(_id(name), value)
    for name, value in now.general.items():
        uc.reg_write(_id(name), value)
    uc.reg_write(_id("eflags"), now.rflags)
    error = None
    try:
        uc.emu_start(now.rip, plan.kernel_entry, 0, instructions)
    except unicorn.UcError as err:
        error = str(err)
    return Bare(uc, error)
