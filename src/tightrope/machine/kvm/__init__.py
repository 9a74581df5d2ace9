"""A handover walked on this computer's own CPU, in a virtual machine of the Linux kernel's KVM.

    device        /dev/kvm: opening it, its numbers, the CPUID that it offers
    vcpu          one virtual machine with one CPU: memory slots, registers, one run until an exit
    watchdog      the time limit of a run
    capability    what this computer's KVM can be, found by running a few instructions in each mode
    ready         a virtual CPU that stands at V
    free          a walk at full speed: where it stopped, registers, memory
    stepping      a walk instruction by instruction, told as the emulator's
    kvm           the machine

Rules: ioctl and mmap from Python, nothing else; every descriptor is closed again, also after
Ctrl-C.

May import: abi, errors, memory, model, observe, x86
"""

from tightrope.machine.kvm.kvm import Kvm, Pace

__all__ = ["Kvm", "Pace"]
