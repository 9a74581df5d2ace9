"""What killed a CPU that is found dead: an exception inferred from where it stands.

A machine that runs at full speed tells of a triple fault only that there was one.  The CPU still
stands at the instruction that could not be executed, with its tables: so the same questions are
asked that a watch asks ahead of an instruction.

Rules: what the machine itself reported (that it fell, rip, CR2) is never overruled; where no reason
can be found, the exception has none.  Nothing here changes memory.
"""

from __future__ import annotations

from dataclasses import replace

from tightrope.errors import MachineError
from tightrope.memory import PAGE_SIZE
from tightrope.model import Fault, Registers, Step
from tightrope.observe.expectations import Expectations
from tightrope.observe.lookout import Lookout
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.observed import Words
from tightrope.observe.physical import Ram
from tightrope.observe.record import fault
from tightrope.observe.trouble import Trouble
from tightrope.x86.cpu import CR0_PG, EFER_LMA, Descriptor

PAGE_FAULT, DOUBLE_FAULT = 14, 8


class StandingCpu:
    """A CPU that stands still: see `observed.ObservedCpu`."""

    def __init__(self, ram: Ram, registers: Registers, bits: int) -> None:
        self.ram = ram
        self.bits = bits
        self.registers = registers

    def read(self, name: str) -> int:
        """One register by name, narrow ones too."""
        return register(self.registers, name)

    def table(self, name: str) -> tuple[int, int]:
        """Base and limit of "gdtr" or "idtr"."""
        return self.registers.gdt if name == "gdtr" else self.registers.idt

    def batch(self, *names: str) -> Words:
        """See `Words`."""
        return _Standing(self, names)

    def stop(self) -> None:
        """It stands already."""

    def forget_code(self) -> None:
        """It keeps none."""


class _Standing:
    """Register values in a list; writing them back is nobody's business."""

    def __init__(self, cpu: StandingCpu, names: tuple[str, ...]) -> None:
        self._cpu = cpu
        self._names = names
        self._values: list[int] = []

    def read(self) -> list[int]:
        self._values = [self._cpu.read(name) for name in self._names]
        return self._values

    def write(self) -> None:
        pass


_LEGACY = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"}
_BYTES = {"al": "rax", "cl": "rcx", "dl": "rdx", "bl": "rbx"}
_BYTES |= {"spl": "rsp", "bpl": "rbp", "sil": "rsi", "dil": "rdi"}
_HIGH_BYTES = {"ah": "rax", "ch": "rcx", "dh": "rdx", "bh": "rbx"}


def register(registers: Registers, name: str) -> int:
    """A register by any of its names, as wide as the name says."""
    general = registers.general
    if name in general:
        return general[name]
    if name in registers.segments:
        return registers.segments[name]
    if name in ("rip", "rflags", "cr0", "cr2", "cr3", "cr4"):
        return int(getattr(registers, name))
    if name[0] == "e" and f"r{name[1:]}" in general:
        return general[f"r{name[1:]}"] & 0xFFFF_FFFF
    if name in _LEGACY:
        return general[f"r{name}"] & 0xFFFF
    if name in _BYTES:
        return general[_BYTES[name]] & 0xFF
    if name in _HIGH_BYTES:
        return general[_HIGH_BYTES[name]] >> 8 & 0xFF
    if name[0] == "r" and name[:-1] in general:
        return general[name[:-1]] & {"d": 0xFFFF_FFFF, "w": 0xFFFF, "b": 0xFF}[name[-1]]
    return 0  # what no machine here shows, the debug registers for instance


def mmu_of(expected: Expectations, ram: Ram, registers: Registers) -> WatchedMmu:
    """The MMU of a CPU that stands still: its tables are those that lie in memory now."""
    return WatchedMmu(ram, expected.cpu, registers, {})


def bits_of(mmu: WatchedMmu, registers: Registers) -> int:
    """How a CPU that stands still decodes, by the gdt as it is now, which CS was loaded from.

    For a CPU that does not show what CS holds; a gdt that was overwritten since tells nothing.
    """
    if not registers.efer & EFER_LMA:
        return 32
    raw = mmu.look(registers.gdt[0] + (registers.segments["cs"] & ~7), 8)
    if not isinstance(raw, bytes):
        return 64
    seg = Descriptor.decode(int.from_bytes(raw, "little"))
    return 32 if seg.code and seg.present and not seg.long else 64


def step_of(expected: Expectations, registers: Registers) -> Step:
    """The step of the walk that a CPU stands in, as far as its registers tell."""
    control = expected.control_page
    if registers.cr3 in expected.way_out:
        return Step.CALL
    if not registers.cr0 & CR0_PG and expected.registers.cr0 & CR0_PG:
        return Step.COPY
    if expected.root_b not in (None, expected.root_a) and registers.cr3 == expected.root_b:
        return Step.COPY
    if registers.cr3 == expected.registers.cr3:
        return Step.CALL
    if registers.rip & -PAGE_SIZE == control:
        return Step.IDENTITY
    inside = range(control, control + PAGE_SIZE + 1)
    return Step.STATE if registers.general["rsp"] in inside else Step.TABLE_A


def explain(
    expected: Expectations,
    ram: Ram,
    registers: Registers,
    *,
    reset: bool | None,
    bits: int | None = None,
    error_code: int | None = None,
) -> Fault:
    """The exception of a CPU that fell at `registers.rip`.

    `reset` says whether the machine saw it shut down, None that it stopped at the exception; `bits`
    how CS makes it decode, where that is known; `error_code` what was pushed for a handler.
    """
    mmu = mmu_of(expected, ram, registers)
    cpu = StandingCpu(ram, registers, bits or bits_of(mmu, registers))
    steps = expected.steps()
    watch = Lookout(cpu, mmu, steps, expected, limit=2)
    watch.ahead(registers.rip)
    if watch.trouble is None:
        page_fault = registers.cr2 != expected.registers.cr2
        watch.trouble = Trouble(
            vector=PAGE_FAULT if page_fault else DOUBLE_FAULT,
            error_code=error_code,
            address=registers.cr2 if page_fault else None,
            access=None,
            reason="raised by the CPU; this machine does not say why",
            explained=False,
        )
    told = fault(watch, mmu, steps, registers)
    if told is None:
        raise MachineError("a watch in trouble has a fault to tell")
    return replace(
        told,
        step=step_of(expected, registers),
        instruction=0,
        triple=told.triple if reset is None else reset,
    )
