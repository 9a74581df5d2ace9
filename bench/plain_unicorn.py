"""What somebody would write instead of a rehearsal: the same handover in Unicorn with its own MMU.

Rules: no walker of ours, no checks, no record; every iteration of `rep movs` is the engine's own.  It
answers one question, whether the CPU arrives, and is what the rehearsal's time is compared with.
"""

from __future__ import annotations

from unicorn import unicorn as _uc
from unicorn import unicorn_const as _const
from unicorn import x86_const as _x86

from tightrope.machine.layout import lay
from tightrope.model import Handover
from tightrope.observe.physical import Ram, backed
from tightrope.x86.cpu import MSR_EFER


def walk(handover: Handover) -> bool:
    """Lay the handover out, run it, and say whether it got to the new kernel."""
    host = handover.host
    ram = Ram(backed(host.memory, host.firmware))
    lay(handover, ram)
    engine = _uc.Uc(_const.UC_ARCH_X86, _const.UC_MODE_64)
    engine.ctl_set_cpu_model(_x86.UC_CPU_X86_ICELAKE_SERVER)
    for number, extent in enumerate(ram.extents):
        engine.mem_map_ptr(
            extent.start, extent.size, _const.UC_PROT_ALL, ram.address_in_process(number)
        )
    registers = handover.registers
    names = vars(_x86)
    engine.reg_write(_x86.UC_X86_REG_CR4, registers.cr4)
    engine.reg_write(_x86.UC_X86_REG_MSR, (MSR_EFER, registers.efer))
    engine.reg_write(_x86.UC_X86_REG_CR3, registers.cr3)
    engine.reg_write(_x86.UC_X86_REG_CR0, registers.cr0)
    for name, value in registers.general.items():
        engine.reg_write(names[f"UC_X86_REG_{name.upper()}"], value)
    engine.emu_start(registers.rip, handover.intent.kernel_entry)
    return bool(engine.reg_read(_x86.UC_X86_REG_RIP) == handover.intent.kernel_entry)
