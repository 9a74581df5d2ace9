"""Instructions that change what the CPU is: control registers, EFER, segments, descriptor tables.

Unicorn lets every illegal one of them pass, and a virtual CPU does not say why it refused; so each
is checked against `x86.cpu` before it runs, told to the MMU and the steps, and recorded.

Rules: a refusal is returned, never raised; whoever watches ends the walk with it.  `index` and
`rip` are those of the instruction that is about to run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tightrope.memory import Virt
from tightrope.model import RegisterWrite
from tightrope.observe.decode import Operation
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.observed import ObservedCpu
from tightrope.observe.steps import StepTracker
from tightrope.x86 import cpu as x86
from tightrope.x86.control import (
    GENERAL_PROTECTION,
    IN_SEV_ES,
    IN_TDX,
    VIRTUALIZATION,
    VMM_COMMUNICATION,
)
from tightrope.x86.walk import Refused

NARROW = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi")
"""What 32-bit code has of the general registers: the upper halves are undefined to it, and are not
kept from 64-bit code (SDM volume 1, 3.4.1.1)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An exception before the instruction ran: its error code, the manual's reason, and #GP's
    vector or another."""

    error_code: int
    reason: str
    vector: int = GENERAL_PROTECTION


class Privileged:
    """The checks and the record of one walk."""

    def __init__(self, engine: ObservedCpu, mmu: WatchedMmu, steps: StepTracker) -> None:
        self._engine = engine
        self._mmu = mmu
        self._steps = steps
        self._gdt = engine.table("gdtr")
        self._later: list[RegisterWrite] = []
        self._shown: list[tuple[str, int]] = []
        """Registers that the instruction fills, and what belongs there."""
        self._control_written = False
        self._narrowed = False
        """64-bit code is about to become 32-bit code."""
        self.bits = engine.bits
        """How the CPU decodes now: 64, or 32 in a 32-bit engine and in compatibility mode."""
        self.writes: list[RegisterWrite] = []
        self.unsettled = False
        """There is something to be done once the instruction has run."""
        self.index = 0
        self.rip = 0

    def settle(self, index: int) -> None:
        """The instruction has run: `index` is that of the next one."""
        self.unsettled = False
        if self._control_written:
            self._control_written = False
            self._steps.after_control_write(index)
        for write in self._later:
            self.writes.append(replace(write, after=self._engine.read(write.register)))
        self._later.clear()
        for name, value in self._shown:
            words = self._engine.batch(name)
            words.read()[0] = value
            words.write()
        self._shown.clear()
        if self._narrowed:
            # Unicorn jumps to all 64 bits of a register, whatever decodes it (QEMU 5.0).
            self._narrowed = False
            words = self._engine.batch(*NARROW)
            values = words.read()
            for at in range(len(NARROW)):
                values[at] &= 0xFFFF_FFFF
            words.write()

    def record(self, register: str, before: int, after: int) -> None:
        """A write whose value is known."""
        self.writes.append(self._write(register, before, after))

    def record_later(self, register: str) -> None:
        """A write whose value is known only once the instruction has run."""
        before = self._engine.read(register)
        self._later.append(self._write(register, before, before))
        self.unsettled = True

    def _write(self, register: str, before: int, after: int) -> RegisterWrite:
        return RegisterWrite(
            instruction=self.index,
            step=self._steps.step,
            rip=Virt(self.rip),
            register=register,
            before=before,
            after=after,
        )

    def control_write(self, register: str, value: int) -> Refusal | None:
        """MOV to a control register."""
        mmu = self._mmu
        self._control_written = self.unsettled = True
        self._steps.control_write(self.index, register, self.rip)
        state = mmu.state(code64=self.bits == 64)
        if register == "cr0":
            before, pdpte = state.cr0, mmu.pdpte_refusal(cr0=value)
        elif register == "cr3":
            before, pdpte = state.cr3, mmu.pdpte_refusal(cr3=value)
        elif register == "cr4":
            before, pdpte = state.cr4, mmu.pdpte_refusal(cr4=value)
        else:
            before, pdpte = self._engine.read(register), None
        self.record(register, before, value)
        refused = x86.refused(state, register, value) if register in x86.RULED else None
        if refused:
            return Refusal(0, refused[1], refused[0])
        if pdpte:
            return Refusal(0, pdpte)
        if register == "cr0":
            mmu.write_cr0(value)
        elif register == "cr3":
            mmu.write_cr3(value)
        elif register == "cr4":
            mmu.write_cr4(value)
        return None

    def control_read(self, register: str, into: str) -> None:
        """MOV from a control register: an engine may hold fewer bits of CR4 than the CPU that it
        plays."""
        now = self._mmu.mmu.cr4
        if register == "cr4" and self._engine.read("cr4") != now:
            self._shown.append((into, now))
            self.unsettled = True

    def rdmsr(self) -> None:
        """RDMSR of EFER, in the same way."""
        if self._engine.read("rcx") & 0xFFFF_FFFF == x86.MSR_EFER:
            now = self._mmu.mmu.efer
            self._shown += [("rax", now & 0xFFFF_FFFF), ("rdx", now >> 32)]
            self.unsettled = True

    def wrmsr(self) -> Refusal | None:
        """WRMSR; only EFER has rules here, other registers are recorded."""
        low, high = self._engine.read("rax"), self._engine.read("rdx")
        number = self._engine.read("rcx") & 0xFFFF_FFFF
        value = low & 0xFFFF_FFFF | (high & 0xFFFF_FFFF) << 32
        if number != x86.MSR_EFER:
            self.record(f"msr {number:#x}", 0, value)
            return None
        state = self._mmu.state(code64=self.bits == 64)
        self.record("efer", state.efer, value)
        refused = x86.refused(state, "efer", value)
        if refused:
            return Refusal(0, refused[1], refused[0])
        self._mmu.write_efer(value)
        return None

    def debug_write(self, register: str, source: str) -> Refusal | None:
        """MOV to a debug register: a guest whose registers are encrypted asks its host (AMD APM,
        15.35.5)."""
        self.record(register, self._engine.read("dr7"), self._engine.read(source))
        if register == "dr7" and self._mmu.facts & IN_SEV_ES:
            return Refusal(0, "DR7 cannot be written in a SEV-ES guest", VMM_COMMUNICATION)
        return None

    def asks_the_host(self) -> Refusal | None:
        """CPUID, WBINVD, a port: in a confidential guest an exception, and its handler asks the
        host."""
        facts = self._mmu.facts
        if facts & IN_TDX:
            return Refusal(0, "it asks the host, which a TDX guest does by #VE", VIRTUALIZATION)
        if facts & IN_SEV_ES:
            return Refusal(
                0, "it asks the host, which a SEV-ES guest does by #VC", VMM_COMMUNICATION
            )
        return None

    def descriptor_table(self, operation: Operation) -> Refusal | None:
        """LGDT and LIDT: what they load, read where they will read it."""
        address = operation.memory_operand(self._engine.read)
        raw = None if address is None else self._mmu.look(address, 2 + self.bits // 8)
        if isinstance(raw, bytes):
            limit, base = int.from_bytes(raw[:2], "little"), int.from_bytes(raw[2:], "little")
            # base and limit in one number: base << 16 | limit, as the operand lies in memory.
            self.record(operation.target, 0, base << 16 | limit)
            state = self._mmu.state(code64=self.bits == 64)
            reason = x86.table_refusal(base, code64=state.code64, la57=state.la57)
            if reason:
                return Refusal(0, f"{operation.target}: {reason}")
            if operation.target == "gdt":
                self._gdt = base, limit
        return None

    def segment(self, register: str, selector: int) -> Refusal | None:
        """A segment register is about to be loaded; CS tells how the CPU decodes from then on."""
        base, limit = self._gdt
        descriptor = None
        if selector | 7 <= limit:
            raw = self._mmu.look(base + (selector & ~7), 8)
            if isinstance(raw, Refused):
                return None  # the CPU's own read of the descriptor faults, and tells it better
            descriptor = int.from_bytes(raw, "little")
        reason = x86.segment_refusal(register, selector, descriptor)
        self.record(register, self._engine.read(register), selector)
        if reason:
            return Refusal(selector & ~3, reason)
        if register == "cs" and descriptor is not None:
            long = x86.Descriptor.decode(descriptor).long and self._mmu.mmu.efer & x86.EFER_LMA
            bits = 64 if long else 32
            if bits < self.bits:
                self._narrowed = self.unsettled = True
            self.bits = bits
        return None
