"""Machines that a handover can be walked on, behind one small port.

    port          what a machine does: `run` to the new kernel's first instruction, then `console`
    layout        a handover's bytes laid into that memory
    kvm           this computer's own CPU, through /dev/kvm
    unicorn       the emulator, Unicorn; its MMU is `observe.mmu`
    wire          the gdb protocol and QMP, without a socket
    stub          which registers QEMU's gdb stub has, and what they hold
    qemu          QEMU as a whole PC, to the new kernel's userspace
    attached      a QEMU guest of the user's, watched and left as it was
    expected      what a handover says of its own walk, for whoever watches it
    heard         what came out of a serial port, as lines that are safe to show
    held          which signals wait while an engine runs our code

Importing this package imports no engine: name the machine's own module for that.

Machines only execute; what is seen is `observe`'s.

May import: abi, errors, memory, model, observe, routines, x86
"""
