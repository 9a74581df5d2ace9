"""One virtual machine with one CPU: memory in, registers in and out, one run until an exit.

A virtual machine lives for one walk.  KVM may keep what it made of the guest's page tables, and
page tables that Python writes between two walks are not the guest's own writes: a new machine has
none.

Rules: the memory is `physical.Ram`'s own, mapped without a copy, and has to outlive the machine.
`close` gives everything back and may be called twice.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tightrope.abi import kvm as abi
from tightrope.errors import MachineError
from tightrope.machine.kvm.device import Device, call
from tightrope.machine.kvm.watchdog import KICK, Watchdog
from tightrope.model import Cpu, Registers
from tightrope.observe.physical import Ram
from tightrope.x86.cpu import GENERAL, SEGMENTS, Descriptor

BUSY_TSS = abi.KVM_SEGMENT.pack(0, 0x67, 0, 11, 1, 0, 0, 0, 0, 0, 0, 0, 0)
"""What every CPU has in TR; the walk never uses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """Why a run ended.  `phys` of an access where no memory is; `port` of IN and OUT."""

    reason: int
    phys: int | None = None
    port: int | None = None

    @property
    def name(self) -> str:
        """As kvm.h calls it."""
        return abi.EXIT_NAMES.get(self.reason, f"exit {self.reason}")


class VirtualCpu:
    """See above.  Raises MachineError where KVM refuses."""

    def __init__(self, device: Device, ram: Ram, cpu: Cpu, watchdog: Watchdog) -> None:
        self.ram = ram
        self._ran = False
        self._watchdog = watchdog
        self._vm = device.create_vm()
        self._vcpu = -1
        self._run: mmap.mmap | None = None
        try:
            self._make(device, ram, cpu)
        except OSError as err:
            self.close()
            raise MachineError(f"KVM makes no virtual CPU: {err.strerror}") from err
        except BaseException:
            self.close()
            raise

    def _make(self, device: Device, ram: Ram, cpu: Cpu) -> None:
        with contextlib.suppress(OSError):  # AMD's KVM may not know it, and does not need it
            call(self._vm, abi.SET_TSS_ADDR, abi.UNUSED_TSS)
        for number, extent in enumerate(ram.extents):
            call(
                self._vm,
                abi.SET_USER_MEMORY_REGION,
                abi.KVM_USERSPACE_MEMORY_REGION.pack(
                    number, 0, extent.start, extent.size, ram.address_in_process(number)
                ),
            )
        self._vcpu = call(self._vm, abi.CREATE_VCPU)
        self._run = mmap.mmap(self._vcpu, device.run_size)
        call(self._vcpu, abi.SET_CPUID2, _cpuid(device, cpu))
        # What the thread has blocked stays blocked inside KVM_RUN, but for the watchdog's own
        # signal.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ()) - {KICK}
        mask = sum(1 << number - 1 for number in blocked)
        call(self._vcpu, abi.SET_SIGNAL_MASK, abi.KVM_SIGNAL_MASK.pack(8, mask))
        sregs = bytearray(abi.SREGS_SIZE)
        call(self._vcpu, abi.GET_SREGS, sregs)
        self._sregs = bytes(sregs)
        self._sync = bool(device.extension(abi.CAP_SYNC_REGS) & abi.SYNC_REGS_GENERAL)
        if self._sync:
            self._page[abi.RUN_VALID_REGS] = abi.SYNC_REGS_GENERAL

    @property
    def _page(self) -> mmap.mmap:
        assert self._run is not None, "closed"
        return self._run

    def close(self) -> None:
        """Give the machine back."""
        if self._run is not None:
            self._run.close()
            self._run = None
        for descriptor in (self._vcpu, self._vm):
            if descriptor >= 0:
                os.close(descriptor)
        self._vcpu = self._vm = -1

    # --------------------------------------------------------------------------------- registers

    def load(self, registers: Registers, descriptors: Mapping[str, int]) -> None:
        """Put the CPU into a state; `descriptors` has the gdt slot of each segment that is not
        null.

        Raises MachineError where this KVM cannot hold it.
        """
        sregs = bytearray(self._sregs)
        for number, name in enumerate(abi.SEGMENT_ORDER):
            sregs[number * 24 : number * 24 + 24] = _segment(
                registers.segments[name], descriptors.get(name)
            )
        sregs[abi.TR_AT : abi.TR_AT + 24] = BUSY_TSS
        abi.KVM_DTABLE.pack_into(sregs, abi.GDT_AT, *registers.gdt)
        abi.KVM_DTABLE.pack_into(sregs, abi.IDT_AT, *registers.idt)
        abi.KVM_CONTROL.pack_into(
            sregs,
            abi.CONTROL_AT,
            registers.cr0,
            registers.cr2,
            registers.cr3,
            registers.cr4,
            0,
            registers.efer,
        )
        try:
            call(self._vcpu, abi.SET_SREGS, sregs)
        except OSError as err:
            raise MachineError(
                f"this computer's KVM cannot hold CR0 = {registers.cr0:#x}, CR4 ="
                f" {registers.cr4:#x}, EFER = {registers.efer:#x}: {err.strerror}"
            ) from err
        self._ran = False
        values = {**registers.general, "rip": registers.rip, "rflags": registers.rflags}
        call(
            self._vcpu,
            abi.SET_REGS,
            abi.KVM_REGS.pack(*(values[name] for name in abi.REGISTERS)),
        )

    def general(self) -> dict[str, int]:
        """General registers, rip and rflags, after a run as it left them."""
        if self._sync and self._ran:
            values = abi.KVM_REGS.unpack_from(self._page, abi.RUN_SYNC)
        else:
            data = bytearray(abi.KVM_REGS.size)
            call(self._vcpu, abi.GET_REGS, data)
            values = abi.KVM_REGS.unpack(data)
        return dict(zip(abi.REGISTERS, values, strict=True))

    def bits(self) -> int:
        """How CS makes the CPU decode: 64 or 32."""
        sregs = bytearray(abi.SREGS_SIZE)
        call(self._vcpu, abi.GET_SREGS, sregs)
        return 64 if abi.KVM_SEGMENT.unpack_from(sregs, 0)[abi.SEGMENT_LONG] else 32

    def registers(self) -> Registers:
        """The CPU as it is."""
        sregs = bytearray(abi.SREGS_SIZE)
        call(self._vcpu, abi.GET_SREGS, sregs)
        cr0, cr2, cr3, cr4, _cr8, efer = abi.KVM_CONTROL.unpack_from(sregs, abi.CONTROL_AT)
        selectors = {
            name: abi.KVM_SEGMENT.unpack_from(sregs, number * 24)[2]
            for number, name in enumerate(abi.SEGMENT_ORDER)
        }
        values = self.general()
        return Registers(
            general={name: values[name] for name in GENERAL},
            rip=values["rip"],
            rflags=values["rflags"],
            cr0=cr0,
            cr2=cr2,
            cr3=cr3,
            cr4=cr4,
            efer=efer,
            segments={name: selectors[name] for name in SEGMENTS},
            gdt=abi.KVM_DTABLE.unpack_from(sregs, abi.GDT_AT),
            idt=abi.KVM_DTABLE.unpack_from(sregs, abi.IDT_AT),
        )

    # --------------------------------------------------------------------------------------- runs

    def break_at(self, addresses: Iterable[int], *, stepping: bool = False) -> None:
        """Exit ahead of the instructions at up to four linear addresses; `stepping` after each one
        too."""
        debug = [0] * 8
        debug[7] = abi.DR7_EXACT
        for number, address in enumerate(addresses):
            debug[number] = address
            debug[7] |= abi.DR7_GLOBAL << 2 * number
        control = abi.DEBUG_ENABLE | abi.DEBUG_HARDWARE
        control |= abi.DEBUG_SINGLESTEP if stepping else 0
        call(self._vcpu, abi.SET_GUEST_DEBUG, abi.KVM_GUEST_DEBUG.pack(control, 0, *debug))

    def go(self) -> Exit | None:
        """Run until something happens; None when the watchdog's time is over."""
        while True:
            try:
                call(self._vcpu, abi.RUN)
                break
            except (InterruptedError, BlockingIOError):
                # A signal.  Ctrl-C is raised by Python itself before we get here.
                if self._watchdog.over:
                    return None
            except OSError as err:
                raise MachineError(f"KVM does not run: {err.strerror}") from err
        self._ran = True
        page = self._page
        (reason,) = abi.RUN_EXIT_REASON.unpack_from(page)
        if reason == abi.EXIT_MMIO:
            phys, _data, _size, _write = abi.RUN_MMIO.unpack_from(page, abi.RUN_UNION)
            return Exit(reason=reason, phys=phys)
        if reason == abi.EXIT_IO:
            direction, size, port, count, at = abi.RUN_IO.unpack_from(page, abi.RUN_UNION)
            if direction != abi.IO_OUT:
                page[at : at + size * count] = b"\xff" * (size * count)
            return Exit(reason=reason, port=port)
        return Exit(reason=reason)


