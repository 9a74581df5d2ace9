"""The KVM machine: what it can be, and its two ways to walk.

Rules: one virtual machine per walk; the device is opened once and closed with the machine.  What
this computer's KVM lacks for a given old kernel is a CannotBe with the reason, and where the old
kernel's CR4 has bits that it lacks and that the walk does not depend on, they are off and `blind`
says so.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum

import numpy as np

from tightrope.errors import CannotBe, MachineError
from tightrope.machine.expected import expectations
from tightrope.machine.kvm import free, stepping
from tightrope.machine.kvm.capability import Capability, capability
from tightrope.machine.kvm.device import Device
from tightrope.machine.kvm.ready import Ready
from tightrope.machine.kvm.vcpu import VirtualCpu
from tightrope.machine.kvm.watchdog import Watchdog
from tightrope.machine.layout import lay
from tightrope.machine.port import Ends, Progress
from tightrope.memory import PAGE_SIZE
from tightrope.model import Console, Handover, Registers, Run
from tightrope.observe.at_call import impossible, refused
from tightrope.observe.mmu import WatchedMmu
from tightrope.observe.physical import Ram, backed
from tightrope.observe.record import known_descriptors
from tightrope.x86 import cpu as x86
from tightrope.x86.bits import named_bits
from tightrope.x86.survey import survey

GIB = 1 << 30
SECONDS = 20.0
BYTES_PER_SECOND = 1 << 20
"""The slowest copy that is waited for: KVM emulated in software does 4 to 5 MB/s."""


class Pace(StrEnum):
    """How a walk goes; the value is the machine's name."""

    STEPPING = "kvm"
    """Instruction by instruction, each one watched."""
    FREE = "kvm-free"
    """At full speed; only where it ends is seen."""


_WALKS = {Pace.STEPPING: stepping.walk, Pace.FREE: free.walk}


class Kvm:
    """See `machine.port.Machine`.  Raises MissingPart where there is no KVM to be used."""

    blind: tuple[str, ...] = (
        "what the CPU's own caches of translations held",
        "other CPUs, NMI, machine checks, SMI and DMA",
        "memory types (PAT, MTRR) and caches",
        "memory encryption",
        "breakpoints that the old kernel left in DR0 to DR7",
    )

    def __init__(self, pace: Pace = Pace.STEPPING, *, seconds: float = SECONDS) -> None:
        self.name = str(pace)
        self._walk = _WALKS[pace]
        self._seconds = seconds
        self._cpu: VirtualCpu | None = None
        self._ram: Ram | None = None
        self._device = Device()
        self._watchdog = Watchdog()
        self._can = capability()

    def close(self) -> None:
        """Give back the virtual machine and the device."""
        self._drop()
        self._watchdog.close()
        self._device.close()

    def _drop(self) -> None:
        if self._cpu is not None:
            self._cpu.close()
            self._cpu = None

    def run(self, handover: Handover) -> Run:
        """Walk.  Raises CannotBe for an old kernel that this KVM cannot be, MachineError where it
        gives up."""
        lacking = lacks(self._can, handover)
        if lacking:
            raise CannotBe(lacking)
        try:
            ready = self._prepare(handover)
            if isinstance(ready, Run):
                return ready
            return self._walk(ready, self._watchdog)
        finally:
            self._drop()

    def _prepare(self, handover: Handover) -> Ready | Run:
        """The CPU at the call; the run where no CPU can be there."""
        host = handover.host
        extents = backed(host.memory, host.firmware)
        if self._ram is None or self._ram.extents != extents:
            self._ram = Ram(extents)
        ram = self._ram
        lay(handover, ram)
        off = handover.registers.cr4 & ~self._can.cr4 & ~x86.CR4_TRANSLATES
        blind = self.blind
        if off:
            names = named_bits(off, x86.CR4_NAMES)
            blind += (f"the old kernel's CR4 {names}: this computer's KVM has none of it",)
        registers = replace(handover.registers, cr4=handover.registers.cr4 & ~off)
        expected = expectations(replace(handover, registers=registers))
        same = handover.relocation_code.contract.same
        mmu = WatchedMmu(ram, host.cpu, registers, expected.tables, same)
        why = impossible(mmu, registers)
        if why is not None:
            return refused(self.name, why, registers, ram, blind)
        self._cpu = VirtualCpu(self._device, ram, host.cpu, self._watchdog)
        self._cpu.load(registers, _descriptors(mmu, registers))
        moved = int((handover.intent.destinations != handover.intent.sources).sum()) * PAGE_SIZE
        return Ready(
            cpu=self._cpu,
            ram=ram,
            expected=expected,
            mmu=mmu,
            blind=blind,
            seconds=self._seconds + moved / BYTES_PER_SECOND,
        )

    def console(self, *, seconds: float, ends: Ends, progress: Progress) -> Console:
        """Raises MachineError: the new kernel's own devices are the emulator's and QEMU's
        business."""
        raise MachineError("the kvm machine stops at the new kernel's first instruction")


def lacks(can: Capability, handover: Handover) -> str | None:
    """Why this computer's KVM cannot be an old kernel's CPU, or None."""
    host = handover.host
    this = "this computer's KVM"
    for paging in (host.paging, handover.intent.paging):
        if paging in can.missing:
            return f"{this} has no {paging.value} paging: {can.missing[paging]}"
    if handover.registers.cr4 & x86.CR4_TRANSLATES & ~can.cr4:
        names = named_bits(handover.registers.cr4 & x86.CR4_TRANSLATES & ~can.cr4, x86.CR4_NAMES)
        return f"{this} cannot set CR4 {names}"
    if handover.registers.efer & x86.EFER_NXE and not can.nx:
        return f"{this} has no NX"
    end = max(each.end for each in host.memory.ram)
    if end > 1 << can.physical_bits:
        return f"{this} has {can.physical_bits} address bits, and there is RAM up to {end:#x}"
    if host.cpu.gbpages and not can.gbpages and _uses_gbpages(handover):
        return f"{this} has no 1 GiB pages, and the tables use them"
    return None


def _uses_gbpages(handover: Handover) -> bool:
    registers = handover.registers
    trees = [(handover.world.pgd, handover.world.tables)]
    for each in (handover.page_table_a, handover.page_table_b):
        if each is not None:
            trees.append((each.root, each.pages))
    for root, pages in trees:
        mmu = replace(registers.mmu(handover.host.cpu, root=root), gbpages=True)
        if bool((survey(pages.get, mmu).size >= np.uint64(GIB)).any()):
            return True
    return False


def _descriptors(mmu: WatchedMmu, registers: Registers) -> dict[str, int]:
    """What the old kernel loaded its segments from; flat ones where its gdt is no longer to be
    read."""
    bits = 64 if registers.efer & x86.EFER_LMA else 32
    return {
        name: x86.flat_descriptor(code=name == "cs", bits=bits if name == "cs" else 32)
        if known is None
        else known
        for name, known in known_descriptors(mmu, registers).items()
    }
