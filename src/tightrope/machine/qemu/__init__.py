"""QEMU as a whole PC: a walk goes into the new kernel and on to its userspace.

    process      the QEMU process; nothing of it has a name in a file system
    memory       RAM in a file that QEMU and Python map
    pc           process, gdb stub, QMP and console in one loop; QEMU's command line
    cpu          the CPU's state in the house's words
    stage        a described old kernel put into the PC, after its firmware; its CPU model
    guest        a real old kernel, booted to where it would call its relocation code
    walk         from V to the entry, by breakpoints
    exceptions   why a walk fell, from QEMU's log
    qemu         the machine
    acceleration   whether KVM may execute, found by a probe; the CPU model where nobody describes one

May import: errors, memory, model, observe, routines, x86
"""

from tightrope.machine.qemu.qemu import Qemu

__all__ = ["Qemu"]