def _segment(selector: int, descriptor: int | None) -> bytes:
    """struct kvm_segment for a selector, from its descriptor; unusable without one."""
    if descriptor is None:
        return abi.KVM_SEGMENT.pack(0, 0, selector, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0)
    seg = Descriptor.decode(descriptor)
    return abi.KVM_SEGMENT.pack(
        seg.base,
        seg.limit,
        selector,
        seg.type | 1,
        seg.present,
        seg.dpl,
        seg.big,
        not seg.system,
        seg.long,
        descriptor >> 55 & 1,
        0,
        0,
        0,
    )


def _cpuid(device: Device, cpu: Cpu) -> bytes:
    """What KVM offers, as far as the old kernel's CPU has it: address bits, NX and 1 GiB pages."""
    out = bytearray(abi.CPUID_HEAD.pack(len(device.cpuid), 0))
    for function, index, flags, eax, ebx, ecx, edx in device.cpuid:
        if function == abi.CPUID_ADDRESS_SIZES:
            eax = eax & ~0xFF | min(eax & 0xFF, cpu.physical_bits)
        elif function == abi.CPUID_EXTENDED:
            edx &= ~(0 if cpu.nx else abi.EXTENDED_NX)
            edx &= ~(0 if cpu.gbpages else abi.EXTENDED_GBPAGES)
        out += abi.CPUID_ENTRY.pack(function, index, flags, eax, ebx, ecx, edx)
    return bytes(out)
